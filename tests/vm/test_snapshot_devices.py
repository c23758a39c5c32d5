"""A Linux guest whose virtio devices are in use is saved and goes on: disk, shared directory,
sockets, balloon and entropy, on both transports."""

import os
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_control import Control
from tests.vm.test_disk import image
from tests.vm.test_vsock import line_of, listener, read_all

MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtiofs", "virtio_balloon", "virtio_rng",
           "vmw_vsock_virtio_transport")

# Everything is open when the machine is saved; `go` lets it go on.
SCRIPT = """busybox mount -t virtiofs share /mnt
exec 3>> /mnt/log 4< /mnt/text
echo before >&3
read first <&4
busybox mkdir /mnt/dir
cd /mnt/dir
echo old > relative
echo AAAA | busybox dd of=/dev/vda bs=512 seek=1 conv=sync oflag=direct 2> /dev/null
busybox mkfifo /fifo
(/bin/vsock connect 7000 < /fifo; echo connection ended) &
exec 5> /fifo
echo to the host >&5
echo ready
until [ -e /mnt/go ]; do busybox usleep 100000; done
echo after >&3
read second <&4
echo text: $first, $second
echo new >> relative
busybox dd if=/dev/vda bs=512 skip=1 count=1 iflag=direct 2> /dev/null | busybox head -c 5
echo BBBB | busybox dd of=/dev/vda bs=512 seek=2 conv=sync oflag=direct 2> /dev/null
wait
echo again | /bin/vsock connect 7001
busybox dd if=/dev/hwrng bs=16 count=1 2> /dev/null | busybox wc -c
cd /
exec 3>&- 4<&-
busybox umount /mnt || echo still used
echo done
"""


@pytest.fixture(scope="session", name="program")
def _program(tmp_path_factory):
    return vm.guest_program(tmp_path_factory.mktemp("guest") / "vsock", "vsock")


def start(tmp_path, transport, *args):
    return subprocess.Popen(
        [vm.VMM, "--cpu", "soft", "--kernel", vm.debian_kernel(), "--initrd", tmp_path / "initrd",
         "--cmdline", vm.CMDLINE, "--vsock", f"path={tmp_path}/vsock", "--transport", transport,
         "--disk", tmp_path / "disk", "--fs", f"share={tmp_path}/share", "--api-socket",
         tmp_path / "api", *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def save(tmp_path, control):
    control.post("/vm/pause")
    subprocess.run([vm.VMM, "--api-socket", tmp_path / "api", "--snapshot", tmp_path / "saved"],
                   check=True, timeout=120)


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_devices_in_use_go_on(tmp_path, program, transport):
    share = tmp_path / "share"
    share.mkdir()
    (share / "text").write_text("one\ntwo\n")
    image(tmp_path / "disk", 1)
    vm.initrd(tmp_path / "initrd", SCRIPT.replace("busybox ", "/bin/busybox ") +
              "/bin/busybox poweroff -f\n", MODULES, [program])
    with listener(f"{tmp_path}/vsock_7000") as server, listener(f"{tmp_path}/vsock_7001") as other:
        with start(tmp_path, transport) as process:
            try:
                peer, _ = server.accept()
                assert peer.recv(100) == b"to the host\n"
                line_of(process, "ready")
                control = Control(tmp_path / "api")
                assert control.request("PUT", "/vm/balloon", {"target_mib": 16})[0] == 204
                until(lambda: control.get("/vm/balloon")["actual_bytes"] == 16 << 20)
                save(tmp_path, control)
                machine = f"/proc/{vm.machine_pid(process)}"
            finally:
                process.kill()
        until(lambda: not os.path.exists(machine))  # and so has let go of its disk
        peer.close()
        for name in ("vsock", "api"):
            (tmp_path / name).unlink(missing_ok=True)
        with start(tmp_path, transport, "--restore", tmp_path / "saved") as process:
            try:
                until(Control(tmp_path / "api").is_there)
                balloon = Control(tmp_path / "api").get("/vm/balloon")
                assert (balloon["target_bytes"], balloon["actual_bytes"]) == (16 << 20, 16 << 20)
                (share / "go").touch()
                peer, _ = other.accept()
                assert read_all(peer) == b"again\n"
                peer.close()
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
    out = out.decode().replace("\r", "")
    assert (process.returncode, err) == (0, b"")
    assert "text: one, two\n" in out and "connection ended\n" in out
    assert "\nAAAA\n16\ndone\n" in out and "still used" not in out and "ready" not in out
    assert (share / "log").read_text() == "before\nafter\n"
    assert (share / "dir" / "relative").read_text() == "old\nnew\n"
    with open(tmp_path / "disk", "rb") as disk:
        disk.seek(2 * 512)
        assert disk.read(4) == b"BBBB"


def test_open_file_without_a_name_is_not_saved(tmp_path, program):
    share = tmp_path / "share"
    share.mkdir()
    image(tmp_path / "disk", 1)
    vm.initrd(tmp_path / "initrd", """/bin/busybox mount -t virtiofs share /mnt
exec 3> /mnt/temporary
/bin/busybox rm /mnt/temporary
echo ready
until [ -e /mnt/go ]; do /bin/busybox usleep 100000; done
exec 3>&-
echo closed
until [ -e /mnt/again ]; do /bin/busybox usleep 100000; done
/bin/busybox poweroff -f
""", MODULES, [program])
    with start(tmp_path, "pci") as process:
        try:
            line_of(process, "ready")
            control = Control(tmp_path / "api")
            control.post("/vm/pause")
            command = [vm.VMM, "--api-socket", tmp_path / "api", "--snapshot", tmp_path / "saved"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 1 and not os.path.exists(tmp_path / "saved")
            assert "shared directory 'share'" in done.stderr and "temporary" in done.stderr
            assert "is open in the guest and has no name" in done.stderr
            control.post("/vm/resume")
            (share / "go").touch()
            line_of(process, "closed")
            save(tmp_path, control)
            control.post("/vm/resume")
            (share / "again").touch()
            assert process.wait(60) == 0
        finally:
            process.kill()
