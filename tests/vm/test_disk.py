"""virtio-blk on raw images: a guest's file system, limits, identity, and what is refused."""

import hashlib
import os
import re
import subprocess

import pytest

from tests.lib import vm
from tests.lib.runtime import wait_until

MODULES = ("virtio_pci", "virtio_blk", "ext4")


def guest(tmp_path, script, *args):
    initrd = vm.initrd(tmp_path / "initrd.gz", "/bin/busybox mount -t sysfs sys /sys\n" +
                       script.replace("busybox ", "/bin/busybox ") + "/bin/busybox poweroff -f\n",
                       MODULES)
    status, out, err = vm.run("--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                              vm.CMDLINE, *args)
    assert (status, err) == (0, "")
    return out.replace("\r", "")


def image(path, mib, data=b""):
    with open(path, "wb") as out:
        out.write(data)
        out.truncate(mib << 20)
    return path


@pytest.mark.parametrize("cpus", [1, 2])
def test_file_system_is_used_and_stays_whole(tmp_path, cpus):
    disk = image(tmp_path / "disk.img", 64)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    out = guest(tmp_path, """busybox mount -t ext4 /dev/vda /mnt
busybox mkdir /mnt/many
for i in $(busybox seq 200); do echo $i > /mnt/many/$i; done
busybox head -c 20000000 /dev/urandom > /mnt/big
busybox md5sum /mnt/big
busybox rm /mnt/many/*7
busybox umount /mnt
busybox mount -t ext4 /dev/vda /mnt
busybox md5sum /mnt/big
busybox ls /mnt/many | busybox wc -l
busybox umount /mnt
""", "--disk", disk, "--cpus", cpus)
    sums = re.findall(r"([0-9a-f]{32})  /mnt/big", out)
    assert len(sums) == 2 and sums[0] == sums[1]
    assert "\n180\n" in out
    subprocess.run(["fsck.ext4", "-fn", disk], check=True, capture_output=True)
    big = subprocess.run(["debugfs", "-R", "cat /big", disk], check=True,
                         capture_output=True).stdout
    assert hashlib.md5(big).hexdigest() == sums[0]


def test_read_only_disk_cannot_be_written(tmp_path):
    data = os.urandom(4096)
    disk = image(tmp_path / "disk.img", 1, data)
    disk.chmod(0o444)
    out = guest(tmp_path, "busybox cat /sys/block/vda/ro\n"
                "echo spoilt > /dev/vda || echo refused\n"
                "busybox head -c 4096 /dev/vda | busybox md5sum\n", "--disk", f"{disk},ro")
    assert "1\n" in out and "refused\n" in out
    assert hashlib.md5(data).hexdigest() in out
    assert disk.read_bytes()[:4096] == data


def test_identity_size_and_order(tmp_path):
    first, second = image(tmp_path / "a.img", 3), image(tmp_path / "b.img", 5)
    out = guest(tmp_path, "for d in vda vdb; do echo $d $(busybox cat /sys/block/$d/size) "
                "$(busybox cat /sys/block/$d/serial); done\n",
                "--disk", f"{first},serial=the-first", "--disk",
                f"{second},serial=exactly-20-bytes-yes")
    assert f"vda {3 << 11} the-first\n" in out
    assert f"vdb {5 << 11} exactly-20-bytes-yes\n" in out


def test_discard_frees_and_zeroes(tmp_path):
    disk = image(tmp_path / "disk.img", 8, os.urandom(8 << 20))
    os.sync()
    full = disk.stat().st_blocks
    out = guest(tmp_path, "busybox blkdiscard -o 1048576 -l 4194304 /dev/vda && echo discarded\n",
                "--disk", disk)
    assert "discarded\n" in out
    assert disk.stat().st_blocks <= full - (4 << 11) + 64
    assert disk.read_bytes()[1 << 20:5 << 20] == bytes(4 << 20)
    assert any(disk.read_bytes()[5 << 20:])


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_what_was_synced_is_there_after_kill(tmp_path, kind):
    """The guest says "synced" only after its flush: then the image has the data."""
    disk = tmp_path / "disk.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, disk, "8M"], check=True)
    initrd = vm.initrd(tmp_path / "initrd.gz",
                       "/bin/busybox dd if=/init of=/dev/vda bs=4k conv=fsync 2> /dev/null\n"
                       "echo synced\n/bin/busybox sleep 1000\n", MODULES)
    with subprocess.Popen([vm.VMM, "--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                           vm.CMDLINE, "--disk", disk], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as process:
        assert any(b"synced" in line for line in process.stdout)
        process.kill()
    # The jailed process, which has the lock, dies by its parent's death, a moment later.
    plain = tmp_path / "plain.img"
    wait_until(lambda: subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", disk, plain],
                                      check=False, capture_output=True).returncode == 0,
               what="the lock")
    if kind == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    assert plain.read_bytes().startswith(b"#!/bin/busybox sh\n")


def test_rate_limit_is_kept(tmp_path):
    disk = image(tmp_path / "disk.img", 8)
    out = guest(tmp_path, "start=$(busybox cut -d. -f1 /proc/uptime)\n"
                "busybox dd if=/dev/vda of=/dev/null bs=1M count=4 2> /dev/null\n"
                "echo took $(( $(busybox cut -d. -f1 /proc/uptime) - start ))\n",
                "--disk", f"{disk},bps=1m")
    # One second's worth goes at once.
    assert int(out.split("took ")[1].split()[0]) >= 2


@pytest.mark.parametrize("option, told", [
    ("/nowhere/disk.img", "/nowhere/disk.img"),
    ("DISK,serial=longer-than-twenty-bytes", "is longer than 20 bytes"),
    ("DISK,iops=many", "iops=many: not a number"),
    ("DISK,bps=fast", "bps=fast: a size such as 10m is needed"),
    ("DISK,format=vhd", "format=vhd: there are raw and qcow2"),
    ("DISK,ro=1", "ro takes no value"),
    ("DISK,cache=none", "'cache' is not known; there are ro, format, serial, iops, bps, size, "
     "backing, backing_format"),
    ("NEW,size=1m,ro", "make a qcow2 image, for writing"),
    ("NEW,size=1000", "size 1000 is no multiple of 512"),
    ("NEW,backing=disk.img", "needs 'backing_format', raw or qcow2: it is not guessed"),
    ("NEW,backing=nowhere,backing_format=raw", "nowhere"),
    ("NEW,backing=disk.img,backing_format=vhd", "backing_format=vhd: there are raw and qcow2"),
])
def test_refused_with_the_reason(tmp_path, option, told):
    option = option.replace("DISK", str(image(tmp_path / "disk.img", 1)))
    option = option.replace("NEW", str(tmp_path / "new.qcow2"))
    status, _, err = vm.run("--kernel", vm.debian_kernel(), "--disk", option)
    assert status in (1, 2)
    assert told in err
    assert not (tmp_path / "new.qcow2").exists()
