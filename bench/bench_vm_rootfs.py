#!/usr/bin/python3
"""Claim: on the software CPU a machine whose root is made of layers (`--vm-rootfs erofs`) looks at and
reads many small files in at most 0.7 of the time that one with a shared root (`fs`) takes. The image
has a tree as npm leaves behind: many small files in many directories, and some large ones. What else
differs is printed, too.

Times inside are the guest's (/proc/uptime) of the first look, the guest's caches being empty and the
host's full; the start is the host's wall time."""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import frame

from tests.lib import images, vm  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "5"))
PACKAGES, FILES_EACH, LARGE, LARGE_BYTES = 150, 20, 4, 8 << 20

# Each prints its time in hundredths of a second.
CASES = {
    "stat of every file (ls -lR)": "ls -lR /tree > /dev/null",
    "the same again": "ls -lR /tree > /dev/null",
    "read of every small file": "find /tree -type f | xargs cat > /dev/null",
    "the same again ": "find /tree -type f | xargs cat > /dev/null",
    "read of large files": "cat /large/* > /dev/null",
    "500 new files": "mkdir /new; i=0; while [ $i -lt 500 ]; do echo $i > /new/$i; i=$((i+1)); done",
    "16 MiB written": "dd if=/dev/zero of=/new/zero bs=64k count=256 2> /dev/null",
    "20 files of the image changed": "for f in /tree/p1/*; do echo x >> $f; done",
}
FASTER = set(list(CASES)[:4])
# In hundredths of a second; digits with a zero in front would be octal.
SCRIPT = ("now() { read up rest < /proc/uptime; s=${up%.*}; echo $((1$s${up#*.} - 1${s}00 + ${s}00)); }\n" +
          "".join(
    f"a=$(now); {command}; b=$(now); echo $((b-a))\n" for command in CASES.values()))


def tree():
    """Sizes as of JavaScript packages: a median of 1.5 KiB."""
    draw = random.Random(7)
    files = {"tree": None, "large": None}
    for p in range(PACKAGES):
        files[f"tree/p{p}"] = None
        for f in range(FILES_EACH):
            if f % 10 == 9:
                files[f"tree/p{p}/d{f}"] = None
            path = f"tree/p{p}/d{f}/index.js" if f % 10 == 9 else f"tree/p{p}/f{f}.js"
            files[path] = draw.randbytes(min(int(draw.lognormvariate(7.3, 1.2)), 100_000))
    for f in range(LARGE):
        files[f"large/{f}"] = draw.randbytes(LARGE_BYTES)
    return images.tar_bytes(files)


def load(daemon, home):
    archive = os.path.join(home, "tree.tar")
    images.docker_archive(archive, ["tree"], [images.busybox_layer(), tree()],
                          images.BUSYBOX_CONFIG)
    frame.run_quietly([frame.built("isle"), "-H", daemon.host, "load", "-q", "-i", archive])


def idle_memory(daemon, rootfs):
    """What one more machine of the image holds when it idles, in bytes: all its processes."""
    isle = [frame.built("isle"), "-H", daemon.host]
    ids = [frame.run_quietly([*isle, "run", "-d", "--vm", "--vm-rootfs", rootfs, "tree", "sh", "-c",
                              "cat /large/0 > /dev/null; exec sleep 1000"]).strip()
           for _ in range(2)]
    time.sleep(20)  # it gives back what it does not use
    pid = int(frame.run_quietly([*isle, "inspect", "-f", "{{.State.Pid}}", ids[1]]))
    held = sum(private_bytes(p) for p in descendants(pid))
    frame.run_quietly([*isle, "rm", "-f", *ids])
    return held


def descendants(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [pid] + [p for child in found.split() for p in descendants(int(child))]


def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return 1024 * sum(int(line.split()[1]) for line in f
                          if line.startswith(("Private_Dirty:", "Private_Clean:")))


def main():
    frame.install("erofs-utils")
    inside = {(case, kind): [] for case in CASES for kind in ("erofs", "fs")}
    starts = {"erofs": [], "fs": []}
    environment = {"ISLE_VM_KERNEL": str(vm.debian_kernel()), "ISLE_VM_CPU": "soft"}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Daemon(
            tempfile.mkdtemp(dir=home), env=environment) as daemon:
        load(daemon, home)
        isle = [frame.built("isle"), "-H", daemon.host, "run", "--rm", "--vm", "--vm-rootfs"]
        first = frame.timed([*isle, "erofs", "tree", "true"])()
        for turn in range(ROUNDS + 1):
            for kind, figures in starts.items():
                took = frame.timed([*isle, kind, "tree", "true"])()
                out = frame.run_quietly([*isle, kind, "tree", "sh", "-c", SCRIPT]).split()
                if turn == 0:
                    continue
                figures.append(took)
                for case, ticks in zip(CASES, out):
                    inside[case, kind].append(int(ticks) / 100)
        memory = {kind: idle_memory(daemon, kind) for kind in starts}
    met = True
    for index, case in enumerate(CASES):
        faster = case in FASTER
        met &= frame.report(f"vm-rootfs-{index}", case, {kind: inside[case, kind] for kind in starts},
                            goals=[("erofs <= 0.7 x fs",
                                    lambda m: m["erofs"] <= 0.7 * m["fs"])] * faster)
    print(f"\nfirst start of an image, which is made then: {first * 1e3:.0f} ms")
    print("memory of a second machine that idles: " + ", ".join(
        f"{kind} {size / (1 << 20):.1f} MiB" for kind, size in memory.items()))
    return frame.report(
        "vm-rootfs", "run `true` in a virtual machine (wall time)", starts,
        notes=[f"{PACKAGES * FILES_EACH} small files, {LARGE} of {LARGE_BYTES >> 20} MiB"]) and met


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
