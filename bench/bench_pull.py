#!/usr/bin/python3
"""Claim: pulling and unpacking a 3-layer image of over 100 MB from a loopback registry is at
least twice as fast as `podman pull`, and faster than `skopeo copy` + `umoci unpack`."""

import contextlib
import io
import os
import pathlib
import sys
import tarfile
import tempfile
import time

import frame
import peers

peers.enter_private_cgroups()

from tests.lib import images  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402
from tests.lib.registry import Registry  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "5"))
# ext4 without a journal looks at every inode deleted in the last minute before it makes a
# file near them; whoever comes after a removal would pay for it.
QUIET_S = 61


def layers_of_this_machine():
    """Three layers of real files: programs, libraries, data; about 250 MB unpacked."""
    layers = []
    for source, limit in (("/usr/bin", 100 << 20), ("/usr/lib/x86_64-linux-gnu", 120 << 20),
                          ("/usr/share", 60 << 20)):
        out, total = io.BytesIO(), 0
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(pathlib.Path(source).rglob("*")):
                if path.is_symlink() or not path.is_file() or path.stat().st_size > 20 << 20:
                    continue
                tar.add(path, arcname=str(path)[1:], recursive=False)
                total += path.stat().st_size
                if total > limit:
                    break
        layers.append(out.getvalue())
    return layers


def isle_candidate(home, reference, closing):
    """Every turn has a daemon and a store of its own."""
    def once():
        isled = Daemon(tempfile.mkdtemp(dir=home))
        closing.callback(isled.close)
        return frame.timed([frame.built("isle"), "-H", isled.host, "pull", "-q", reference])()
    return once


def podman_candidate(reference, closing):
    def once():
        podman = peers.Podman()
        closing.callback(podman.close)
        frame.run_quietly(podman.command("images"), env=podman.env)  # makes the store
        return frame.timed(podman.command("pull", "-q", "--tls-verify=false", reference),
                           env=podman.env)()
    return once


def skopeo_candidate(home, reference):
    def once():
        place = tempfile.mkdtemp(dir=home)
        return frame.timed(["sh", "-c",
                            "skopeo copy -q --insecure-policy --src-tls-verify=false "
                            f"docker://{reference} oci:{place}/oci:1 && "
                            f"umoci raw unpack --image {place}/oci:1 {place}/rootfs"])()
    return once


def main():
    frame.install("podman", "crun", "skopeo", "umoci", "docker-registry")
    print(f"waiting {QUIET_S} s for the file system to forget earlier deletions", flush=True)
    time.sleep(QUIET_S)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Registry(home) as registry, \
            contextlib.ExitStack() as closing:
        image = images.Image(layers_of_this_machine())
        image.push(registry, "bench/layers", "1")
        reference = f"{registry.address}/bench/layers:1"
        size = sum(layer["size"] for layer in image.manifest["layers"])
        figures = frame.interleave({
            "isle pull": isle_candidate(home, reference, closing),
            "podman pull": podman_candidate(reference, closing),
            "skopeo copy + umoci unpack": skopeo_candidate(home, reference),
        }, ROUNDS)
    return frame.report(
        "pull", f"pull and unpack of 3 layers, {size / 1e6:.0f} MB compressed (wall time)", figures,
        unit="s",
        goals=[("at least 2 x faster than podman",
                lambda m: m["isle pull"] * 2 <= m["podman pull"]),
               ("faster than skopeo + umoci",
                lambda m: m["isle pull"] < m["skopeo copy + umoci unpack"])],
        notes=["the file cache is warm for all; no candidate is asked to sync to disk",
               "every turn has a fresh store, and nothing is deleted before the end"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
