"""The kernel of `make guest-kernel`, where somebody has built it: nothing is a module."""

import os
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import Daemon, program
from tests.vm.test_disk import image
from tests.vm.test_net import _netns, tap  # noqa: F401 (a fixture)

KERNEL = vm.VMM.with_name("isle-guest-kernel")
pytestmark = pytest.mark.skipif(not KERNEL.exists(),
                                reason="make guest-kernel has not been run: it takes minutes")

SCRIPT = """
/bin/busybox mount -t sysfs sys /sys
/bin/busybox uname -r
/bin/busybox head -c 6 /dev/vda && echo
/bin/busybox ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up
/bin/busybox ping -c 1 -W 5 192.0.2.1
/bin/busybox mount -t virtiofs s /mnt && /bin/busybox cat /mnt/file
/bin/busybox test -c /dev/vsock && echo vsock
/bin/busybox dmesg | /bin/busybox grep -E 'ACPI (BIOS )?(Error|Warning)'
/bin/busybox poweroff -f
"""


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_everything_is_built_in(tmp_path, netns, transport):
    tap(netns)
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "file").write_text("from the host\n", encoding="ascii")
    initrd = vm.initrd(tmp_path / "initrd.gz", SCRIPT)
    done = subprocess.run(
        ["ip", "netns", "exec", netns, vm.VMM, "--kernel", KERNEL, "--initrd", initrd, "--cmdline",
         vm.CMDLINE, "--transport", transport, "--disk", image(tmp_path / "disk", 1, b"a disk"),
         "--net", "tap=tap0", "--fs", f"s={tmp_path}/share", "--vsock", f"path={tmp_path}/vsock"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    out = done.stdout.decode().replace("\r", "")
    assert (done.returncode, done.stderr) == (0, b"")
    for told in ("-isle\n", "a disk\n", "0% packet loss", "from the host\n", "vsock\n"):
        assert told in out, out
    assert "ACPI" not in out


def test_isle_uses_it(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ISLE_VM_KERNEL"}
    with Daemon(tmp_path, env={"ISLE_VM_CPU": "soft"}) as d:
        d.load_busybox()
        done = subprocess.run([program("isle"), "-H", d.host, "run", "--rm", "--vm", "busybox",
                               "uname", "-r"], capture_output=True, text=True, timeout=120,
                              check=False, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().endswith("-isle")
