"""Standard streams, terminals, signals: run, attach and exec against a fake daemon."""

import base64
import json
import os
import signal
import threading
import time

import pytest

from tests.cli.fake import ID, frame, until


def read_until_eof(sock):
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def hold(fake):
    """A script that keeps the stream open until the test is over or the client leaves."""
    def script(sock):
        sock.sendall(b"ready")
        sock.settimeout(20)
        try:
            while sock.recv(4096):
                pass
        except OSError:
            pass
    return script


# -- run ----------------------------------------------------------------------

def test_run_attaches_and_waits_before_it_starts(isle, fake):
    fake.container(lambda s: s.sendall(frame(1, b"out\n") + frame(2, b"err\n")), status=7)
    done = isle("run", "busybox", "sh", "-c", "exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert fake.order == ["POST /containers/create", "POST /containers/ID/attach",
                          "POST /containers/ID/wait", "POST /containers/ID/start"]
    assert json.loads(fake.calls[0].body)["Cmd"] == ["sh", "-c", "exit 7"]
    assert fake.calls[1].query == {"stream": "1", "stdout": "1", "stderr": "1"}
    assert fake.calls[2].query == {"condition": "next-exit"}


def test_run_rm_waits_for_the_removal(isle, fake):
    fake.container()
    assert isle("run", "--rm", "busybox").returncode == 0
    assert fake.seen("POST", ".*/wait")[0].query == {"condition": "removed"}


def test_run_detached_prints_the_id(isle, fake):
    fake.container()
    done = isle("run", "-d", "--name", "web", "busybox")
    assert (done.returncode, done.stdout) == (0, ID + "\n")
    assert fake.order == ["POST /containers/create", "POST /containers/ID/start"]
    assert fake.calls[0].query == {"name": "web"}
    assert json.loads(fake.calls[0].body)["AttachStdout"] is False


def test_a_lot_of_output_comes_whole(isle, fake):
    data = os.urandom(1 << 20)
    fake.container(lambda s: [s.sendall(frame(1, data)) for _ in range(8)])
    done = isle("run", "busybox", input=b"")
    assert done.stdout == data * 8


def test_the_end_of_standard_input_is_passed_on(isle, fake):
    fake.container(lambda s: s.sendall(frame(1, b"got " + read_until_eof(s))))
    done = isle("run", "-i", "busybox", "cat", input="hello\n")
    assert (done.returncode, done.stdout) == (0, "got hello\n")
    assert fake.seen("POST", ".*/attach")[0].query["stdin"] == "1"


def test_both_directions_flow_at_once(isle, fake):
    def echo(sock):
        while piece := sock.recv(65536):
            sock.sendall(frame(1, piece))
    fake.container(echo)
    data = os.urandom(4 << 20)
    assert isle("run", "-i", "busybox", "cat", input=data).stdout == data


def test_without_i_standard_input_is_left_alone(isle, fake):
    fake.container(lambda s: s.sendall(frame(1, b"done\n")))
    read_end, write_end = os.pipe()
    os.write(write_end, b"mine")
    process = isle.popen("run", "busybox", stdin=read_end, stdout=-1)
    out, _ = process.communicate(timeout=10)
    assert out == b"done\n" and os.read(read_end, 10) == b"mine"
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("stream, wanted", [("stdout", ("out", "")), ("stderr", ("", "err"))])
def test_attach_chooses_streams(isle, fake, stream, wanted):
    fake.container(lambda s: s.sendall(frame(1, b"out") + frame(2, b"err")))
    done = isle("run", "-a", stream, "busybox")
    assert (done.stdout, done.stderr) == wanted


def test_a_stream_cut_within_a_frame_is_an_error(isle, fake):
    fake.container(lambda s: s.sendall(frame(1, b"whole")[:-2]))
    done = isle("run", "busybox")
    assert done.returncode == 125
    assert done.stdout == "who"
    assert "isle: the daemon closed the stream within a frame" in done.stderr


def test_closed_output_ends_it(isle, fake):
    def script(sock):
        for _ in range(1000):
            sock.sendall(frame(1, b"x" * 4096))
    fake.container(script)
    process = isle.popen("run", "busybox", stdout=-1, stderr=-1)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(10) != 0


def test_the_daemon_may_restart_while_the_container_runs(isle, fake):
    """The stream is the monitor's and goes on; the wait is asked again."""
    fake.container(lambda s: s.sendall(frame(1, b"on\n")), status=9)
    waits = []

    def wait(call):
        waits.append(call.query)
        if len(waits) == 1:
            call.stream()  # the head, then the daemon is gone
            call.keep = False
        elif len(waits) < 4:
            call.keep = False  # not there yet
        else:
            call.json({"StatusCode": 9})
    fake.route("POST", f"/containers/{ID}/wait", wait)
    done = isle("run", "busybox")
    assert (done.returncode, done.stdout, done.stderr) == (9, "on\n", "")
    assert len(waits) == 4 and "condition" not in waits[3]


# -- failures of run -----------------------------------------------------------

def test_refused_by_the_daemon(isle, fake):
    fake.route("POST", "/containers/create", lambda c: c.error(409, 'Conflict. The name is taken.'))
    done = isle("run", "busybox")
    assert done.returncode == 125
    assert done.stderr == "isle: Error response from daemon: Conflict. The name is taken.\n"


@pytest.mark.parametrize("message, status", [
    ('exec: "x": executable file not found in $PATH', 127),
    ("stat /x: no such file or directory", 127),
    ("exec /etc/passwd: permission denied", 126),
    ("exec /bin: is a directory", 126),
    ("no space left on device", 125),
])
def test_start_fails(isle, fake, message, status):
    fake.container()
    fake.route("POST", f"/containers/{ID}/start", lambda c: c.error(400, message))
    for arguments in (["run"], ["run", "-d"]):
        done = isle(*arguments, "busybox", "x")
        assert done.returncode == status
        assert done.stderr == f"isle: Error response from daemon: {message}\n"
        assert done.stdout == ""


def test_nobody_listens(isle):
    done = isle("-H", "unix:///nonexistent/s", "run", "busybox")
    assert done.returncode == 125
    assert done.stderr == ("isle: Cannot connect to the Isle daemon at unix:///nonexistent/s. "
                           "Is isled running?\n")
    assert isle("-H", "tcp://127.0.0.1:1", "ps").returncode == 1


def test_missing_image_is_pulled(isle, fake):
    fake.container(lambda s: s.sendall(frame(1, b"ran\n")))
    made = []

    def create(call):
        made.append(call)
        if len(made) == 1:
            call.error(404, "No such image: busybox:latest")
        else:
            call.json({"Id": ID}, 201)
    fake.route("POST", "/containers/create", create)
    fake.route("POST", "/images/create",
               lambda c: c.lines({"status": "Pulling from library/busybox", "id": "latest"}))
    done = isle("run", "busybox")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr == ("Unable to find image 'busybox:latest' locally\n"
                           "latest: Pulling from library/busybox\n")
    assert fake.seen("POST", "/images/create")[0].query == {"fromImage": "busybox", "tag": "latest"}
    assert len(made) == 2


def test_pull_never_and_always(isle, fake):
    fake.container()
    fake.route("POST", "/images/create", lambda c: c.lines({"status": "up to date"}))
    assert isle("run", "--pull", "always", "-q", "busybox").stderr == ""
    assert fake.order[:2] == ["POST /images/create", "POST /containers/create"]
    fake.calls.clear()
    fake.route("POST", "/containers/create", lambda c: c.error(404, "No such image: busybox:latest"))
    done = isle("run", "--pull=never", "busybox")
    assert done.returncode == 125 and "No such image" in done.stderr
    assert fake.order == ["POST /containers/create"]


def test_failing_pull(isle, fake):
    fake.route("POST", "/containers/create", lambda c: c.error(404, "No such image: x:latest"))
    fake.route("POST", "/images/create", lambda c: c.lines(
        {"status": "Pulling"}, {"errorDetail": {"message": "registry is unreachable"},
                                "error": "registry is unreachable"}))
    done = isle("run", "x")
    assert done.returncode == 125
    assert done.stderr.endswith("isle: registry is unreachable\n")


def test_cidfile(isle, fake, tmp_path):
    fake.container()
    path = tmp_path / "cid"
    assert isle("run", "-d", "--cidfile", path, "busybox").returncode == 0
    assert path.read_text() == ID
    fake.calls.clear()
    done = isle("run", "-d", "--cidfile", path, "busybox")
    assert done.returncode == 125 and "container ID file found" in done.stderr
    assert not fake.calls
    fake.route("POST", "/containers/create", lambda c: c.error(500, "no"))
    isle("run", "--cidfile", tmp_path / "other", "busybox")
    assert not (tmp_path / "other").exists()


# -- signals -------------------------------------------------------------------

def test_signals_are_passed_on(isle, fake):
    fake.container(hold(fake), status=143)
    process = isle.popen("run", "busybox", stdout=-1, stderr=-1)
    until(lambda: fake.seen("POST", ".*/start"))
    for signo, name in ((signal.SIGUSR1, "USR1"), (signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")):
        process.send_signal(signo)
        until(lambda: name in [c.query["signal"] for c in fake.seen("POST", ".*/kill")])
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_without_proxy_signals_are_ours(isle, fake):
    fake.container(hold(fake))
    process = isle.popen("run", "--sig-proxy=false", "busybox", stdout=-1, stderr=-1)
    until(lambda: fake.seen("POST", ".*/start"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert not fake.seen("POST", ".*/kill")


# -- terminals -------------------------------------------------------------------

def test_a_terminal_is_needed_for_it(isle, fake):
    fake.container()
    done = isle("run", "-it", "busybox")
    assert (done.returncode, done.stderr) == (1, "the input device is not a TTY\n")
    done = isle("exec", "-it", "web", "sh")
    assert (done.returncode, done.stderr) == (1, "the input device is not a TTY\n")
    assert not fake.calls


def test_terminal_is_raw_meanwhile_and_restored(isle, fake):
    def script(sock):
        sock.sendall(b"prompt>")
        assert sock.recv(10) == b"\x03"  # ^C is a byte, not a signal
        sock.sendall(b"bye\r\n")
    fake.container(script, status=5, tty=True)
    with isle.terminal("run", "-it", "busybox") as t:
        t.expect("prompt>")
        assert t.raw
        t.type(b"\x03")
        t.expect("bye\r\n")
        assert t.wait() == 5
        assert t.restored


def test_sizes_are_told(isle, fake):
    fake.container(hold(fake), tty=True)
    with isle.terminal("run", "-it", "busybox", rows=30, columns=100) as t:
        t.expect("ready")
        sizes = lambda: [(c.query["h"], c.query["w"]) for c in fake.seen("POST", ".*/resize")]
        until(lambda: ("30", "100") in sizes(), what="the first size")
        assert json.loads(fake.calls[0].body)["HostConfig"]["ConsoleSize"] == [30, 100]
        t.size(40, 120)
        until(lambda: ("40", "120") in sizes(), what="the new size")


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV])
def test_terminal_is_restored_when_killed(isle, fake, signo):
    fake.container(hold(fake), tty=True)
    with isle.terminal("run", "-it", "busybox") as t:
        t.expect("ready")
        assert t.raw
        t.stop(signo)
        assert t.wait() in (-signo, -signal.SIGABRT, 1)  # the last two: sanitizers' own handler
        assert t.restored


def test_terminal_is_restored_when_the_daemon_breaks(isle, fake):
    fake.container(lambda s: s.sendall(b"cut"), tty=True)
    fake.route("POST", f"/containers/{ID}/wait", lambda c: c.json(
        {"StatusCode": 0, "Error": {"Message": "broken"}}))
    with isle.terminal("run", "-it", "busybox") as t:
        t.expect("cut")
        assert t.wait() == 125
        assert b"broken" in t.output
        assert t.restored


@pytest.mark.parametrize("option, keys", [([], b"\x10\x11"),
                                          (["--detach-keys", "ctrl-x,x"], b"\x18x")])
def test_detach_keys(isle, fake, option, keys):
    received = []

    def script(sock):
        sock.sendall(b"ready")
        while piece := sock.recv(100):
            received.append(piece)
    fake.container(script, tty=True)
    with isle.terminal("run", "-it", *option, "busybox") as t:
        t.expect("ready")
        t.type(b"ab" + keys[:1] + b"c")
        until(lambda: b"".join(received) == b"ab" + keys[:1] + b"c")
        t.type(keys)
        assert t.wait() == 0
        assert t.restored
    until(fake.exited.is_set)
    assert b"".join(received) == b"ab" + keys[:1] + b"c"


def test_bad_detach_keys(isle, fake):
    done = isle("run", "--detach-keys", "ctrl-%", "busybox")
    assert done.returncode == 125 and "invalid detach keys (ctrl-%)" in done.stderr


# -- attach, start -a ----------------------------------------------------------------

def test_attach(isle, fake):
    started = fake.container(lambda s: s.sendall(frame(1, b"seen\n")), status=4)
    started.set()
    done = isle("attach", "web")
    assert (done.returncode, done.stdout) == (4, "seen\n")


def test_attach_makes_the_program_redraw(isle, fake):
    started = fake.container(hold(fake), tty=True)
    started.set()
    with isle.terminal("attach", "web", rows=30, columns=100) as t:
        t.expect("ready")
        until(lambda: [(c.query["h"], c.query["w"]) for c in fake.seen("POST", ".*/resize")] ==
              [("31", "101"), ("30", "100")])
        t.type(b"\x10\x11")
        t.expect("read escape sequence")
        t.wait()
        assert t.restored


@pytest.mark.parametrize("state, text", [
    ({"Running": False}, "You cannot attach to a stopped container, start it first"),
    ({"Running": True, "Paused": True}, "You cannot attach to a paused container, unpause it first"),
])
def test_attach_needs_a_running_container(isle, fake, state, text):
    fake.route("GET", "/containers/web/json", lambda c: c.json({"Id": ID, "State": state}))
    done = isle("attach", "web")
    assert (done.returncode, done.stderr) == (1, text + "\n")


def test_start_attached(isle, fake):
    fake.container(lambda s: s.sendall(frame(1, b"again\n")), status=6)
    done = isle("start", "-a", "web")
    assert (done.returncode, done.stdout) == (6, "again\n")
    assert fake.order[-1] == "POST /containers/ID/start"


# -- exec -------------------------------------------------------------------------

def exec_routes(fake, script, status):
    fake.route("POST", "/containers/web/exec", lambda c: c.json({"Id": "e1"}, 201))
    fake.route("POST", "/exec/e1/start", lambda c: script(c.hijack()))
    fake.route("POST", "/exec/e1/resize", lambda c: c.empty(200))
    fake.route("GET", "/exec/e1/json", lambda c: c.json({"ExitCode": status, "Running": False}))


def test_exec(isle, fake):
    exec_routes(fake, lambda s: s.sendall(frame(1, b"o") + frame(2, b"e")), 3)
    done = isle("exec", "-e", "A=1", "-w", "/tmp", "-u", "1", "web", "ls", "-l")
    assert (done.returncode, done.stdout, done.stderr) == (3, "o", "e")
    body = json.loads(fake.calls[0].body)
    assert body["Cmd"] == ["ls", "-l"] and body["Env"] == ["A=1"]
    assert body["WorkingDir"] == "/tmp" and body["User"] == "1" and body["AttachStdin"] is False


def test_exec_reads_standard_input(isle, fake):
    exec_routes(fake, lambda s: s.sendall(frame(1, read_until_eof(s))), 0)
    assert isle("exec", "-i", "web", "cat", input="in").stdout == "in"


def test_exec_on_a_terminal(isle, fake):
    def script(sock):
        sock.sendall(b"$ ")
        sock.sendall(sock.recv(10))
    exec_routes(fake, script, 2)
    with isle.terminal("exec", "-it", "web", "sh", rows=11, columns=22) as t:
        t.expect("$ ")
        assert t.raw
        t.type("x")
        assert t.wait() == 2 and t.restored
    assert ("11", "22") in [(c.query["h"], c.query["w"]) for c in fake.seen("POST", ".*/resize")]


def test_exec_detached(isle, fake):
    fake.route("POST", "/containers/web/exec", lambda c: c.json({"Id": "e1"}, 201))
    fake.route("POST", "/exec/e1/start", lambda c: c.empty(200))
    done = isle("exec", "-d", "web", "true")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(fake.calls[1].body)["Detach"] is True


def test_exec_refused(isle, fake):
    fake.route("POST", "/containers/web/exec", lambda c: c.error(409, "container web is not running"))
    done = isle("exec", "web", "true")
    assert (done.returncode, done.stderr) == (
        1, "Error response from daemon: container web is not running\n")


# -- logs ---------------------------------------------------------------------------

def test_logs(isle, fake):
    fake.container()

    def logs(call):
        send = call.stream()
        send(frame(1, b"one\n")[:5])
        send(frame(1, b"one\n")[5:] + frame(2, b"two\n"))
        send(b"")
    fake.route("GET", f"/containers/{ID}/logs", logs)
    done = isle("logs", "-t", "--tail", "5", "--since", "1700000000", "web")
    assert (done.stdout, done.stderr) == ("one\n", "two\n")
    assert fake.seen("GET", ".*/logs")[0].query == {
        "stdout": "1", "stderr": "1", "timestamps": "1", "tail": "5",
        "since": "1700000000.000000000"}


def test_logs_of_a_terminal_are_raw(isle, fake):
    fake.container(tty=True)
    fake.route("GET", f"/containers/{ID}/logs",
               lambda c: c.raw(200, {"Content-Length": 5}, b"raw\r\n"))
    done = isle("logs", "web", input=b"")
    assert done.stdout == b"raw\r\n"


def test_followed_logs_end_with_their_reader(isle, fake):
    fake.container()

    def logs(call):
        send = call.stream()
        for _ in range(100000):
            send(frame(1, b"line\n"))
    fake.route("GET", f"/containers/{ID}/logs", logs)
    process = isle.popen("logs", "-f", "web", stdout=-1, stderr=-1)
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.wait(10) == 1


# -- images -------------------------------------------------------------------------

def test_pull_prints_lines_where_there_is_no_terminal(isle, fake):
    fake.route("POST", "/images/create", lambda c: c.lines(
        {"status": "Pulling from library/x", "id": "latest"},
        {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "id": "aa"},
        {"status": "Pull complete", "progressDetail": {}, "id": "aa"},
        {"status": "Status: Downloaded newer image for x:latest"}))
    done = isle("pull", "x")
    assert done.stdout == ("Using default tag: latest\nlatest: Pulling from library/x\n"
                           "aa: Pull complete\nStatus: Downloaded newer image for x:latest\n"
                           "docker.io/library/x:latest\n")
    assert isle("pull", "-q", "x").stdout == "docker.io/library/x:latest\n"


def test_pull_draws_bars_on_a_terminal(isle, fake):
    fake.route("POST", "/images/create", lambda c: c.lines(
        {"status": "Pulling", "progressDetail": {"current": 500, "total": 1000}, "id": "aa"}))
    with isle.terminal("pull", "x:1", columns=130) as t:
        t.expect("[=========================>                         ]     500B/1kB")
        assert t.wait() == 0


def test_logins_are_sent(isle, fake, tmp_path):
    seen = []
    fake.route("POST", "/auth", lambda c: c.json({"Status": "Login Succeeded"}))
    fake.route("POST", "/images/create", lambda c: (
        seen.append(json.loads(base64.urlsafe_b64decode(c.headers["x-registry-auth"]))),
        c.lines({"status": "ok"})))
    done = isle("login", "-u", "me", "--password-stdin", "localhost:5000", input="secret\n")
    assert (done.returncode, done.stdout) == (0, "Login Succeeded\n")
    path = tmp_path / ".isle/config.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {
        "auths": {"localhost:5000": {"auth": base64.b64encode(b"me:secret").decode()}}}
    isle("pull", "-q", "localhost:5000/x")
    isle("pull", "-q", "other/x")
    assert seen == [{"username": "me", "password": "secret", "serveraddress": "localhost:5000"}, {}]
    assert "Removing login credentials for localhost:5000" in isle("logout", "localhost:5000").stdout
    assert json.loads(path.read_text()) == {"auths": {}}


def test_docker_s_logins_and_helpers_are_read(isle, fake, tmp_path):
    seen = []
    fake.route("POST", "/images/create", lambda c: (
        seen.append(json.loads(base64.urlsafe_b64decode(c.headers["x-registry-auth"]))),
        c.lines({"status": "ok"})))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({
        "auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"a:b:c").decode()}},
        "credHelpers": {"r.example": "test"}}))
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread server\nprintf \'{"Username":"u","Secret":"%s"}\' "$server"\n')
    helper.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    isle("pull", "-q", "busybox", env=path)
    isle("pull", "-q", "r.example/x", env=path)
    assert [(s["username"], s["password"]) for s in seen] == [("a", "b:c"), ("u", "r.example")]


def test_load_streams_standard_input(isle, fake):
    fake.route("POST", "/images/load", lambda c: c.lines({"stream": "Loaded image: x:1\n"}))
    data = os.urandom(3 << 20)
    done = isle("load", input=data)
    assert done.stdout == b"Loaded image: x:1\n"
    assert fake.calls[0].body == data


def test_save_writes_whole_files_only(isle, fake, tmp_path):
    path = tmp_path / "x.tar"
    fake.route("GET", "/images/get", lambda c: c.raw(200, {"Content-Length": 4}, b"tar!"))
    assert isle("save", "-o", path, "a", "b").returncode == 0
    assert path.read_bytes() == b"tar!"

    def cut(call):
        call.raw(200, {"Content-Length": 100}, b"half")
        call.keep = False
    fake.route("GET", "/images/get", cut)
    assert isle("save", "-o", path, "a").returncode == 1
    assert path.read_bytes() == b"tar!" and [p.name for p in tmp_path.glob("x*")] == ["x.tar"]
    with isle.terminal("save", "a") as t:
        t.expect("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        assert t.wait() == 1


def test_full_output_is_an_error(isle, fake):
    fake.route("GET", "/containers/json", lambda c: c.json([]))
    with open("/dev/full", "w") as full:
        process = isle.popen("ps", stdout=full, stderr=-1)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert b"write to standard output: No space left on device" in errors


# -- several objects ------------------------------------------------------------------

def test_several_are_stopped_at_once(isle, fake):
    barrier = threading.Barrier(3, timeout=5)

    def stop(call):
        barrier.wait()  # passes only when all three are under way
        call.empty()
    fake.route("POST", "/containers/[abc]/stop", stop)
    done = isle("stop", "-t", "3", "a", "b", "c")
    assert (done.returncode, done.stdout) == (0, "a\nb\nc\n")
    assert {c.query["t"] for c in fake.calls} == {"3"}


def test_one_that_fails_does_not_hold_the_others(isle, fake):
    fake.route("DELETE", "/containers/[abc]", lambda c: c.error(404, "No such container: b")
               if c.path.endswith("b") else c.empty())
    done = isle("rm", "a", "b", "c")
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "a\nc\n", "Error response from daemon: No such container: b\n")
    assert isle("rm", "-f", "b").returncode == 0


def test_wait_prints_statuses(isle, fake):
    fake.route("POST", "/containers/[ab]/wait", lambda c: c.json(
        {"StatusCode": 3 if "a" in c.path.split("/")[2] else 137}))
    assert isle("wait", "a", "b").stdout == "3\n137\n"
