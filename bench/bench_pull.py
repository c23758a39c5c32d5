#!/usr/bin/python3
"""Claim: pulling and unpacking a 3-layer image of over 100 MB from a loopback registry is at
least twice as fast as `podman pull`, and faster than `skopeo copy` + `umoci unpack`."""

import os
import shutil
import sys
import tempfile

import frame
import peers

peers.enter_private_cgroups()

from tests.lib import images  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402
from tests.lib.registry import Registry  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "5"))


def layers_of_this_machine():
    """Three layers of real files: programs, libraries, data; about 250 MB unpacked."""
    import io
    import pathlib
    import tarfile
    layers = []
    for source, limit in (("/usr/bin", 90 << 20), ("/usr/lib/x86_64-linux-gnu", 110 << 20),
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


def main():
    frame.install("podman", "crun", "skopeo", "umoci", "docker-registry")
    podman = peers.Podman()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Registry(home) as registry, \
            Daemon(home) as isled:
        reference = f"{registry.address}/bench/layers:1"
        size = images.push(registry.address, "bench/layers", "1", layers_of_this_machine())
        isle = [frame.built("isle"), "-H", isled.host]

        def clean(path):
            return lambda: shutil.rmtree(path, ignore_errors=True)

        def skopeo_umoci():
            copy = f"oci:{home}/oci:1"
            return frame.timed(["sh", "-c", f"skopeo copy -q --insecure-policy --src-tls-verify=false docker://{reference} {copy}"
                                f" && umoci raw unpack --image {home}/oci:1 {home}/rootfs"],
                               after=lambda: (clean(f"{home}/oci")(), clean(f"{home}/rootfs")()))

        candidates = {
            "isle pull": frame.timed(
                [*isle, "pull", "-q", reference],
                after=lambda: frame.run_quietly([*isle, "rmi", reference])),
            "podman pull": frame.timed(
                podman.command("pull", "-q", "--tls-verify=false", reference), env=podman.env,
                after=lambda: frame.run_quietly(podman.command("rmi", "-af"), env=podman.env)),
            "skopeo copy + umoci unpack": skopeo_umoci(),
        }
        try:
            figures = frame.interleave(candidates, ROUNDS)
        finally:
            podman.close()
    return frame.report(
        "pull", f"pull and unpack of 3 layers, {size >> 20} MiB compressed (wall time)", figures,
        unit="s",
        goals=[("at least 2 x faster than podman",
                lambda m: m["isle pull"] * 2 <= m["podman pull"]),
               ("faster than skopeo + umoci",
                lambda m: m["isle pull"] < m["skopeo copy + umoci unpack"])],
        notes=["the file cache is warm for all; no candidate is asked to sync to disk"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
