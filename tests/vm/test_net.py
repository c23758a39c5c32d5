"""virtio-net at a tap, in a network namespace of the test's own."""

import contextlib
import subprocess
import sys
import uuid

import pytest

from tests.lib import vm

MODULES = ("virtio_pci", "virtio_net")
SIZE = 24 << 20

# Takes one connection, all of it, and gives it back.
ECHO = """
import socket
server = socket.create_server(("192.0.2.1", 7000))
print("listening", flush=True)
peer, _ = server.accept()
data = b"".join(iter(lambda: peer.recv(1 << 20), b""))
peer.sendall(data)
peer.close()
"""


@pytest.fixture(name="netns")
def _netns():
    name = "isle-test-" + uuid.uuid4().hex[:8]
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def ip(netns, *args):
    return subprocess.run(["ip", "-n", netns, *args], check=True, capture_output=True,
                          text=True).stdout


@contextlib.contextmanager
def echo_server(netns):
    with subprocess.Popen(["ip", "netns", "exec", netns, sys.executable, "-c", ECHO],
                          stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() == b"listening\n"
            yield
        finally:
            server.kill()


def tap(netns, *kinds, mtu=1500):
    ip(netns, "tuntap", "add", "tap0", "mode", "tap", *kinds)
    ip(netns, "address", "add", "192.0.2.1/24", "dev", "tap0")
    ip(netns, "link", "set", "tap0", "up", "mtu", str(mtu))


def guest(netns, tmp_path, script, *args, cpus=1):
    initrd = vm.initrd(tmp_path / "initrd.gz", script.replace("busybox ", "/bin/busybox ") +
                       "/bin/busybox poweroff -f\n", MODULES)
    done = subprocess.run(
        ["ip", "netns", "exec", netns, vm.VMM, "--kernel", vm.debian_kernel(), "--initrd", initrd,
         "--cmdline", vm.CMDLINE, "--cpus", str(cpus), *args],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=180, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().replace("\r", "")


UP = """busybox mount -t sysfs sys /sys
busybox ifconfig lo up
busybox ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up
"""
ECHO_CHECK = f"""busybox head -c {SIZE} /dev/urandom > /data
busybox nc 192.0.2.1 7000 < /data > /back
busybox cmp /data /back && echo the same: $(busybox stat -c %s /back)
"""


@pytest.mark.parametrize("cpus, option, kinds, mtu", [
    (1, "tap=tap0", (), 1500),
    (1, "tap=tap0,mtu=9000", (), 9000),
    (2, "tap=tap0,queues=2", ("multi_queue",), 1500),
    (1, "tap=tap0", ("multi_queue",), 1500),
])
def test_data_goes_both_ways_unharmed(netns, tmp_path, cpus, option, kinds, mtu):
    tap(netns, *kinds, mtu=mtu)
    with echo_server(netns):
        out = guest(netns, tmp_path, UP + "busybox ping -c 2 -W 10 192.0.2.1\n" + ECHO_CHECK +
                    "echo mtu $(busybox cat /sys/class/net/eth0/mtu)\n", "--net", option, cpus=cpus)
    assert " 0% packet loss" in out
    assert f"the same: {SIZE}" in out
    assert f"mtu {mtu}\n" in out


def test_guest_gets_segments_and_its_address(netns, tmp_path):
    """Segmentation is negotiated both ways, and the address is the one that was given."""
    tap(netns)
    out = guest(netns, tmp_path, UP + "busybox cat /sys/class/net/eth0/address\n"
                "echo features $(busybox cat /sys/bus/virtio/drivers/virtio_net/virtio*/features)\n",
                "--net", "tap=tap0,mac=02:00:5e:10:00:01")
    assert "02:00:5e:10:00:01\n" in out
    features = out.split("features ")[1].split()[0]
    for bit in (0, 1, 5, 7, 8, 11, 12, 15, 16, 17, 29, 32):
        assert features[bit] == "1", f"feature {bit} of {features}"


def test_tap_is_made_and_goes_with_the_machine(netns, tmp_path):
    before = ip(netns, "-o", "link")
    out = guest(netns, tmp_path, UP + "busybox ifconfig eth0\n", "--net", "tap=isle7")
    assert "inet addr:192.0.2.2" in out
    assert ip(netns, "-o", "link") == before
    # The address of a name is the same each time, and local.
    again = guest(netns, tmp_path, UP + "busybox ifconfig eth0\n", "--net", "tap=isle7")
    address = out.split("HWaddr ")[1].split()[0]
    assert address == again.split("HWaddr ")[1].split()[0]
    assert int(address.split(":")[0], 16) & 3 == 2


def test_driver_may_leave_and_come_back(netns, tmp_path):
    """A reset of the device in the midst of traffic."""
    tap(netns)
    out = guest(netns, tmp_path, UP + """busybox ping -i 0 -q 192.0.2.1 > /dev/null &
cd /sys/bus/virtio/drivers/virtio_net
for round in 1 2 3 4 5; do
    device=$(busybox basename /sys/bus/virtio/drivers/virtio_net/virtio*)
    echo $device > unbind
    echo $device > bind
    busybox ifconfig eth0 192.0.2.2 netmask 255.255.255.0 up
    busybox ping -c 1 -W 10 192.0.2.1 | busybox grep -c "1 packets received"
done
""", "--net", "tap=tap0")
    assert out.count("1\n") >= 5


def test_rate_limit_is_kept(netns, tmp_path):
    """The time it takes is the least that the limit allows, whatever the machine does."""
    tap(netns)
    with echo_server(netns):
        out = guest(netns, tmp_path, UP + "busybox head -c 4194304 /dev/zero > /data\n"
                    "start=$(busybox cut -d. -f1 /proc/uptime)\n"
                    "busybox nc 192.0.2.1 7000 < /data | busybox wc -c\n"
                    "echo took $(( $(busybox cut -d. -f1 /proc/uptime) - start ))\n",
                    "--net", "tap=tap0,bps=1m")
    assert "4194304\n" in out
    # One second's worth goes at once; the rest, each way, at the limit.
    assert int(out.split("took ")[1].split()[0]) >= 2


@pytest.mark.parametrize("option, told", [
    ("mac=02:00:00:00:00:01", "tap=NAME is missing"),
    ("tap=lo", "is no tap"),
    ("tap=tap0,mac=ff:00:00:00:00:01", "is no unicast address"),
    ("tap=tap0,queues=99", "99 queues: 1 to 8 are possible"),
    ("tap=tap0,mtu=10", "mtu 10: 68 to 65521 are possible"),
    ("tap=sixteen-bytes-is", "a name of 1 to 15 bytes"),
    ("tap=tap0,colour=red", "'colour' is not known; there are tap, fd, mac, queues, mtu, bps"),
])
def test_refused_with_the_reason(netns, tmp_path, option, told):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"")
    done = subprocess.run(["ip", "netns", "exec", netns, vm.VMM, "--kernel", kernel, "--net",
                           option], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 2)
    assert told in done.stderr


@pytest.mark.parametrize("option, words", [
    ("fd=5,mac=02:00:00:00:00:01", "descriptor 5 is no tap"),
    ("fd=5", "network with fd 5: it needs a mac"),
    ("fd=5,tap=tap0,mac=02:00:00:00:00:01", "no tap is named"),
])
def test_descriptor_that_is_none(option, words):
    done = subprocess.run([vm.VMM, "--kernel", vm.debian_kernel(), "--net", option],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 1 and words in done.stderr
