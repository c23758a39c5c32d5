#!/usr/bin/python3
"""Claim: `isle run --rm --vm busybox true` on our software CPU takes at most half of what the same
image takes when started by hand under QEMU TCG: same kernel, root file system shared with the guest
by virtio-fs with us, on a virtio disk with QEMU (the kernel has no 9p), true run in it, machine off.
QEMU's machine is q35: microvm has no clock that this kernel could calibrate its TSC by under TCG."""

import os
import sys
import tempfile
import time

import frame
import peers

from tests.lib import runtime, vm  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "10"))
MEMORY_MIB = "1024"
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1 reboot=t"
INIT = """/bin/busybox mount -t ext4 /dev/vda /mnt && /bin/busybox chroot /mnt /bin/true && echo ran
/bin/busybox reboot -f
"""


def qemu(kernel, initrd, disk):
    """A candidate; that the guest ran the program is looked for in its output."""
    command = peers.qemu_tcg(kernel, initrd, CMDLINE, MEMORY_MIB,
                             *peers.qemu_disk(disk, "cache=unsafe,snapshot=on"))

    def once():
        start = time.perf_counter()
        output = frame.run_quietly(command)
        took = time.perf_counter() - start
        if "ran\n" not in output.replace("\r", ""):
            sys.exit(f"bench: the guest did not get as far as it should:\n{output}")
        return took
    return once


def main():
    peers.install_qemu()
    kernel = str(vm.debian_kernel())
    environment = {"ISLE_VM_KERNEL": kernel, "ISLE_VM_CPU": "soft"}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Daemon(
            tempfile.mkdtemp(dir=home), env=environment) as daemon:
        daemon.load_busybox()
        root = runtime.make_rootfs(os.path.join(home, "rootfs"))
        initrd = vm.initrd(os.path.join(home, "initrd.gz"), INIT,
                           modules=("virtio_pci", "virtio_blk", "ext4"))
        disk = os.path.join(home, "disk")
        frame.run_quietly(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "64M"])
        isle = [frame.built("isle"), "-H", daemon.host, "run", "--rm"]
        figures = frame.interleave({
            "isle run --vm": frame.timed([*isle, "--vm", "busybox", "true"]),
            "QEMU TCG q35": qemu(kernel, initrd, disk),
            "isle run (container)": frame.timed([*isle, "busybox", "true"]),
        }, ROUNDS, warmup=1)
    return frame.report(
        "vm-start", "run `true` of busybox in a virtual machine, 1 GiB, 1 vCPU (wall time)", figures,
        goals=[("isle <= 0.5 x QEMU TCG",
                lambda m: m["isle run --vm"] <= 0.5 * m["QEMU TCG q35"])],
        notes=["ours includes the daemon's work: record, overlay, log, monitor, removal"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
