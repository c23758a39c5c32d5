#!/usr/bin/python3
"""Claim: `isle run --rm --vm busybox true` on our software CPU takes at most half of what the same
image takes when started by hand under QEMU TCG: same kernel, root file system shared with the guest
(virtio-fs with us, 9p with QEMU, which serves it itself), true run in it, machine off."""

import os
import shutil
import sys
import tempfile

import frame

from tests.lib import runtime, vm  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "10"))
MEMORY_MIB = "1024"
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1 reboot=k"
INIT = """/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L root /mnt
/bin/busybox chroot /mnt /bin/true
/bin/busybox reboot -f
"""


def main():
    frame.install("qemu-system-x86")
    frame.need("qemu-system-x86_64")
    kernel = str(vm.debian_kernel())
    environment = {"ISLE_VM_KERNEL": kernel, "ISLE_VM_CPU": "soft"}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Daemon(
            tempfile.mkdtemp(dir=home), env=environment) as daemon:
        daemon.load_busybox()
        root = runtime.make_rootfs(os.path.join(home, "rootfs"))
        initrd = vm.initrd(os.path.join(home, "initrd.gz"), INIT,
                           modules=("virtio_pci", "9pnet_virtio", "9p"))
        isle = [frame.built("isle"), "-H", daemon.host, "run", "--rm"]
        figures = frame.interleave({
            "isle run --vm": frame.timed([*isle, "--vm", "busybox", "true"]),
            "QEMU TCG q35": frame.timed([
                shutil.which("qemu-system-x86_64"), "-accel", "tcg,thread=multi", "-nodefaults",
                "-serial", "stdio", "-cpu", "max", "-M", "q35", "-m", MEMORY_MIB, "-nographic",
                "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", CMDLINE,
                "-virtfs", f"local,path={root},mount_tag=root,security_model=none"]),
            "isle run (container)": frame.timed([*isle, "busybox", "true"]),
        }, ROUNDS, warmup=1)
    return frame.report(
        "vm-start", "run `true` of busybox in a virtual machine, 1 GiB, 1 vCPU (wall time)", figures,
        goals=[("isle <= 0.5 x QEMU TCG",
                lambda m: m["isle run --vm"] <= 0.5 * m["QEMU TCG q35"])],
        notes=["ours includes the daemon's work: record, overlay, log, monitor, removal"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
