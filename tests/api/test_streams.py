"""Attach, logs, exec, cp, export, top, stats: what flows in and out of a container."""

import io
import json
import os
import pty
import re
import select
import subprocess
import tarfile
import time

import pytest

from tests.lib.daemon import mux, mux_text, read_all, until

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class Terminal:
    """A docker CLI on a pty."""

    def __init__(self, command, rows=24, columns=80):
        import fcntl
        import struct
        import termios
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True)
        os.close(slave)
        self.text = ""

    def expect(self, pattern, timeout=15):
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    piece = os.read(self.master, 65536)
                except OSError:
                    piece = b""
                assert piece, f"ended without {pattern!r}: {self.text!r}"
                self.text += piece.decode(errors="replace")
        return re.search(pattern, self.text)

    def send(self, text):
        os.write(self.master, text.encode())

    def resize(self, rows, columns):
        import fcntl
        import signal
        import struct
        import termios
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGWINCH)

    def wait(self, timeout=15):
        status = self.process.wait(timeout)
        os.close(self.master)
        return status


# --- terminals ---------------------------------------------------------------

def test_interactive_terminal(daemon):
    t = Terminal(daemon.docker_command("run", "--rm", "-it", "busybox", "sh"), 30, 100)
    t.expect(r"# ")
    t.send("echo $((6*7)); tty; stty size\n")
    t.expect(r"42\r\n/dev/pts/0\r\n30 100\r\n")
    t.send("trap 'echo resized: $(stty size)' WINCH; echo armed-$((1+1)); "
           "while :; do sleep 0.02; done\n")
    t.expect("armed-2")
    t.resize(40, 120)
    t.expect(r"resized: 40 120\r\n")
    t.send("\x03exit 5\n")
    assert t.wait() == 5


def test_detach_keys_leave_it_running(daemon):
    t = Terminal(daemon.docker_command("run", "-it", "--name", "det", "busybox", "sh"))
    t.expect(r"# ")
    t.send("\x10\x11")  # ctrl-p ctrl-q
    assert t.wait() == 0
    assert daemon.inspect("det")["State"]["Running"]
    t = Terminal(daemon.docker_command("attach", "--detach-keys", "ctrl-x", "det"))
    t.send("echo again-$((1+1))\n")
    t.expect("again-2")
    t.send("\x18")
    t.wait()
    assert daemon.inspect("det")["State"]["Running"]
    daemon.docker("rm", "-f", "det")


def test_bad_detach_keys(daemon):
    cid = daemon.out("create", "-it", "busybox")
    assert daemon.post(f"/containers/{cid}/attach?stream=1&detachKeys=ctrl-%C3%A4").status == 400
    daemon.docker("rm", cid)


# --- attach, raw -------------------------------------------------------------

def test_attach_multiplexed(daemon):
    daemon.docker("create", "--name", "at", "-i", "busybox", "sh", "-c",
                  "read x; echo out-$x; echo err-$x >&2")
    status, headers, sock, early = daemon.hijack(
        "/containers/at/attach?stream=1&stdin=1&stdout=1&stderr=1")
    assert status == 101 and headers["content-type"] == MULTIPLEXED
    daemon.docker("start", "at")
    sock.sendall(b"hello\n")
    data = early + read_all(sock)
    assert mux_text(data, 1) == "out-hello\n" and mux_text(data, 2) == "err-hello\n"
    daemon.docker("rm", "at")


def test_attach_with_logs_replays_then_streams(daemon):
    daemon.docker("run", "-d", "--name", "at2", "-i", "busybox", "sh", "-c",
                  "echo first; read x; echo second")
    until(lambda: "first" in daemon.out("logs", "at2"))
    status, _, sock, early = daemon.hijack(
        "/containers/at2/attach?logs=1&stream=1&stdin=1&stdout=1&stderr=1")
    assert status == 101
    sock.sendall(b"\n")
    assert mux_text(early + read_all(sock)) == "first\nsecond\n"
    daemon.docker("rm", "-f", "at2")


def test_attach_raw_with_a_terminal(daemon):
    daemon.docker("create", "--name", "at3", "-t", "busybox", "echo", "hi")
    status, headers, sock, early = daemon.hijack("/containers/at3/attach?stream=1&stdout=1")
    assert status == 101 and headers["content-type"] == RAW
    daemon.docker("start", "at3")
    assert early + read_all(sock) == b"hi\r\n"
    daemon.docker("rm", "at3")


def test_closing_stdin_is_passed_on(daemon):
    import socket
    daemon.docker("create", "--name", "at4", "-i", "busybox", "cat")
    # as the CLI makes it, stdin ends with its first client
    _, _, sock, early = daemon.hijack("/containers/at4/attach?stream=1&stdin=1&stdout=1&stderr=1")
    daemon.docker("start", "at4")
    sock.sendall(b"abc")
    sock.shutdown(socket.SHUT_WR)
    assert mux_text(early + read_all(sock)) == "abc"
    assert daemon.out("wait", "at4") == "0"
    daemon.docker("rm", "at4")


# --- logs ----------------------------------------------------------------------

@pytest.fixture
def chatty(daemon):
    daemon.docker("run", "--name", "chat", "busybox", "sh", "-c",
                  "for i in 1 2 3 4 5; do echo line-$i; done; echo oops >&2; printf partial")
    yield "chat"
    daemon.docker("rm", "-f", "chat")


def test_logs(daemon, chatty):
    done = daemon.docker("logs", chatty)
    assert done.stdout == "line-1\nline-2\nline-3\nline-4\nline-5\npartial"
    assert done.stderr == "oops\n"
    assert daemon.docker("logs", "--tail", "2", chatty).stdout.endswith("partial")
    tail = daemon.docker("logs", "--tail", "3", chatty)
    assert tail.stdout.splitlines() == ["line-5", "partial"] and tail.stderr == "oops\n"
    assert daemon.docker("logs", "--tail", "0", chatty).stdout == ""


def test_logs_timestamps_since_until(daemon, chatty):
    lines = daemon.docker("logs", "-t", chatty).stdout.splitlines()
    stamps = [line.split(" ", 1)[0] for line in lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", s) for s in stamps), stamps
    assert stamps == sorted(stamps)
    assert daemon.docker("logs", "--since", "10m", chatty).stdout.startswith("line-1")
    assert daemon.docker("logs", "--until", "10m", chatty).stdout == ""
    assert daemon.docker("logs", "--since", stamps[-1], chatty).stdout.endswith("partial")


def test_logs_raw(daemon, chatty):
    reply = daemon.get(f"/containers/{chatty}/logs?stdout=1")
    assert reply.headers["Content-Type"] == MULTIPLEXED
    assert {n for n, _ in mux(reply.body)} == {1}
    reply = daemon.get(f"/containers/{chatty}/logs?stderr=1", version="/v1.41")
    assert reply.headers["Content-Type"] == RAW and mux_text(reply.body, 2) == "oops\n"
    reply = daemon.get(f"/containers/{chatty}/logs")
    assert reply.status == 400 and "at least one stream" in reply.message
    assert daemon.get(f"/containers/{chatty}/logs?stdout=1&since=nonsense").status == 400


def test_logs_follow_until_the_end(daemon):
    daemon.docker("run", "-d", "--name", "fol", "busybox", "sh", "-c",
                  "for i in 1 2 3; do echo $i; sleep 0.1; done")
    assert daemon.out("logs", "-f", "fol") == "1\n2\n3"
    daemon.docker("rm", "fol")


def test_large_output_arrives_whole(daemon):
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c",
                         "yes 0123456789abcdef | head -c 8000000")
    assert len(done.stdout) == 8_000_000


# --- exec -----------------------------------------------------------------------

@pytest.fixture
def sleeper(daemon):
    daemon.docker("run", "-d", "--name", "ex", "-e", "FROM_RUN=1", "busybox", "sleep", "1000")
    yield "ex"
    daemon.docker("rm", "-f", "ex")


def test_exec(daemon, sleeper):
    done = daemon.docker("exec", "-e", "B=2", "-w", "/tmp", "-u", "1000", sleeper, "sh", "-c",
                         "echo $FROM_RUN $B $PWD $(id -u); echo err >&2; exit 6", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("1 2 /tmp 1000\n", "err\n", 6)
    done = daemon.docker("exec", "-i", sleeper, "cat", input="through")
    assert done.stdout == "through"
    assert daemon.docker("exec", "-d", sleeper, "touch", "/touched").stdout == ""
    until(lambda: daemon.docker("exec", sleeper, "test", "-e", "/touched", check=False).returncode == 0)


def test_exec_on_a_terminal(daemon, sleeper):
    t = Terminal(daemon.docker_command("exec", "-it", sleeper, "sh"), 33, 99)
    t.expect("# ")
    t.send("stty size; exit 4\n")
    t.expect("33 99")
    assert t.wait() == 4


def test_exec_failures(daemon, sleeper):
    done = daemon.docker("exec", sleeper, "no-such-command", check=False)
    assert done.returncode == 127 and "no-such-command" in done.stdout + done.stderr
    assert daemon.post(f"/containers/{sleeper}/exec", {"Cmd": []}).status == 400
    exec_id = daemon.post(f"/containers/{sleeper}/exec", {"Cmd": ["true"]}).json["Id"]
    assert daemon.post(f"/exec/{exec_id}/start", {"Detach": True}).status == 200
    until(lambda: daemon.get(f"/exec/{exec_id}/json").json["ExitCode"] == 0)
    assert daemon.post(f"/exec/{exec_id}/start", {"Detach": True}).status == 409


def test_exec_inspect_and_raw_start(daemon, sleeper):
    created = daemon.post(f"/containers/{sleeper}/exec",
                          {"Cmd": ["sh", "-c", "echo a; echo b >&2; exit 3"],
                           "AttachStdout": True, "AttachStderr": True})
    assert created.status == 201
    exec_id = created.json["Id"]
    before = daemon.get(f"/exec/{exec_id}/json").json
    assert not before["Running"] and before["ExitCode"] is None
    assert before["ProcessConfig"]["entrypoint"] == "sh"
    status, headers, sock, early = daemon.hijack(f"/exec/{exec_id}/start", {})
    assert status == 101 and headers["content-type"] == MULTIPLEXED
    data = early + read_all(sock)
    assert mux_text(data, 1) == "a\n" and mux_text(data, 2) == "b\n"
    after = until(lambda: (lambda j: j if not j["Running"] else None)(
        daemon.get(f"/exec/{exec_id}/json").json))
    assert after["ExitCode"] == 3 and after["ContainerID"].startswith(daemon.inspect(sleeper)["Id"])


# --- cp and export ----------------------------------------------------------------

def test_cp(daemon, tmp_path):
    daemon.docker("create", "--name", "cp", "busybox")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/f").write_text("content")
    daemon.docker("cp", str(tmp_path / "dir"), "cp:/root")
    daemon.docker("cp", "cp:/root/dir/f", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "content"
    daemon.docker("cp", "cp:/etc/passwd", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text().startswith("root:")
    done = daemon.docker("cp", "cp:/no/such", str(tmp_path), check=False)
    assert done.returncode == 1 and "/no/such" in done.stderr
    tar = subprocess.run(daemon.docker_command("cp", "cp:/root/dir", "-"), capture_output=True,
                         check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as t:
        assert sorted(t.getnames()) == ["dir", "dir/f"]
    daemon.docker("rm", "cp")


def test_cp_does_not_follow_links_out(daemon, tmp_path):
    daemon.docker("run", "--name", "cplink", "busybox", "ln", "-s", "/etc", "/etc-link")
    daemon.docker("run", "--name", "cpup", "busybox", "ln", "-s", "../../../../../../../etc/hostname", "/up")
    daemon.docker("cp", "cplink:/etc-link/passwd", str(tmp_path / "p"))
    assert "app:x:1000" in (tmp_path / "p").read_text()
    done = daemon.docker("cp", "-L", "cpup:/up", str(tmp_path / "h"), check=False)
    if done.returncode == 0:
        assert (tmp_path / "h").read_text() != open("/etc/hostname").read()
    daemon.docker("rm", "cplink", "cpup")


def test_archive_stat(daemon):
    import base64
    daemon.docker("create", "--name", "st", "busybox")
    reply = daemon.request("HEAD", "/containers/st/archive?path=/etc/passwd")
    assert reply.status == 200
    info = json.loads(base64.b64decode(reply.headers["X-Docker-Container-Path-Stat"]))
    assert info["name"] == "passwd" and info["size"] > 10 and info["mode"] == 0o644
    info = json.loads(base64.b64decode(daemon.request(
        "HEAD", "/containers/st/archive?path=/etc").headers["X-Docker-Container-Path-Stat"]))
    assert info["mode"] & 1 << 31
    assert daemon.request("HEAD", "/containers/st/archive?path=/nope").status == 404
    assert daemon.get("/containers/st/archive").status == 400
    assert daemon.request("PUT", "/containers/st/archive?path=/nope", body=b"").status == 404
    assert daemon.request("PUT", "/containers/st/archive?path=/tmp",
                          body=b"this is no tar archive" * 100).status in (400, 500)
    daemon.docker("rm", "st")


def test_cp_into_a_running_container(daemon, tmp_path):
    daemon.docker("run", "-d", "--name", "cpr", "busybox", "sleep", "1000")
    (tmp_path / "new").write_text("fresh")
    daemon.docker("cp", str(tmp_path / "new"), "cpr:/tmp/new")
    assert daemon.out("exec", "cpr", "cat", "/tmp/new") == "fresh"
    daemon.docker("exec", "cpr", "sh", "-c", "echo inside > /tmp/out")
    daemon.docker("cp", "cpr:/tmp/out", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "inside\n"
    daemon.docker("rm", "-f", "cpr")


def test_export_and_diff(daemon, tmp_path):
    daemon.docker("run", "--name", "exp", "busybox", "sh", "-c",
                  "echo new > /new; echo more >> /etc/passwd; rm /etc/group")
    assert set(daemon.out("diff", "exp").splitlines()) == {"C /etc", "D /etc/group",
                                                           "C /etc/passwd", "A /new"}
    daemon.docker("export", "-o", str(tmp_path / "x.tar"), "exp")
    with tarfile.open(tmp_path / "x.tar") as t:
        names = {n.lstrip("./").rstrip("/") for n in t.getnames()}
        assert "new" in names and "bin/busybox" in names and "etc/group" not in names
    daemon.docker("rm", "exp")


# --- looking inside ---------------------------------------------------------------

def test_top(daemon, sleeper):
    out = daemon.out("top", sleeper)
    assert out.splitlines()[0].split()[:2] == ["UID", "PID"] and "sleep 1000" in out
    out = daemon.out("top", sleeper, "-o", "pid,comm")
    assert out.splitlines()[0].split() == ["PID", "COMMAND"] and "sleep" in out
    daemon.docker("stop", "-t", "0", sleeper)
    reply = daemon.get(f"/containers/{sleeper}/top")
    assert reply.status == 409 and "is not running" in reply.message


def test_stats(daemon, sleeper):
    one = daemon.get(f"/containers/{sleeper}/stats?stream=0&one-shot=1").json
    assert one["name"] == "/" + sleeper and one["memory_stats"]["usage"] > 0
    assert one["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    two = daemon.get(f"/containers/{sleeper}/stats?stream=0").json
    assert two["precpu_stats"]["system_cpu_usage"] < two["cpu_stats"]["system_cpu_usage"]
    stream = daemon.stream(f"/containers/{sleeper}/stats")
    first, second = (json.loads(stream.readline()) for _ in range(2))
    assert first["read"] == second["preread"] < second["read"]
    stream.isle_connection.close()
    row = json.loads(daemon.out("stats", "--no-stream", "--format", "{{json .}}", sleeper))
    assert row["Name"] == sleeper and row["PIDs"] == "1"
    assert re.fullmatch(r"[\d.]+%", row["CPUPerc"])
    daemon.docker("stop", "-t", "0", sleeper)
    stopped = daemon.get(f"/containers/{sleeper}/stats?stream=0").json
    assert stopped["read"].startswith("0001") and stopped["memory_stats"] == {}
