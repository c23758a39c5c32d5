"""virtio devices on MMIO instead of PCI, in Debian's kernel and beneath it."""

import hashlib
import os
import subprocess

import pytest

from tests.lib import vm
from tests.vm.test_disk import image
from tests.vm.test_net import _netns, ip, tap  # noqa: F401 (a fixture)

MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtiofs", "virtio_console", "ext4")


def guest(tmp_path, script, *args, enter=()):
    initrd = vm.initrd(tmp_path / "initrd.gz", "/bin/busybox mount -t sysfs sys /sys\n" +
                       script.replace("busybox ", "/bin/busybox ") + "/bin/busybox poweroff -f\n",
                       MODULES)
    done = subprocess.run([*enter, vm.VMM, "--kernel", vm.debian_kernel(), "--initrd", initrd,
                           "--cmdline", vm.CMDLINE, "--transport", "mmio", *args],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().replace("\r", "")


@pytest.mark.parametrize("cpus", ["1", "2"])
def test_disks_and_a_share(tmp_path, cpus):
    """Nine devices on four lines; each has its own interrupts told."""
    disks = [image(tmp_path / f"{n}.img", 4, os.urandom(4 << 20)) for n in range(5)]
    subprocess.run(["mkfs.ext4", "-q", "-F", disks[4]], check=True)
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "file").write_text("from the host\n", encoding="ascii")
    arguments = [part for disk in disks for part in ("--disk", disk)]
    out = guest(tmp_path, """busybox ls /sys/bus/pci/devices
for d in a b c d; do busybox cat /dev/vd$d > /$d & done
wait
busybox md5sum /a /b /c /d
busybox mount -t ext4 /dev/vde /mnt && echo written > /mnt/file && busybox umount /mnt
busybox mount -t virtiofs s /mnt && busybox cat /mnt/file
busybox dmesg | busybox grep -E 'ACPI (BIOS )?(Error|Warning)|irq .*nobody cared'
""", *arguments, "--fs", f"s={tmp_path}/share", "--cpus", cpus)
    assert [line for line in out.splitlines() if line.startswith("0000:")] == ["0000:00:00.0"]
    for disk in disks[:4]:
        assert hashlib.md5(disk.read_bytes()).hexdigest() in out
    assert "from the host" in out and "nobody cared" not in out and "ACPI" not in out
    assert subprocess.run(["debugfs", "-R", "cat /file", disks[4]], check=True,
                          capture_output=True).stdout == b"written\n"


def test_network(tmp_path, netns):
    tap(netns)
    out = guest(tmp_path, "busybox ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up\n"
                "busybox ping -c 2 -W 5 192.0.2.1\n", "--net", "tap=tap0",
                enter=("ip", "netns", "exec", netns))
    assert "0% packet loss" in out
    assert "tap0" in ip(netns, "link")


# The registers, by a program without a driver: exits by 9 where one is not as it should be.
REGISTERS = """
        mov $0xd0000000, %ebx
        cmpl $0x74726976, (%ebx)
        jne 9f
        cmpl $2, 4(%ebx)
        jne 9f
        cmpl $4, 8(%ebx)            # the random numbers come first
        jne 9f
        cmpl $5, 0x1008(%ebx)       # then the balloon
        jne 9f
        cmpb $0, (%ebx)             # registers are words
        jne 9f
        cmpl $-1, 0xb0(%ebx)        # no shared memory
        jne 9f
        movl $4, 0x70(%ebx)         # a driver that agreed on nothing does not go
        cmpl $0, 0x70(%ebx)
        jne 9f
        movl $3, 0x70(%ebx)
        movl $1, 0x24(%ebx)
        movl $1, 0x20(%ebx)         # version 1
        movl $11, 0x70(%ebx)
        cmpl $11, 0x70(%ebx)
        jne 9f
        movl $0x1000, 0x38(%ebx)    # a queue of 4,096 is too long: it needs a reset then
        movl $1, 0x44(%ebx)
        cmpl $75, 0x70(%ebx)
        jne 9f
        mov $21, %eax
        jmp 8f
9:      mov $9, %eax
8:      mov $0xf4, %edx
        outb %al, %dx
        hlt
"""


def test_registers(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", REGISTERS)
    status, _, err = vm.run("--kernel", kernel, "--transport", "mmio", "--test-devices")
    assert (status, err) == (21 << 1 | 1, "")


def test_unknown_transport_is_told(tmp_path):
    status, _, err = vm.run("--kernel", tmp_path, "--transport", "isa")
    assert status == 2 and "--transport 'isa': there are pci, mmio" in err
