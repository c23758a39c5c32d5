#!/usr/bin/python3
"""Claim: a stock Debian cloud kernel reaches its init on our software CPU in less time than under
QEMU TCG (q35, -cpu max) with the same kernel, initial ramdisk and memory."""

import os
import sys
import tempfile

import frame
import peers

from tests.lib import vm  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "10"))
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1 reboot=k"


def main():
    peers.install_qemu()
    kernel = str(vm.debian_kernel())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        initrd = vm.initrd(os.path.join(home, "initrd.gz"), "/bin/busybox reboot -f\n")
        figures = frame.interleave({
            "isle-vmm soft": frame.timed([str(vm.VMM), "--cpu", "soft", "--kernel", kernel,
                                          "--initrd", initrd, "--cmdline", CMDLINE,
                                          "--no-reboot"]),
            "QEMU TCG q35": frame.timed(peers.qemu_tcg(kernel, initrd, CMDLINE, 256)),
        }, ROUNDS, warmup=1)
    return frame.report(
        "vm-boot", "process start to init and its reset, Debian cloud kernel, 256 MiB, 1 vCPU "
        "(wall time)", figures,
        goals=[("isle <= QEMU TCG", lambda m: m["isle-vmm soft"] <= m["QEMU TCG q35"])],
        notes=["QEMU's microvm machine does not boot this kernel (no output in 20 s)"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
