#!/usr/bin/python3
"""Claim: a whole Debian under systemd comes up and goes off in less time on our software CPU than
under QEMU TCG (q35, -cpu max) with the same kernel, disk image and memory."""

import os
import sys
import tempfile

import frame
import peers

from tests.lib import vm  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "5"))
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1 poweroff-when-up"


def main():
    peers.install_qemu()
    kernel, disk = str(vm.debian_kernel()), str(vm.debian_disk())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        # The disk is read only, with a layer in memory: every round finds it as it was.
        initrd = str(vm.initrd(os.path.join(home, "initrd.gz"), vm.SWITCH_TO_OVERLAY,
                               vm.DISK_MODULES))
        figures = frame.interleave({
            "isle-vmm soft": frame.timed([
                str(vm.VMM), "--cpu", "soft", "--memory", "1g", "--kernel", kernel, "--initrd",
                initrd, "--cmdline", CMDLINE, "--disk", f"{disk},ro"]),
            "QEMU TCG q35": frame.timed(peers.qemu_tcg(kernel, initrd, CMDLINE, 1024,
                                                       *peers.qemu_disk(disk))),
        }, ROUNDS, warmup=1)
    return frame.report(
        "vm-systemd", "process start to multi-user and power-off, Debian 12, 1 GiB, 1 vCPU "
        "(wall time)", figures,
        goals=[("isle <= 0.5 x QEMU TCG",
                lambda m: m["isle-vmm soft"] <= 0.5 * m["QEMU TCG q35"])])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
