"""virtio-balloon: memory goes back to the host, by wish and by report."""

import contextlib
import subprocess

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_control import Control

MODULES = ("virtio_pci", "virtio_balloon")


@contextlib.contextmanager
def guest(tmp_path, script):
    initrd = vm.initrd(tmp_path / "initrd.gz", script + "\n/bin/busybox sleep 1000\n", MODULES)
    with subprocess.Popen([vm.VMM, "--api-socket", tmp_path / "api", "--kernel",
                           vm.debian_kernel(), "--initrd", initrd, "--cmdline", vm.CMDLINE,
                           "--memory", "512m"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process, Control(tmp_path / "api")
        finally:
            process.kill()


def shared_kib(process):
    """Memory of the guest that the host holds."""
    with open(f"/proc/{vm.machine_pid(process)}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssShmem:"))


# Fills 256 MiB of memory with files, frees it when told, and then answers lines.
FILL = """
/bin/busybox mount -t tmpfs -o size=400m none /mnt
/bin/busybox head -c 268435456 /dev/urandom > /mnt/file
echo filled
read line
/bin/busybox rm /mnt/file
echo freed
while read line; do
    /bin/busybox grep MemTotal /proc/meminfo
done
"""


def line_with(process, text):
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the guest ended before {text}")


def test_freed_memory_goes_back_by_itself(tmp_path):
    with guest(tmp_path, FILL) as (process, control):
        line_with(process, b"filled")
        full = shared_kib(process)
        assert full > 256 << 10
        process.stdin.write(b"go\n")
        process.stdin.flush()
        line_with(process, b"freed")
        until(lambda: shared_kib(process) < full - (200 << 10), 60, "memory given back")
        assert control.get("/vm/balloon")["reported_bytes"] > 200 << 20
        # It is still the guest's to use.
        process.stdin.write(b"more\n")
        process.stdin.flush()
        line_with(process, b"MemTotal")


def test_balloon_is_filled_and_let_down(tmp_path):
    with guest(tmp_path, "echo up\nwhile read line; do /bin/busybox cat /proc/meminfo; done") as (
            process, control):
        line_with(process, b"up")
        assert control.request("PUT", "/vm/balloon", {"target_mib": 300})[0] == 204
        until(lambda: control.get("/vm/balloon")["actual_bytes"] == 300 << 20, 60)
        process.stdin.write(b"\n")
        process.stdin.flush()
        # MemTotal stays, for a balloon that deflates by itself counts as the guest's.
        assert int(line_with(process, b"MemFree").split()[1]) < 200 << 10
        until(lambda: "guest" in control.get("/vm/balloon"), 60)
        stats = control.get("/vm/balloon")["guest"]
        assert all(0 < stats[name] < 200 << 20 for name in ("free_bytes", "available_bytes"))
        assert control.request("PUT", "/vm/balloon", {"target_mib": 0})[0] == 204
        until(lambda: control.get("/vm/balloon")["actual_bytes"] == 0, 60)
        status, told = control.refused("PUT", "/vm/balloon", {"target_mib": 513})
        assert (status, told) == (400, "a balloon of 513 MiB: the VM has 512")


def test_guest_survives_a_balloon_that_takes_all(tmp_path):
    """It deflates before it runs out: the shell still starts programs."""
    with guest(tmp_path, "echo up\nwhile read line; do /bin/busybox cat /proc/meminfo; done") as (
            process, control):
        line_with(process, b"up")
        assert control.request("PUT", "/vm/balloon", {"target_mib": 512})[0] == 204
        until(lambda: control.get("/vm/balloon")["actual_bytes"] > 350 << 20, 60)
        process.stdin.write(b"\n")
        process.stdin.flush()
        line_with(process, b"MemTotal")
        assert process.poll() is None
