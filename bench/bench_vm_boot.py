#!/usr/bin/python3
"""Claim: a stock Debian cloud kernel reaches its init on our software CPU in less time than under
QEMU TCG (q35, -cpu max) with the same kernel, initial ramdisk and memory, and in half of its
processor time. No run profits from one before: there is no store of translations
(docs/design/software-cpu.md says why)."""

import os
import resource
import sys
import tempfile
import time

import frame
import peers

from tests.lib import vm  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "10"))
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1 reboot=k"


def processor_time():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def both_times(command):
    """A candidate: wall time and processor time of one run."""
    def once():
        wall, busy = time.perf_counter(), processor_time()
        frame.run_quietly(command)
        return time.perf_counter() - wall, processor_time() - busy
    return once


def main():
    peers.install_qemu()
    kernel = str(vm.debian_kernel())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        initrd = vm.initrd(os.path.join(home, "initrd.gz"), "/bin/busybox reboot -f\n")
        figures = frame.interleave({
            "isle-vmm soft": both_times([vm.VMM, "--cpu", "soft", "--kernel", kernel,
                                         "--initrd", initrd, "--cmdline", CMDLINE,
                                         "--no-reboot"]),
            "QEMU TCG q35": both_times(peers.qemu_tcg(kernel, initrd, CMDLINE, 256)),
        }, ROUNDS, warmup=1)
    what = "process start to init and its reset, Debian cloud kernel, 256 MiB, 1 vCPU"
    notes = ["QEMU's microvm machine does not boot this kernel (no output in 20 s)"]
    wall, busy = ({label: [pair[n] for pair in pairs] for label, pairs in figures.items()}
                  for n in (0, 1))
    met = frame.report(
        "vm-boot", f"{what} (wall time)", wall,
        goals=[("isle <= QEMU TCG", lambda m: m["isle-vmm soft"] <= m["QEMU TCG q35"])],
        notes=notes)
    return frame.report(
        "vm-boot-processor", f"{what} (processor time)", busy,
        goals=[("cold: isle <= 0.5 x QEMU TCG",
                lambda m: m["isle-vmm soft"] <= 0.5 * m["QEMU TCG q35"]),
               ("the goal of a warm store, met cold: isle <= 0.25 x QEMU TCG",
                lambda m: m["isle-vmm soft"] <= 0.25 * m["QEMU TCG q35"])],
        notes=notes) and met


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
