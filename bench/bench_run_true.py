#!/usr/bin/python3
"""Claim: `isle run --rm --network none busybox true` takes at most 25 ms, and at most 40 ms
through the stock docker client; podman and docker take about ten times that."""

import os
import subprocess
import sys
import tempfile

import frame
import peers

peers.enter_private_cgroups()

from tests.lib import images  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "20"))


def main():
    frame.need("docker")
    podman = peers.Podman()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Daemon(home) as isled, \
            peers.dockerd() as dockerd:
        isled.load_busybox()
        archive = os.path.join(home, "busybox.tar")
        images.docker_archive(archive, ["busybox:latest"], [images.busybox_layer()],
                              images.BUSYBOX_CONFIG)
        frame.run_quietly(podman.command("load", "-q", "-i", archive), env=podman.env)
        frame.run_quietly(dockerd.docker("load", "-q", "-i", archive))
        run = ("run", "--rm", "--network", "none", "busybox", "true")
        candidates = {
            "isle run": frame.timed([frame.built("isle"), "-H", isled.host, *run]),
            "docker client on isled": frame.timed(["docker", "-H", isled.host, *run]),
            "podman run": frame.timed(podman.command(*run), env=podman.env),
            "docker run on dockerd": frame.timed(dockerd.docker(*run)),
        }
        try:
            figures = frame.interleave(candidates, ROUNDS, warmup=2)
        finally:
            podman.close()
    return frame.report(
        "run-true", "run --rm --network none busybox true (wall time)", figures,
        goals=[("isle run <= 25 ms", lambda m: m["isle run"] <= 0.025),
               ("docker client on isled <= 40 ms", lambda m: m["docker client on isled"] <= 0.040),
               ("isle <= 0.25 x podman", lambda m: m["isle run"] <= 0.25 * m["podman run"])],
        notes=[subprocess.run(["podman", "--version"], capture_output=True,
                              text=True).stdout.strip()])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
