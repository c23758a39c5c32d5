"""An IOMMU: Debian's kernel translates its disk's and its other devices' addresses, and a device
that was given nothing reaches nothing."""

import hashlib
import os
import subprocess

import pytest

from tests.lib import vm
from tests.vm.test_disk import image
from tests.vm.test_hotplug import debian

MODULES = ("virtio_pci", "virtio_blk", "ext4", "virtiofs", "virtio_rng")
SCRIPT = """busybox mount -t sysfs sys /sys
busybox ls /sys/class/iommu /sys/kernel/iommu_groups
busybox dmesg | busybox grep DMAR
busybox mount -t ext4 /dev/vda /mnt
busybox dd if=/dev/urandom of=/mnt/a bs=64k count=100
busybox md5sum /mnt/a
busybox sync
echo 3 > /proc/sys/vm/drop_caches
busybox md5sum /mnt/a
busybox umount /mnt
busybox mount -t virtiofs share /mnt
busybox md5sum /mnt/file
busybox cat /proc/interrupts
busybox dmesg | busybox grep -e 'fault addr' -e 'fault index' || echo no faults
busybox poweroff -f
"""


def guest(tmp_path, script, parameters, *args, programs=()):
    initrd = vm.initrd(tmp_path / "initrd.gz", script.replace("busybox ", "/bin/busybox "), MODULES,
                       programs)
    status, out, err = vm.run("--cpu", "soft", "--iommu", "--kernel", vm.debian_kernel(),
                              "--initrd", initrd, "--cmdline", f"{vm.CMDLINE} {parameters}", *args)
    assert (status, err) == (0, ""), out
    return out.replace("\r", "")


@pytest.mark.parametrize("parameters", ["intel_iommu=on", "intel_iommu=on iommu.strict=1",
                                        "intel_iommu=on iommu=pt", "intel_iommu=off"])
def test_devices_work_translated(tmp_path, parameters):
    disk, share, data = tmp_path / "disk.img", tmp_path / "share", os.urandom(2_000_000)
    share.mkdir()
    (share / "file").write_bytes(data)
    subprocess.run(["truncate", "-s", "32M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-qF", disk], check=True)
    out = guest(tmp_path, SCRIPT, parameters, "--cpus", 2, "--disk", disk, "--fs", f"share={share}")
    sums = [line.split()[0] for line in out.splitlines() if line.endswith("/mnt/a")]
    assert len(sums) == 2 and sums[0] == sums[1], out
    assert f"{hashlib.md5(data).hexdigest()}  /mnt/file" in out, out
    assert "no faults" in out, out
    assert "IR-PCI-MSI" in out and "IR-IO-APIC" in out, out  # remapped without DMA's, too
    assert ("/sys/class/iommu:\ndmar0" in out) == ("intel_iommu=on" in parameters), out


@pytest.mark.parametrize("parameters, reached", [("intel_iommu=on", False),
                                                 ("intel_iommu=off", True)])
def test_a_device_reaches_what_it_was_given(tmp_path, parameters, reached):
    program = vm.guest_program(tmp_path / "edu", "edu")
    out = guest(tmp_path, "busybox mount -t sysfs sys /sys\n/bin/edu\nbusybox dmesg | "
                "busybox grep 'DMAR: .*fault addr' || echo no faults\nbusybox poweroff -f\n",
                parameters, "--test-devices", programs=[program])
    if reached:
        assert "memory was read and written" in out and "no faults" in out, out
    else:
        assert "memory was not reached" in out, out
        assert "[DMA Read" in out and "[fault reason 0x06]" in out, out


def test_a_disk_that_comes_later_is_translated_too(tmp_path):
    disk = image(tmp_path / "late.img", 16)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    with debian(tmp_path, "--cpu", "soft", "--iommu", "--cmdline",
                f"{vm.CMDLINE} intel_iommu=on") as guest:
        for turn in range(2):
            assert guest.isle_vmm("--attach", "late", "--disk", str(disk)) == (0, "")
            assert guest.there("/dev/vda") == "there"
            assert guest.do("ls -d /sys/block/vda/device/../iommu_group && echo translated"
                            ).endswith("translated")
            assert guest.do(f"mount -t ext4 /dev/vda /mnt && echo {turn} >> /mnt/file && "
                            "cat /mnt/file && umount /mnt").splitlines() == [
                                str(n) for n in range(turn + 1)]
            assert guest.isle_vmm("--detach", "late") == (0, "")
            assert guest.gone("/sys/block/vda") == "gone"
        assert guest.do("dmesg | grep 'fault addr'") == ""
        assert guest.control.refused("GET", "/vm/balloon") == (
            409, "the VM has no balloon, as it has an IOMMU")


@pytest.mark.parametrize("args, words", [
    (("--cpu", "kvm"), "an IOMMU with cpu 'kvm'"),
    ((), "an IOMMU with cpu 'auto'"),
    (("--cpu", "soft", "--transport", "mmio"), "an IOMMU with transport 'mmio'"),
])
def test_what_it_does_not_go_with(args, words):
    status, _, err = vm.run("--iommu", "--kernel", vm.debian_kernel(), *args)
    assert status == 1 and words in err and "choose" in err, err
