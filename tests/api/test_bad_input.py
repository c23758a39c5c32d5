"""Bad input and bad surroundings: one clear error that names the thing and the remedy, the right
status, no leftovers, and the daemon goes on."""

import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import time

import pytest

from tests.lib import images
from tests.lib.daemon import Daemon, program, until
from tests.lib.registry import free_port


def files_under(directory):
    return sorted(str(p.relative_to(directory)) for p in pathlib.Path(directory).rglob("*")
                  if p.is_file() and "state.db" not in p.name)


# --- registries and images -------------------------------------------------------

def test_unreachable_registry(fresh):
    port = free_port()
    done = fresh.docker("pull", f"127.0.0.1:{port}/x:1", check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr and "onnect" in done.stderr
    run = fresh.docker("run", "--rm", f"127.0.0.1:{port}/x:1", check=False)
    assert run.returncode == 125
    assert fresh.get("/containers/json?all=1").json == []


def test_unknown_registry_host(fresh):
    done = fresh.docker("pull", "no-such-host.invalid/x:1", check=False)
    assert done.returncode == 1 and "no-such-host.invalid" in done.stderr


def test_image_missing_in_the_registry(fresh, registry):
    reference = f"{registry.address}/no/such:1"
    done = fresh.docker("pull", reference, check=False)
    assert done.returncode == 1
    assert "not found" in done.stderr or "manifest unknown" in done.stderr
    reply = fresh.post(f"/images/create?fromImage={registry.address}/no/such&tag=1")
    message = reply.message if reply.status != 200 else reply.lines[-1]["error"]
    assert f"{registry.address}/no/such:1" in message


def test_corrupt_blob_in_the_registry(fresh, registry):
    image = images.Image([images.busybox_layer(), images.small_layer("corrupt-me", 4000)])
    image.push(registry, "test/corrupt", "1")
    digest = image.manifest["layers"][1]["digest"]
    blob = registry.blob_path(digest)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 0xff
    blob.write_bytes(data)
    reference = f"{registry.address}/test/corrupt:1"
    done = fresh.docker("pull", reference, check=False)
    assert done.returncode == 1
    assert digest[7:19] in done.stderr, done.stderr
    assert fresh.get("/images/json").json == []
    assert fresh.get(f"/images/{reference}/json").status == 404


def test_corrupt_blob_in_the_store_is_found(fresh):
    fresh.load_busybox()
    blobs = [p for p in (fresh.root / "content").rglob("*") if p.is_file()]
    largest = max(blobs, key=lambda p: p.stat().st_size)
    os.chmod(largest, 0o600)
    with open(largest, "r+b") as f:
        f.seek(100)
        f.write(b"damaged")
    records = fresh.post("/isle/v1/images/verify").lines
    assert records[-1]["bad"] == 1
    bad = [r for r in records[:-1] if not r["good"]]
    assert len(bad) == 1 and bad[0]["problem"] and largest.name in bad[0]["digest"]


def test_missing_image_to_create(fresh):
    reply = fresh.post("/containers/create", {"Image": "none"})
    assert reply.status == 404 and reply.message == "No such image: none:latest"
    reply = fresh.post("/containers/create", {"Cmd": ["x"]})
    assert reply.status == 400
    reply = fresh.post("/containers/create", {"Image": "UPPER"})
    assert reply.status == 400 and "invalid reference format" in reply.message
    assert fresh.get("/containers/json?all=1").json == []


@pytest.mark.parametrize("body,words", [
    ({"Image": "busybox", "HostConfig": {"Memory": 1000}}, "memory"),
    ({"Image": "busybox", "HostConfig": {"NanoCpus": -1}}, "CPU"),
    ({"Image": "busybox", "HostConfig": {"Binds": ["./relative:/x"]}}, "./relative"),
    ({"Image": "busybox", "HostConfig": {"Binds": ["/a:rel"]}}, "rel"),
    ({"Image": "busybox", "HostConfig": {"CapAdd": ["NO_SUCH_CAP"]}}, "NO_SUCH_CAP"),
    ({"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "maybe"}}}, "maybe"),
    ({"Image": "busybox", "HostConfig": {"Sysctls": {"kernel.panic": "1"}}}, "kernel.panic"),
    ({"Image": "busybox", "HostConfig": {"NetworkMode": "bridge"}}, "bridge"),
    ({"Image": "busybox", "HostConfig": {"SecurityOpt": ["odd=1"]}}, "odd"),
    ({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "syslog"}}}, "syslog"),
    ({"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "npipe", "Target": "/x"}]}}, "npipe"),
    ({"Image": "busybox", "StopSignal": "SIGNOPE"}, "SIGNOPE"),
    ({"Image": "busybox", "WorkingDir": "rel"}, "rel"),
    ({"Image": "busybox", "HostConfig": "text"}, "HostConfig"),
])
def test_bad_container_settings(daemon, body, words):
    reply = daemon.post("/containers/create", body)
    assert reply.status in (400, 501), reply.body
    assert words.lower() in reply.message.lower()
    assert daemon.get("/containers/json?all=1").json == []


# --- the state directory ------------------------------------------------------------

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "isle-test", where]).returncode:
        pytest.skip("no permission to mount")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def fill(directory):
    with open(directory / "filler", "wb") as f:
        try:
            while True:
                f.write(b"x" * 65536)
                f.flush()
        except OSError:
            pass


def test_full_disk_while_loading(tmp_path, small_disk):
    archive = tmp_path / "big.tar"
    images.docker_archive(archive, ["big:1"], [images.random_layer("big", 30 << 20)], {})
    with Daemon(tmp_path, root=small_disk / "root") as d:
        d.load_busybox()
        before = files_under(d.root)
        done = d.docker("load", "-i", str(archive), check=False)
        assert done.returncode == 1
        assert "o space left" in done.stderr, done.stderr
        assert d.get("/images/big:1/json").status == 404
        d.post("/isle/v1/images/gc")
        assert files_under(d.root) == before
        # and what was there still works
        assert d.out("run", "--rm", "busybox", "echo", "alive") == "alive"


def test_full_disk_while_creating(tmp_path, small_disk):
    with Daemon(tmp_path, root=small_disk / "root") as d:
        d.load_busybox()
        before = files_under(d.root)
        fill(small_disk)
        done = d.docker("run", "--rm", "busybox", "true", check=False)
        assert done.returncode == 125
        assert "o space left" in done.stderr or "disk is full" in done.stderr, done.stderr
        (small_disk / "filler").unlink()
        assert d.get("/containers/json?all=1").json == []
        assert files_under(d.root) == before
        assert d.out("run", "--rm", "busybox", "echo", "alive") == "alive"


def fails_to_start(directory, **kw):
    """Starts an isled that cannot; returns the last line it said."""
    d = Daemon(directory, start=False, **kw)
    d.spawn()
    status = d.process.wait(20)
    d.log.close()
    d.process = None
    d.close()
    assert status == 1, d.log_text()
    return d.log_text().strip().splitlines()[-1]


def test_full_disk_at_start(tmp_path, small_disk):
    fill(small_disk)
    line = fails_to_start(tmp_path, root=small_disk / "root")
    assert str(small_disk) in line and "space" in line


def test_read_only_state_directory(tmp_path, small_disk):
    (small_disk / "root").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    line = fails_to_start(tmp_path, root=small_disk / "root")
    assert f"{small_disk}/root is read-only" in line and "--root" in line


def test_state_directory_turns_read_only(tmp_path, small_disk):
    with Daemon(tmp_path, root=small_disk / "root") as d:
        d.load_busybox()
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=False)
        if not os.access(small_disk, os.W_OK):
            done = d.docker("create", "busybox", check=False)
            assert done.returncode == 1 and "ead-only" in done.stderr
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert d.get("/containers/json?all=1").json == []


def test_corrupt_database(tmp_path):
    with Daemon(tmp_path) as d:
        d.load_busybox()
        database = d.root / "state.db"
        assert database.exists()
    for suffix in ("-wal", "-shm"):
        (d.root / ("state.db" + suffix)).unlink(missing_ok=True)
    database.write_bytes(b"this is no database " * 500)
    line = fails_to_start(tmp_path, root=d.root)
    assert str(database) in line
    assert "move it" in line or "restore" in line or "remove" in line, line


def test_second_daemon_on_one_state_directory(tmp_path):
    with Daemon(tmp_path) as d:
        other = tmp_path / "other"
        other.mkdir()
        line = fails_to_start(other, root=d.root)
        assert f"another isled uses {d.root} (pid {d.process.pid})" in line
        assert d.get("/_ping").status == 200


def test_socket_in_use(tmp_path):
    with Daemon(tmp_path) as d:
        other = tmp_path / "other"
        other.mkdir()
        e = Daemon(other, start=False)
        e.host = d.host
        e.spawn()
        assert e.process.wait(20) == 1
        assert d.socket in e.log_text() and "in use" in e.log_text()
        e.process = None
        assert d.get("/_ping").status == 200


def test_stale_socket_is_replaced(tmp_path):
    with Daemon(tmp_path) as d:
        d.kill()
        assert os.path.exists(d.socket)
        d.start()
        assert d.get("/_ping").status == 200
        d.stop()
        assert not os.path.exists(d.socket)


def test_something_else_at_the_sockets_path(tmp_path):
    d = Daemon(tmp_path, start=False)
    pathlib.Path(d.socket).write_text("precious")
    d.spawn()
    assert d.process.wait(20) == 1
    assert d.socket in d.log_text()
    assert pathlib.Path(d.socket).read_text() == "precious"
    d.process = None
    d.close()


# --- command line and configuration ---------------------------------------------------

def isled(*args):
    return subprocess.run([program("isled"), *map(str, args)], capture_output=True, text=True,
                          timeout=20)


@pytest.mark.parametrize("args,words", [
    (["--no-such"], "--no-such"), (["--root"], "--root needs a value"), (["extra"], "extra"),
    (["--root", "relative"], "relative"), (["--log-level", "loud"], "loud"),
    (["--log-format", "xml"], "xml"), (["--host", "ftp://x"], "ftp://x"),
    (["--config", "/no/such/file"], "/no/such/file")])
def test_bad_options(args, words):
    done = isled(*args)
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_bad_configuration_file(tmp_path):
    config = tmp_path / "isled.json"
    for text, words in [("{", "isled.json"), ('{"rooot": "/x"}', "unknown key 'rooot'"),
                        ('{"root": 1}', "root"), ("[]", "object")]:
        config.write_text(text)
        done = isled("--config", config)
        assert done.returncode == 2 and words in done.stderr and str(config) in done.stderr


def test_help_and_version():
    assert isled("--version").stdout.startswith("isled ")
    text = isled("--help").stdout
    assert "--root" in text and all(len(line) <= 90 for line in text.splitlines())


def test_configuration_file_is_used_and_reloaded(tmp_path):
    config = tmp_path / "isled.json"
    config.write_text('{"insecure-registries": ["reg.test:5000"]}')
    with Daemon(tmp_path, args=["--config", str(config)]) as d:
        assert "reg.test:5000" in d.get("/info").json["RegistryConfig"]["IndexConfigs"]
        config.write_text('{"insecure-registries": ["reg.test:5000", "b:1"]}')
        d.signal(signal.SIGHUP)
        until(lambda: "configuration reloaded" in d.log_text())
        assert "insecure-registries changed" in d.log_text()
        config.write_text("{")
        d.signal(signal.SIGHUP)
        until(lambda: "configuration not reloaded" in d.log_text())
        assert d.get("/_ping").status == 200


def test_end_leaves_containers_running(daemon):
    daemon.docker("run", "-d", "--name", "stays", "busybox", "sh", "-c",
                  "i=0; while :; do echo $((i=i+1)); sleep 0.05; done")
    pid = daemon.inspect("stays")["State"]["Pid"]
    assert daemon.stop() == 0
    assert os.path.exists(f"/proc/{pid}")
    daemon.start()
    state = daemon.inspect("stays")["State"]
    assert state["Running"] and state["Pid"] == pid
    before = len(daemon.out("logs", "stays").split())
    until(lambda: len(daemon.out("logs", "stays").split()) > before)
    daemon.docker("rm", "-f", "stays")


def test_socket_activation(tmp_path):
    """As systemd does it: the listening socket is descriptor 3."""
    d = Daemon(tmp_path, start=False)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(d.socket)
    listener.listen(16)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(d.run / "notify"))
    notify.settimeout(20)

    def prepare():
        os.dup2(listener.fileno(), 3)
        os.environ["LISTEN_PID"] = str(os.getpid())

    command = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", program("isled"), "--root",
               str(d.root), "--run", str(d.run)]
    d.log = open(d.log_path, "ab")
    d.process = subprocess.Popen(
        command, preexec_fn=lambda: os.dup2(listener.fileno(), 3), close_fds=False,
        env={**os.environ, "LISTEN_FDS": "1", "NOTIFY_SOCKET": str(d.run / "notify")},
        stderr=d.log)
    assert "READY=1" in notify.recv(4096).decode()
    assert d.get("/_ping").status == 200
    assert d.stop() == 0
    assert "STOPPING=1" in notify.recv(4096).decode()
    assert os.path.exists(d.socket)  # systemd's, not ours to remove
    d.close()


# --- HTTP ------------------------------------------------------------------------------

def raw(daemon, data, timeout=10):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        s.connect(daemon.socket)
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := s.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize("data", [
    b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 1000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])
def test_malformed_http_does_not_hurt(daemon, data):
    answer = raw(daemon, data)
    assert answer == b"" or answer.split()[1][:1] == b"4", answer[:200]
    assert daemon.get("/_ping").status == 200


def test_body_beyond_the_limit(daemon):
    reply = daemon.post("/containers/create", body=b'{"Image":"' + b"x" * (9 << 20) + b'"}')
    assert reply.status == 413


def test_slow_readers_delay_nobody(daemon):
    daemon.docker("run", "-d", "--name", "spam", "busybox", "sh", "-c",
                  "yes 0123456789012345678901234567890 | head -c 3000000; sleep 1000")
    slow = [daemon.stream("/containers/spam/logs?stdout=1&follow=1") for _ in range(20)]
    slow += [daemon.stream("/events") for _ in range(20)]
    begin = time.monotonic()
    for _ in range(20):
        assert daemon.get("/containers/json").status == 200
    assert time.monotonic() - begin < 2
    for reply in slow:
        reply.isle_connection.close()
    daemon.docker("rm", "-f", "spam")


def test_idle_daemon_is_small(tmp_path):
    with Daemon(tmp_path) as d:
        d.load_busybox()
        d.docker("run", "--rm", "busybox", "true")

        def resident():
            with open(f"/proc/{d.process.pid}/status") as status:
                return next(int(l.split()[1]) for l in status if l.startswith("VmRSS"))
        d.restart()
        assert resident() < 10 * 1024, f"{resident()} KiB"
