#!/usr/bin/python3
"""Claim: fifty idle virtual machines of one image on the software CPU use at most 2 % of one core in
all, and each further one less than 40 MiB of the host's memory. Beside it the same by hand under QEMU
TCG, with fewer machines.

Memory is what is no longer available (MemAvailable) when all have settled, divided by their number;
what it is made of are sums of the proportional figures of /proc/PID/smaps_rollup."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import frame
import peers

from tests.lib import runtime, vm  # noqa: E402
from tests.lib.daemon import Daemon  # noqa: E402

MACHINES = int(os.environ.get("MACHINES", "50"))
PEERS = int(os.environ.get("PEER_MACHINES", "10"))
WATCH_S = float(os.environ.get("WATCH_S", "20"))
SETTLE_S = 40  # of the guests' own work after a start; idle ones give back and share memory then
KINDS = {"Pss_Anon": "private memory of the programs", "Pss_File": "programs and kernel files",
         "Pss_Shmem": "the guests' memory and translations"}
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1 reboot=t"
INIT = """/bin/busybox mount -t ext4 -o ro /dev/vda /mnt && echo settled
exec /bin/busybox chroot /mnt /bin/sleep 1000000
"""


def available():
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) * 1024


def processes(ids):
    """Numbers of the processes of these containers: in their cgroups, or called with an id."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (entry / "cgroup").read_text() + (entry / "cmdline").read_text()
            if any(id in text for id in ids):
                found.append(int(entry.name))
    return found


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def parts(pids):
    sums = dict.fromkeys(KINDS, 0)
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0]) * 1024
    return sums


def watch(find, number, before):
    """Memory for each of `number` machines, the kinds it is made of, and the share of a core of all
    processes that the function finds."""
    time.sleep(SETTLE_S)
    pids = find()
    memory = (before - available()) / number
    kinds = {name: total / (number + 1) for name, total in parts(pids).items()}
    start, at = cpu_seconds(pids), time.monotonic()
    time.sleep(WATCH_S)
    return memory, kinds, (cpu_seconds(pids) - start) / (time.monotonic() - at)


def ours(kernel):
    environment = {"ISLE_VM_KERNEL": kernel, "ISLE_VM_CPU": "soft"}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Daemon(home, env=environment) as daemon:
        daemon.load_busybox()
        isle = [frame.built("isle"), "-H", daemon.host]
        start = lambda: frame.run_quietly([*isle, "run", "-d", "--vm", "busybox", "sleep", "1000000"])
        ids = [start().strip()]  # makes the ramdisk and has the kernel's file read
        time.sleep(SETTLE_S)
        before = available()
        ids += [start().strip() for _ in range(MACHINES)]
        try:
            return watch(lambda: processes(ids), MACHINES, before)
        finally:
            frame.run_quietly([*isle, "rm", "-f", *ids])


@contextlib.contextmanager
def qemu(kernel, home):
    """One machine of QEMU's, back when its program sleeps."""
    process = subprocess.Popen(
        peers.qemu_tcg(kernel, f"{home}/initrd.gz", CMDLINE, 1024, *peers.qemu_disk(f"{home}/disk")),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if "settled" in line:
                break
        else:
            sys.exit("bench: the guest did not get as far as it should")
        yield process
    finally:
        peers.stop(process)


def theirs(kernel):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, contextlib.ExitStack() as stack:
        root = runtime.make_rootfs(os.path.join(home, "rootfs"))
        frame.run_quietly(["mke2fs", "-q", "-t", "ext4", "-d", root, f"{home}/disk", "64M"])
        vm.initrd(os.path.join(home, "initrd.gz"), INIT,
                  modules=("virtio_pci", "virtio_blk", "ext4"))
        machines = [stack.enter_context(qemu(kernel, home))]
        before = available()
        machines += [stack.enter_context(qemu(kernel, home)) for _ in range(PEERS)]
        return watch(lambda: [machine.pid for machine in machines], PEERS, before)


def main():
    peers.install_qemu()
    kernel = str(vm.debian_kernel())
    memory, kinds, cpu = ours(kernel)
    their_memory, their_kinds, their_cpu = theirs(kernel)
    describe = lambda kinds: ", ".join(f"{KINDS[name]} {size / (1 << 20):.1f} MiB"
                                       for name, size in kinds.items())
    good = frame.report(
        "vm-density", "memory of each further idle machine of one image (1 GiB, 1 vCPU)",
        {f"isle run --vm, {MACHINES} machines": [memory], f"QEMU TCG q35, {PEERS} machines":
         [their_memory]}, unit="MiB",
        goals=[("each < 40 MiB", lambda m: next(iter(m.values())) < 40 * (1 << 20))],
        notes=[f"ours: {describe(kinds)}", f"QEMU's: {describe(their_kinds)}"])
    scaled = MACHINES / (PEERS + 1)
    return frame.report(
        "vm-density-cpu", f"seconds of one core that {MACHINES} idle machines take each second",
        {"isle run --vm": [cpu], f"QEMU TCG q35, of {PEERS + 1} scaled": [their_cpu * scaled]},
        goals=[("at most 2 % of a core", lambda m: m["isle run --vm"] <= 0.02)]) and good


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
