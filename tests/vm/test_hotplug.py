"""Disks and networks that come to a running Debian kernel and go."""

import array
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import uuid

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_control import KERNEL as TEST_KERNEL
from tests.vm.test_control import Control
from tests.vm.test_disk import image
from tests.vm.test_net import _netns, ip, tap  # noqa: F401 (a fixture)

# Executes what the serial port brings, a line at a time, and says "done" after each.
SHELL = """
/bin/busybox mount -t sysfs sys /sys
/bin/busybox --install -s /bin
export PATH=/bin
stty -echo
echo ready
while read -r line; do eval "$line"; echo; echo done; done
"""
TUNSETIFF, TUNSETVNETHDRSZ = 0x400454ca, 0x400454d8  # linux/if_tun.h
TAP, MULTI_QUEUE = 0x2 | 0x1000 | 0x4000, 0x100  # without packet information, with headers
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
WAIT = "n=0; while {condition} && [ $n -lt 200 ]; do usleep 50000; n=$((n+1)); done; "


class Guest:
    """A machine whose guest does what it is told."""

    def __init__(self, process, control, socket_path):
        self.process, self.control, self.path = process, control, socket_path

    def do(self, script):
        self.process.stdin.write(script.replace("\n", ";").encode() + b"\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline().decode().strip()) != "done":
            assert self.process.poll() is None
            lines.append(line)
        return "\n".join(filter(None, lines))

    def gone(self, path):
        return self.do(WAIT.format(condition=f"[ -e {path} ]") + f"[ -e {path} ] || echo gone")

    def there(self, path):
        return self.do(WAIT.format(condition=f"[ ! -e {path} ]") + f"[ -e {path} ] && echo there")

    def isle_vmm(self, *args):
        done = subprocess.run([vm.VMM, "--api-socket", self.path, *args], capture_output=True,
                              text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    def descriptors(self):
        names = []
        for fd in pathlib.Path(f"/proc/{vm.machine_pid(self.process)}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                names.append(os.readlink(fd))
        return sorted(names)

    def has_descriptors(self, wanted):
        """These and no others, when the clients' connections are closed."""
        until(lambda: self.descriptors() == sorted(wanted), 10, "descriptors")


@contextlib.contextmanager
def debian(tmp_path, *args, namespace=None, places=4):
    initrd = vm.initrd(tmp_path / "initrd.gz", SHELL, MODULES)
    enter = ["ip", "netns", "exec", namespace] if namespace else []
    command = [*enter, vm.VMM, "--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
               vm.CMDLINE, "--api-socket", tmp_path / "api", "--hotplug", str(places), *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            while process.stdout.readline().strip() != b"ready":
                assert process.poll() is None
            yield Guest(process, Control(tmp_path / "api"), tmp_path / "api")
        finally:
            process.kill()


@pytest.mark.parametrize("cpus", [1, 2])
def test_disk_comes_is_used_and_goes(tmp_path, cpus):
    disk = image(tmp_path / "late.img", 16)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    with debian(tmp_path, "--cpus", str(cpus)) as guest:
        before = guest.descriptors()
        for turn in range(3):
            assert guest.isle_vmm("--attach", "late", "--disk", f"{disk},serial=late-one") == (0, "")
            assert guest.control.get("/vm/devices") == [
                {"name": "late", "kind": "disk", "leaving": False}]
            assert guest.there("/dev/vda") == "there"
            assert guest.do("cat /sys/block/vda/serial") == "late-one"
            assert guest.do(f"mount -t ext4 /dev/vda /mnt && echo turn {turn} > /mnt/{turn} "
                            "&& cat /mnt/[0-9]* && umount /mnt").splitlines() == [
                                f"turn {n}" for n in range(turn + 1)]
            assert guest.isle_vmm("--detach", "late") == (0, "")
            assert guest.gone("/sys/block/vda") == "gone"
            assert guest.control.get("/vm/devices") == []
            # Somebody else may have it now.
            assert guest.do("dmesg | grep -E 'ACPI (BIOS )?(Error|Warning)'") == ""
            subprocess.run(["fsck.ext4", "-fn", disk], check=True, capture_output=True)
            guest.has_descriptors(before)


def test_many_at_a_time_and_no_place_left(tmp_path):
    with debian(tmp_path, "--disk", image(tmp_path / "first.img", 1), places=2) as guest:
        for name in ("one", "two"):
            disk = image(tmp_path / name, 2)
            assert guest.isle_vmm("--attach", name, "--disk", f"{disk},serial={name}")[0] == 0
        assert guest.there("/sys/block/vdc") == "there"
        assert {guest.do(f"cat /sys/block/vd{n}/serial") for n in "bc"} == {"one", "two"}
        third = image(tmp_path / "three", 3)
        assert guest.isle_vmm("--attach", "three", "--disk", third)[1] == (
            "isle-vmm: all 2 places for devices are taken; --hotplug N gives a machine up to 8\n")
        assert guest.isle_vmm("--detach", "one") == (0, "")
        status, err = guest.isle_vmm("--attach", "three", "--disk", tmp_path / "first.img")
        assert status == 1 and "in use" in err  # by the first disk
        assert guest.isle_vmm("--attach", "three", "--disk", third) == (0, "")


def test_network_comes_carries_and_goes(tmp_path, netns):
    tap(netns)
    with debian(tmp_path, namespace=netns) as guest:
        before = guest.descriptors()
        for turn in range(2):
            done = subprocess.run(["ip", "netns", "exec", netns, vm.VMM, "--api-socket", guest.path,
                                   "--attach", "net", "--net", f"tap=tap0,mac=02:00:00:00:00:0{turn}"],
                                  capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert guest.there("/sys/class/net/eth0") == "there"
            assert guest.do("cat /sys/class/net/eth0/address") == f"02:00:00:00:00:0{turn}"
            guest.do("ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up")
            assert "0% packet loss" in guest.do("ping -c 2 -W 5 192.0.2.1")
            assert guest.isle_vmm("--detach", "net") == (0, "")
            assert guest.gone("/sys/class/net/eth0") == "gone"
            guest.has_descriptors(before)
            # The tap is free: nobody holds its carrier.
            until(lambda: "NO-CARRIER" in ip(netns, "link", "show", "tap0"), 10)


def chain(tmp_path, length):
    """A qcow2 image over `length` - 2 others over a raw one that is full of "base"; topmost first."""
    files = [image(tmp_path / "0.img", 4, b"base" * (1 << 18))]
    for n in range(1, length):
        files.insert(0, tmp_path / f"{n}.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", files[1], "-F",
                        "raw" if n == 1 else "qcow2", files[0]], check=True)
    return files


def test_disk_comes_with_what_is_beneath(tmp_path):
    files = chain(tmp_path, 4)
    with debian(tmp_path) as guest:
        before = guest.descriptors()
        for turn in range(2):
            assert guest.isle_vmm("--attach", "late", "--disk", files[0]) == (0, "")
            guest.has_descriptors(before + [str(f) for f in files])
            assert guest.there("/dev/vda") == "there"
            assert guest.do("dd if=/dev/vda bs=4k skip=64 count=1 2>&- | head -c 8") == "basebase"
            assert guest.do("dd if=/dev/vda bs=4k count=1 2>&- | head -c 4") == ("base", "turn")[turn]
            guest.do("printf turn | dd of=/dev/vda conv=fsync bs=4k 2>&-")
            assert guest.isle_vmm("--detach", "late") == (0, "")
            assert guest.gone("/sys/block/vda") == "gone"
            guest.has_descriptors(before)
    with open(files[-1], "rb") as base:
        assert base.read(8) == b"basebase"
    subprocess.run(["qemu-img", "check", "-q", files[0]], check=True)


def queues_that_work(guest):
    return guest.do("cat /proc/interrupts | grep -E 'virtio[0-9]+-(in|out)put' | wc -l")


def test_network_comes_with_several_queues(tmp_path, netns):
    tap(netns, "multi_queue")
    with debian(tmp_path, "--hotplug-queues", "2", "--cpus", "2", namespace=netns) as guest:
        before = guest.descriptors()
        for queues in (2, 1, 2):
            done = subprocess.run(["ip", "netns", "exec", netns, vm.VMM, "--api-socket", guest.path,
                                   "--attach", "net", "--net", f"tap=tap0,queues={queues}"],
                                  capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert guest.there("/sys/class/net/eth0") == "there"
            guest.has_descriptors(before + ["/net/tun"] * queues)
            assert guest.do("ls /sys/class/net/eth0/queues | wc -l") == str(2 * queues)
            assert queues_that_work(guest) == str(2 * queues)
            guest.do("ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up")
            assert "0% packet loss" in guest.do("ping -c 2 -W 5 192.0.2.1")
            assert guest.isle_vmm("--detach", "net") == (0, "")
            assert guest.gone("/sys/class/net/eth0") == "gone"
            guest.has_descriptors(before)


def attach_by_hand(path, name, body, *fds):
    """(status, message) of an attachment with these descriptors."""
    data = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        client.sendmsg([b"PUT /vm/devices/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                        b"Content-Length: %d\r\n\r\n" % (name.encode(), len(data)) + data], rights)
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    head, text = answer.split("\r\n\r\n", 1)
    return int(head.split()[1]), json.loads(text)["message"] if text else ""


@pytest.fixture(scope="session", name="kernel")
def _kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("hotplug") / "kernel", TEST_KERNEL)


@contextlib.contextmanager
def deaf(tmp_path, kernel, *args):
    """A machine whose guest knows nothing of devices."""
    with subprocess.Popen([vm.VMM, "--kernel", kernel, "--api-socket", tmp_path / "api", *args],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"u\n"
            yield Guest(process, Control(tmp_path / "api"), tmp_path / "api")
        finally:
            process.kill()


def test_what_is_refused_leaves_nothing(tmp_path, kernel):
    disk, old = image(tmp_path / "disk", 1), tmp_path / "old.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", old],
                   check=True)
    with deaf(tmp_path, kernel, "--hotplug", "2", "--hotplug-queues", "2") as guest:
        before = guest.descriptors()
        attach = lambda *args: attach_by_hand(guest.path, *args)  # pylint: disable=C3001
        with (open(disk, "rb") as reading, open(disk, "rb+") as writing, open(old, "rb+") as above,
              open(image(tmp_path / "base", 1), "rb") as beneath):
            body = {"disk": {"path": "d"}}
            reader, writer, lower = (f.fileno() for f in (reading, writing, beneath))
            pipes = os.pipe()
            net = {"network": {"tap": "t", "mac": "02:00:00:00:00:01"}}
            two, three = ({"network": net["network"] | {"queues": n}} for n in (2, 3))
            for arguments, told in (
                    (("d", body), "comes as a descriptor with the request"),
                    (("d.", body, writer), "'d.' is no name"),
                    (("d", {}, writer), "a device is one of 'disk' and 'network'"),
                    (("d", body | net, writer), "a device is one of 'disk' and 'network'"),
                    (("d", {"disk": {}}, writer), "path"),
                    (("d", {"disk": {"path": "d", "size": 512}}, writer), "is there already"),
                    (("d", body, reader), "not open for reading and writing"),
                    (("d", {"disk": {"path": "d", "read_only": True}}, pipes[0]),
                     "neither a file nor a block device"),
                    (("d", body, above.fileno()), "has a backing file, '"),
                    (("d", body, above.fileno(), pipes[1]), "is not open for reading"),
                    (("d", body, above.fileno(), lower, lower),
                     "3 descriptors came, and its chain of backing files has 2"),
                    (("d", body, writer, *[reader] * 31), "32 descriptors came"),
                    (("d", body, writer, *[reader] * 32), "more than 32 descriptors came"),
                    (("d", body, writer, *[reader] * 200), "more than 32 descriptors came"),
                    (("d", {"network": {"tap": "t"}}, writer), "'mac' is missing"),
                    (("d", {"network": {"mac": "02:00:00:00:00:01"}}, writer), "is named by 'tap'"),
                    (("d", net, writer), "not of a tap"),
                    (("d", net, writer, reader), "1 queues, and 2 descriptors came"),
                    (("d", two, writer), "2 queues, and 1 descriptors came"),
                    (("d", two, writer, reader), "not of a tap"),
                    (("d", three, writer, reader, reader), "are for 2; --hotplug-queues N makes them"),
            ):
                status, message = attach(*arguments)
                assert status == 400 and told in message, (arguments, message)
                guest.has_descriptors(before)
            for end in pipes:
                os.close(end)
            assert attach("d", body, writer) == (204, "")
            guest.has_descriptors([*before, str(disk)])
            assert attach("d", body, writer)[0] == 409
            assert "there is a device 'd' already" in attach("d", body, writer)[1]
        assert guest.control.refused("DELETE", "/vm/devices/e") == (
            404, "no device 'e' was attached")
        guest.has_descriptors([*before, str(disk)])


def tap_fd(name, flags):
    """A queue of a new or known tap, as isle-vmm wants it."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 12))
    return fd


def test_queues_are_of_one_tap(tmp_path, kernel):
    names = ["isle-" + uuid.uuid4().hex[:8] for _ in range(3)]
    net = {"network": {"tap": "t", "mac": "02:00:00:00:00:01", "queues": 2}}
    fds = [tap_fd(names[0], TAP | MULTI_QUEUE), tap_fd(names[1], TAP | MULTI_QUEUE),
           tap_fd(names[2], TAP)]
    try:
        with deaf(tmp_path, kernel, "--hotplug", "1", "--hotplug-queues", "2") as guest:
            before = guest.descriptors()
            status, message = attach_by_hand(guest.path, "n", net, *fds[:2])
            assert status == 400 and f"of two taps, '{names[0]}' and '{names[1]}'" in message
            status, message = attach_by_hand(guest.path, "n", net, fds[2], fds[2])
            assert status == 400 and "its tap has one queue, not 2" in message
            guest.has_descriptors(before)
    finally:
        for fd in fds:
            os.close(fd)


def test_chain_that_is_too_long_or_not_whole(tmp_path, kernel):
    files = chain(tmp_path, 33)
    with deaf(tmp_path, kernel, "--hotplug", "1") as guest:
        before = guest.descriptors()
        status, err = guest.isle_vmm("--attach", "d", "--disk", files[0])
        assert status == 1 and "33. of a chain of backing files; 32 are allowed" in err
        files[20].rename(tmp_path / "away")
        status, err = guest.isle_vmm("--attach", "d", "--disk", files[1])
        assert status == 1 and err.count("\n") == 1 and f"disk '{files[20]}': No such file" in err
        guest.has_descriptors(before)
        (tmp_path / "away").rename(files[20])
        assert guest.isle_vmm("--attach", "d", "--disk", files[1]) == (0, "")
        guest.has_descriptors(before + [str(f) for f in files[1:]])


def test_guest_that_keeps_a_device(tmp_path, kernel):
    with deaf(tmp_path, kernel, "--hotplug", "1") as guest:
        assert guest.isle_vmm("--attach", "d", "--disk", image(tmp_path / "disk", 1)) == (0, "")
        with subprocess.Popen([vm.VMM, "--api-socket", guest.path, "--detach", "d"],
                              stderr=subprocess.PIPE) as waiting:
            until(lambda: guest.control.get("/vm/devices")[0]["leaving"], 10)
            assert guest.control.refused("DELETE", "/vm/devices/d") == (
                409, "device 'd' is being detached already")
            assert waiting.wait(30) == 1
            assert b"has not let go of 'd' within 10 s; it may do so later" in waiting.stderr.read()
        assert not guest.control.get("/vm/devices")[0]["leaving"]


@pytest.mark.parametrize("args, story", [
    (("--hotplug", "9"), "9 places for devices: 0 to 8 are possible"),
    (("--hotplug", "many"), "--hotplug 'many': not a number"),
    (("--hotplug-queues", "9"), "9 queues for networks that are attached: 1 to 8 are possible"),
    (("--hotplug-queues", "many"), "--hotplug-queues 'many': not a number"),
    (("--attach", "x", "--api-socket", "/nowhere", "--net", "fd=3,mac=02:00:00:00:00:01"),
     "is named by 'tap'"),
    (("--attach", "x"), "--api-socket PATH names the machine"),
    (("--attach", "x", "--api-socket", "/nowhere"), "--attach: one --disk or --net says what"),
    (("--attach", "x", "--api-socket", "/nowhere", "--disk", "/nowhere"), "disk '/nowhere'"),
    (("--detach", "x", "--api-socket", "/nowhere"), "/nowhere"),
])
def test_bad_input_is_one_clear_error(kernel, args, story):
    status, out, err = vm.run("--kernel", kernel, *args)
    assert status in (1, 2) and out == ""
    assert err.count("\n") == 1 and story in err
