"""What is in the network namespace of a container is its network, also in a virtual machine."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid

import pytest

from tests.lib.runtime import is_alive, wait_until

MAC = "02:15:1e:00:00:02"
SIZE = 8 << 20

# Answers one connection with SIZE bytes and what it has received.
SERVER = f"""
import socket
server = socket.create_server(("10.77.0.1", 7000))
print("listening", flush=True)
peer, _ = server.accept()
peer.sendall(bytes(range(256)) * ({SIZE} // 256))
peer.close()
"""


def run(*words, **how):
    return subprocess.run(words, check=True, capture_output=True, text=True, **how).stdout


class Wire:
    """Two namespaces: the `outside`, and the `inside` that the container gets."""

    def __init__(self):
        self.tag = uuid.uuid4().hex[:8]
        self.outside, self.inside = f"isle-o-{self.tag}", f"isle-i-{self.tag}"
        self.path = f"/run/netns/{self.inside}"
        run("ip", "netns", "add", self.outside)

    def out(self, *words):
        return run("ip", "-n", self.outside, *words)

    def into(self, *words):
        return run("ip", "-n", self.inside, *words)

    def add_inside(self):
        run("ip", "netns", "add", self.inside)
        self.into("link", "set", "lo", "up")

    def cable(self, name="eth0", number=0):
        """A link between the two, of which the inside is not set up."""
        self.out("link", "add", f"out{number}", "mtu", "1420", "type", "veth", "peer", "name", name,
                 "address", f"{MAC[:-2]}{number + 2:02x}", "mtu", "1420")
        self.out("address", "add", f"10.77.{number}.1/24", "dev", f"out{number}")
        self.out("address", "add", f"fd77:{number}::1/64", "dev", f"out{number}", "nodad")
        self.out("link", "set", f"out{number}", "up")

    def close(self):
        for name in (self.outside, self.inside):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def settings(name="eth0", number=0):
    """What an engine does with its end of the cable, as lines for `ip -batch`."""
    return (f"address add 10.77.{number}.2/24 broadcast 10.77.{number}.255 dev {name}\n"
            f"address add fd77:{number}::2/64 dev {name} nodad\n"
            f"link set {name} up\n"
            + (f"route add default via 10.77.0.1 dev {name}\n"
               f"route add 192.0.2.0/24 dev {name} scope link src 10.77.0.2 metric 7\n"
               f"route add 198.51.100.0/24 via 192.0.2.1 dev {name} mtu 1300\n"
               f"route add default via fd77:0::1 dev {name}\n"
               f"neighbour add 10.77.0.9 lladdr 02:00:00:00:00:99 dev {name} nud permanent\n"
               if number == 0 else ""))


def configure(where, text):
    run("ip", *where, "-batch", "-", input=text)


@pytest.fixture
def bundle(bundle):
    for capabilities in bundle.config["process"]["capabilities"].values():
        if "CAP_NET_RAW" not in capabilities:
            capabilities.append("CAP_NET_RAW")  # for ping
    return bundle


@pytest.fixture
def told(bundle, tmp_path):
    """A directory that the container can write its findings to, as /told."""
    directory = tmp_path / "told"
    directory.mkdir()
    bundle.mount("/told", directory, "bind", ["bind"])
    bundle.config["root"]["readonly"] = False
    return directory


def run_to_end(runtime, id):
    pid = runtime.pid(id)
    runtime.call("start", id)
    wait_until(lambda: not is_alive(pid), 20, "the end")


@pytest.fixture
def wire():
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def plugged(wire, bundle):
    """A bundle whose container gets the namespace `inside`, with eth0."""
    wire.add_inside()
    wire.cable()
    wire.out("link", "set", "eth0", "netns", wire.inside)
    configure(("-n", wire.inside), settings())
    bundle.namespace("network", wire.path)
    return bundle


def traces(wire):
    """What a machine leaves in a namespace that outlives it."""
    links = json.loads(run("ip", "-n", wire.inside, "-j", "link"))
    disciplines = json.loads(run("tc", "-n", wire.inside, "-j", "qdisc"))
    return ([link["ifname"] for link in links if link["ifname"] not in ("lo", "eth0")] +
            [d["kind"] for d in disciplines if d["kind"] in ("ingress", "clsact")])


@pytest.fixture
def nothing_left(wire, runtime):
    yield
    for id in runtime.ids:
        runtime.call("delete", "--force", id, check=False)
    wait_until(lambda: traces(wire) == [], 10, "an empty namespace")


SHOW = ("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip -o address show dev eth0;"
        "ip route; ip -6 route; ip neigh; ls /sys/class/net")


def test_is_as_the_namespace_says(runtime, plugged, nothing_left):
    shown = runtime.output(plugged.sh(SHOW))
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[:2] == [MAC, "1420"]
    assert "inet 10.77.0.2/24 brd 10.77.0.255 scope global eth0" in shown
    assert "inet6 fd77::2/64 scope global" in shown
    assert "inet6 fe80::15:1eff:fe00:2/64 scope link" in shown
    for route in ("default via 10.77.0.1 dev eth0", "192.0.2.0/24 dev eth0 scope link src 10.77.0.2 "
                  "metric 7", "10.77.0.0/24 dev eth0 scope link src 10.77.0.2",
                  "198.51.100.0/24 via 192.0.2.1 dev eth0", "default via fd77::1 dev eth0"):
        assert any(" ".join(line.split()).startswith(route) for line in lines), shown
    assert any(line.startswith("10.77.0.9 dev eth0 lladdr 02:00:00:00:00:99") for line in lines)
    assert lines[-2:] == ["eth0", "lo"] and "isle" not in shown


def serve(wire):
    server = subprocess.Popen(["ip", "netns", "exec", wire.outside, sys.executable, "-c", SERVER],
                              stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"listening\n"
    return server


def test_reaches_out(runtime, wire, plugged, nothing_left):
    expected = hashlib.sha256(bytes(range(256)) * (SIZE // 256)).hexdigest()
    with serve(wire) as server:
        try:
            out = runtime.output(plugged.sh("nc 10.77.0.1 7000 </dev/null | sha256sum"))
        finally:
            server.kill()
    assert out.split()[0] == expected


def fetch(wire, url):
    code = ("import urllib.request, sys;"
            f"sys.stdout.write(urllib.request.urlopen('{url}', timeout=10).read().decode())")
    return subprocess.run(["ip", "netns", "exec", wire.outside, sys.executable, "-c", code],
                          capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("host", ["10.77.0.2", "[fd77::2]"])
def test_is_reached(runtime, wire, plugged, nothing_left, host):
    plugged.config["root"]["readonly"] = False
    plugged.sh("mkdir /www; echo here I am > /www/index.html; httpd -f -p 80 -h /www")
    id = runtime.start_detached(plugged)
    wait_until(lambda: fetch(wire, f"http://{host}/") == "here I am\n", 20, "an answer")
    # Also while it is paused and after: nothing of this is lost.
    runtime.call("pause", id)
    runtime.call("resume", id)
    assert fetch(wire, f"http://{host}/") == "here I am\n"


def test_ipv6_that_is_off(runtime, wire, plugged, nothing_left):
    run("ip", "netns", "exec", wire.inside, "sh", "-c",
        "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    assert "inet6" not in runtime.output(plugged.sh("ip address show dev eth0"))


def test_devices_that_a_hook_brings(runtime, wire, bundle, told, tmp_path, nothing_left):
    """docker's way: libnetwork moves devices to the namespace of the pid it is told."""
    wire.cable()
    (tmp_path / "settings").write_text(settings())
    script = tmp_path / "hook"
    script.write_text(f"""#!/bin/sh -e
pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')
ip netns attach {wire.inside} $pid
ip -n {wire.outside} link set eth0 netns {wire.inside}
ip -n {wire.inside} -batch {tmp_path}/settings
""")
    script.chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(script)}]}
    run_to_end(runtime, runtime.create(bundle.sh("ping -c 1 -w 5 10.77.0.1; echo $? > /told/code")))
    assert (told / "code").read_text() == "0\n"
    # Who pinned the namespace cleans it: the device goes with the engine's network.
    wire.into("link", "delete", "eth0")


def test_devices_between_create_and_start(runtime, wire, bundle, told):
    wire.cable()
    wire.cable("eth1", 1)
    bundle.sh("cd /told; ip -o -4 address > addresses; cat /sys/class/net/eth?/address > macs;"
              " ping -c 1 -w 5 10.77.1.1 > ping; echo $? > code")
    id = runtime.create(bundle)
    pid = runtime.pid(id)
    for name, number in (("eth0", 0), ("eth1", 1)):
        wire.out("link", "set", name, "netns", str(pid))
        run("nsenter", "-n", "-t", str(pid), "ip", "-batch", "-", input=settings(name, number))
    run_to_end(runtime, id)
    assert (told / "code").read_text() == "0\n", (told / "ping").read_text()
    assert (told / "macs").read_text().split() == [MAC, MAC[:-1] + "3"]
    shown = (told / "addresses").read_text()
    assert "10.77.0.2/24" in shown and "10.77.1.2/24" in shown


def test_devices_of_the_configuration(runtime, wire, bundle):
    """netDevices: moved, with their names, and set up by the container."""
    name = "isle-" + wire.tag
    run("ip", "link", "add", name, "type", "veth", "peer", "name", name + "p", "netns", wire.outside)
    bundle.config["linux"]["netDevices"] = {name: {"name": "wan0"}}
    try:
        assert sorted(runtime.output(bundle.sh("ls /sys/class/net")).split()) == ["lo", "wan0"]
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def test_no_network(runtime, bundle):
    bundle.sh("ls /sys/class/net")
    assert runtime.output(bundle) == "lo\n"


def test_spare_cards_do_not_show(runtime, bundle, told):
    run_to_end(runtime, runtime.create(bundle.sh("ls /sys/class/net > /told/devices")))
    assert (told / "devices").read_text() == "lo\n"


def processes_of(runtime, id):
    found, more = [], [runtime.pid(id)]
    while more:
        found += more
        more = [int(pid) for parent in more for pid in subprocess.run(
            ["pgrep", "-P", str(parent)], text=True, capture_output=True, check=False
        ).stdout.split()]
    return found


def test_nothing_stays_when_all_is_killed(runtime, wire, plugged, nothing_left):
    id = runtime.start_detached(plugged.set_args("sleep", "1000"))
    pids = processes_of(runtime, id)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # with its parent
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 10, "the death of all")
    runtime.call("delete", id)
    assert traces(wire) == []


def test_nothing_stays_of_a_start_that_fails(runtime, wire, plugged, nothing_left):
    plugged.set_args("/no/such/program")
    runtime.run(plugged, check=False)
    assert traces(wire) == []


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_a_namespace_serves_one_machine(runtime, wire, plugged, nothing_left):
    id = runtime.start_detached(plugged.set_args("sleep", "1000"))
    error = runtime.run(plugged, check=False).stderr
    assert "network device 'eth0' is used by another virtual machine" in error
    assert traces(wire) == ["isle-tap0", "ingress", "ingress"]
    assert "1 packets received" in runtime.call("exec", id, "ping", "-c", "1", "-w", "5",
                                                "10.77.0.1").stdout
