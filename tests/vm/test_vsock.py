"""virtio-vsock: connections both ways between programs of the guest and Unix sockets."""

import contextlib
import hashlib
import os
import socket
import subprocess
import threading

import pytest

from tests.lib import vm

MODULES = ("virtio_pci", "vmw_vsock_virtio_transport")
SIZE = 8 << 20


@pytest.fixture(scope="session", name="program")
def _program(tmp_path_factory):
    return vm.guest_program(tmp_path_factory.mktemp("guest") / "vsock", "vsock")


@contextlib.contextmanager
def machine(tmp_path, program, script, *args):
    initrd = vm.initrd(tmp_path / "initrd.gz", script.replace("busybox ", "/bin/busybox ") +
                       "/bin/busybox poweroff -f\n", MODULES, [program])
    with subprocess.Popen([vm.VMM, "--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                           vm.CMDLINE, "--vsock", f"path={tmp_path}/vsock", *args],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process, text):
    for line in process.stdout:
        if text in line.decode():
            return
    raise AssertionError(f"the guest ended without {text!r}")


def listener(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    server.settimeout(120)
    return server


def read_all(peer):
    return b"".join(iter(lambda: peer.recv(1 << 16), b""))


def test_guest_connects_and_half_closes(tmp_path, program):
    with listener(f"{tmp_path}/vsock_7000") as server, machine(
            tmp_path, program, f"busybox head -c {SIZE} /dev/urandom > /data\n"
            "/bin/vsock connect 7000 < /data > /back\n"
            "busybox cmp /data /back && echo the same\nbusybox md5sum /data\n") as process:
        peer, _ = server.accept()
        data = read_all(peer)  # ends by the guest's shutdown, and we can still send
        peer.sendall(data)
        peer.close()
        out = process.stdout.read().decode()
        assert process.wait(120) == 0
    assert len(data) == SIZE and "the same" in out
    assert hashlib.md5(data).hexdigest() in out
    assert not (tmp_path / "vsock").exists()


def connect(tmp_path, port):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(120)
    peer.connect(str(tmp_path / "vsock"))
    peer.sendall(b"CONNECT %d\n" % port)
    return peer


def answer(peer):
    line = b""
    while not line.endswith(b"\n"):
        byte = peer.recv(1)
        if not byte:
            break
        line += byte
    return line


def test_host_connects_and_a_slow_reader_loses_nothing(tmp_path, program):
    data = os.urandom(SIZE)
    with machine(tmp_path, program, "/bin/vsock echo 5000 2\n") as process:
        line_of(process, "listening")
        for _ in range(2):
            peer = connect(tmp_path, 5000)
            assert answer(peer).startswith(b"OK ")
            # Nobody reads until far more is under way than any buffer holds.
            sender = threading.Thread(target=lambda p=peer: (p.sendall(data),
                                                             p.shutdown(socket.SHUT_WR)))
            sender.start()
            sender.join(0.5)
            assert sender.is_alive()
            assert read_all(peer) == data
            sender.join()
            peer.close()
        assert process.wait(120) == 0


def test_refusals_on_both_sides(tmp_path, program):
    with machine(tmp_path, program, "/bin/vsock connect 7001 || echo refused\n"
                 "/bin/vsock echo 5000\n") as process:
        line_of(process, "refused")
        line_of(process, "listening")
        with connect(tmp_path, 4999) as peer:  # nobody listens there
            assert answer(peer) == b""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "vsock"))
            peer.sendall(b"GET / HTTP/1.1\n")
            assert peer.recv(1) == b""
        peer = connect(tmp_path, 5000)  # it still works, and what follows the line is not lost
        peer.sendall(b"behind the line")
        assert answer(peer).startswith(b"OK ")
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer) == b"behind the line"
        peer.close()
        assert process.wait(120) == 0


def test_many_connections_at_once(tmp_path, program):
    script = "".join(f"echo hello {i} | /bin/vsock connect 7000 > /out{i} &\n" for i in range(20))
    with listener(f"{tmp_path}/vsock_7000") as server, machine(
            tmp_path, program, script + "wait\nbusybox cat /out*\n") as process:
        peers = [server.accept()[0] for _ in range(20)]
        for peer in reversed(peers):
            peer.sendall(read_all(peer).upper())
            peer.close()
        out = process.stdout.read().decode()
        assert process.wait(120) == 0
    assert sorted(line.strip() for line in out.splitlines() if line.startswith("HELLO")) == sorted(
        f"HELLO {i}" for i in range(20))


@pytest.mark.parametrize("option, told", [
    ("cid=3", "path=PATH is missing"),
    ("path=/tmp/x,cid=2", "cid 2: 3 to 4294967294 are possible"),
    ("path=/nowhere/x", "/nowhere/x"),
    ("path=" + 110 * "x", "is longer than"),
    ("path=/", "exists"),
])
def test_refused_with_the_reason(option, told):
    status, _, err = vm.run("--kernel", vm.debian_kernel(), "--vsock", option)
    assert status in (1, 2)
    assert told in err
