#!/usr/bin/python3
"""Claim: a guest on our software CPU reads and writes a virtio disk past its page cache, and sends and
receives by TCP over virtio-net at a tap, at least as fast as under QEMU TCG (q35, -cpu max): same
kernel, initial ramdisk, raw image and tap; neither has an I/O thread beyond its defaults, nor vhost."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

import frame
import peers

from tests.lib import vm  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "5"))
DISK_MIB, NET_MIB = 256, 64
HOST, GUEST = "192.0.2.1", "192.0.2.2"
MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
SCRIPT = f"""
now() {{ read up idle < /proc/uptime; echo "$1 at $up"; }}
/bin/busybox ifconfig eth0 {GUEST} netmask 255.255.255.0 up
now read
/bin/busybox dd if=/dev/vda of=/dev/null bs=1M count={DISK_MIB} iflag=direct 2>/dev/null
now write
/bin/busybox dd if=/dev/zero of=/dev/vda bs=1M count={DISK_MIB} oflag=direct 2>/dev/null
now end
until /bin/busybox ping -c 1 -W 1 {HOST} > /dev/null; do :; done
/bin/busybox dd if=/dev/zero bs=1M count={NET_MIB} 2>/dev/null | /bin/busybox nc {HOST} 7000
/bin/busybox nc {HOST} 7001 < /dev/null > /dev/null
/bin/busybox poweroff -f
"""


def enter_own_network():
    """This process goes on in a network namespace with a tap of its own."""
    if os.environ.get("ISLE_BENCH_NETWORK") != "1":
        os.environ["ISLE_BENCH_NETWORK"] = "1"
        os.execvp("unshare", ["unshare", "--net", "/usr/bin/python3", *sys.argv])
    for words in ("tuntap add tap0 mode tap", f"address add {HOST}/24 dev tap0",
                  "link set tap0 up"):
        frame.run_quietly(["ip", *words.split()])


def accepted(server, process):
    """The guest's connection; an end of the bench with what the machine said if there is none."""
    while process.poll() is None:
        with contextlib.suppress(TimeoutError):
            return server.accept()[0]
    sys.exit(f"bench: the machine is off and has not connected:\n{process.stdout.read()}")


def sink(peer):
    """Seconds between the first byte of a connection and its end."""
    with peer:
        left, begun = NET_MIB << 20, None
        while data := peer.recv(1 << 20):
            begun = begun or time.perf_counter()
            left -= len(data)
        assert left == 0, f"{left} bytes did not come"
        return time.perf_counter() - begun


def source(peer):
    """Seconds until the other side has taken all of it and gone."""
    block = bytes(1 << 20)
    with peer:
        begun = time.perf_counter()
        for _ in range(NET_MIB):
            peer.sendall(block)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass
        return time.perf_counter() - begun


def once(command, servers):
    """(read, write, send, receive) in seconds of one machine's life."""
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        sent = sink(accepted(servers[0], process))
        received = source(accepted(servers[1], process))
        out = process.communicate(timeout=60)[0]
    at = {name: float(up) for name, up in re.findall(r"(read|write|end) at ([0-9.]+)", out)}
    if process.returncode != 0 or len(at) != 3:
        sys.exit(f"bench: the guest ended with {process.returncode}, not as it should:\n{out}")
    return at["write"] - at["read"], at["end"] - at["write"], sent, received


def measure(home):
    kernel = str(vm.debian_kernel())
    initrd = vm.initrd(os.path.join(home, "initrd.gz"), SCRIPT, modules=MODULES)
    disk = pathlib.Path(home) / "disk"
    disk.write_bytes(bytes(1 << 20) * DISK_MIB)
    servers = [socket.create_server((HOST, port)) for port in (7000, 7001)]
    for server in servers:
        server.settimeout(1)
    machines = {
        "isle-vmm soft": [vm.VMM, "--cpu", "soft", "--kernel", kernel, "--initrd", initrd,
                          "--cmdline", vm.CMDLINE, "--no-reboot", "--disk", f"{disk},format=raw",
                          "--net", "tap=tap0"],
        "QEMU TCG q35": [*peers.qemu_tcg(kernel, initrd, vm.CMDLINE, 256),
                         *peers.qemu_disk(disk, "cache=writeback"), "-netdev",
                         "tap,id=net,ifname=tap0,script=no,downscript=no", "-device",
                         "virtio-net-pci,netdev=net"],
    }
    names = ("read", "write", "send", "receive")
    figures = {name: {label: [] for label in machines} for name in names}
    for turn in range(1 + ROUNDS):
        for label, command in machines.items():
            for name, took in zip(names, once(command, servers)):
                if turn:
                    figures[name][label].append(took)
    return figures


def main():
    peers.install_qemu()
    vm.debian_kernel()  # which may be fetched
    enter_own_network()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        figures = measure(home)
    goal = [("isle <= QEMU TCG", lambda m: m["isle-vmm soft"] <= m["QEMU TCG q35"])]
    what = {"read": f"read {DISK_MIB} MiB of a disk, 1 MiB at a time, O_DIRECT",
            "write": f"write {DISK_MIB} MiB to a disk, 1 MiB at a time, O_DIRECT",
            "send": f"send {NET_MIB} MiB by TCP to the host",
            "receive": f"receive {NET_MIB} MiB by TCP from the host"}
    return all([frame.report(f"vm-io-{name}", what[name], rows, goals=goal)
                for name, rows in figures.items()])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
