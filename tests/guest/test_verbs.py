"""Every verb of `isle` on an instance of either kind. What can share one instance does: `box` is
one that runs as long as the cases of its kind."""
import json
import os
import re
import subprocess
import time

import pytest

from tests.cli.terminal import Terminal
from tests.lib import vm
from tests.lib.daemon import Daemon, program, until

LOOP = "while :; do sleep 0.02; done"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("isled"),
                env={"ISLE_VM_KERNEL": str(vm.debian_kernel())}) as d:
        d.load_busybox()
        yield d


@pytest.fixture(scope="module", params=["container", "vm"])
def kind(request):
    return request.param


class Isle:
    """The command line, which asks for one kind."""

    def __init__(self, daemon, kind):
        self.daemon, self.kind = daemon, kind

    def command(self, verb, *args):
        makes = ["--vm"] if self.kind == "vm" and verb in ("run", "create") else []
        return [program("isle"), "-H", self.daemon.host, verb, *makes, *map(str, args)]

    def __call__(self, *args, check=True, **how):
        how.setdefault("stdin", None if "input" in how else subprocess.DEVNULL)
        done = subprocess.run(self.command(*args), capture_output=True, text=True, timeout=60,
                              check=False, **how)
        assert not check or done.returncode == 0, (args, done)
        return done

    def out(self, *args, **how):
        return self(*args, **how).stdout.rstrip("\n")

    def state(self, name, field="Status"):
        return self.out("inspect", "-f", "{{.State." + field + "}}", name)

    def ended(self, name):
        until(lambda: self.state(name) == "exited", 30, lambda: f"the end of {name}")

    def says(self, name, text):
        until(lambda: text in self.out("logs", name), 30, lambda: f"{text!r} from {name}")


@pytest.fixture(scope="module")
def isle(daemon, kind):
    return Isle(daemon, kind)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def box(isle, kind, shared):
    name = f"box-{kind}"
    isle("run", "-d", "-i", "--name", name, "--hostname", "island", "-m", "96m", "--cpus", "2",
         "--pids-limit", "40", "-e", "A=two words", "-w", "/made/here", "-u", "0:2000", "--group-add",
         "777", "-v", f"{shared}:/bind", "-v", f"{shared}:/fixed:ro", "-v", "verbs:/vol", "--tmpfs",
         "/scratch:size=1m", "--shm-size", "5m", "--ulimit", "nofile=123:456", "--sysctl",
         "net.ipv4.ip_forward=1", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt",
         "no-new-privileges", "--network", "none", "busybox", "sh", "-c",
         'echo "$A|$PWD|$(id -u):$(id -G)|$(hostname)"; '
         'while read line; do echo "out $line"; echo "err $line" >&2; done')
    yield name
    isle("rm", "-f", name)
    isle("volume", "rm", "verbs")


@pytest.fixture(autouse=True)
def nothing_left(daemon):
    yield
    left = [c for c in daemon.get("/containers/json?all=1").json
            if not c["Names"][0].startswith("/box-")]
    for c in left:
        daemon.delete(f"/containers/{c['Id']}?force=1&v=1")
    assert not left, f"containers left behind: {[c['Names'] for c in left]}"


# --- what it is given -------------------------------------------------------------------

def test_process_is_as_asked(isle, box):
    isle.says(box, "island")
    assert isle.out("logs", box).splitlines()[0] == "two words|/made/here|0:2000 777|island"
    shown = isle.out("exec", box, "sh", "-c", "ulimit -n; ulimit -Hn; cat /etc/hostname "
                     "/proc/sys/net/ipv4/ip_forward; grep -e CapEff -e NoNewPrivs -e Seccomp: "
                     "/proc/self/status").split("\n")
    assert shown[:4] == ["123", "456", "island", "1"]
    assert [line.split()[1] for line in shown[4:]] == ["0000000000000001", "1", "2"]


def test_bind_mounts_are_live_both_ways(isle, box, shared):
    isle("exec", box, "sh", "-c", "echo in > /bind/a")
    assert (shared / "a").read_text() == "in\n"
    (shared / "b").write_text("out\n")
    assert isle.out("exec", box, "cat", "/bind/b", "/fixed/b") == "out\nout"
    (shared / "b").write_text("longer than before\n")
    assert isle.out("exec", box, "cat", "/bind/b") == "longer than before"
    assert "Read-only" in isle("exec", box, "touch", "/fixed/c", check=False).stderr
    (shared / "b").unlink()
    assert isle("exec", box, "test", "-e", "/fixed/b", check=False).returncode == 1


def test_volumes_and_tmpfs(isle, box, daemon):
    isle("exec", box, "sh", "-c", "echo kept > /vol/f; echo t > /scratch/f")
    place = json.loads(isle.out("volume", "inspect", "verbs"))[0]["Mountpoint"]
    with open(os.path.join(place, "f"), encoding="ascii") as file:
        assert file.read() == "kept\n"
    mounts = isle.out("exec", box, "cat", "/proc/mounts").splitlines()
    assert any(line.startswith("tmpfs /scratch tmpfs") and "size=1024k" in line for line in mounts)
    assert any(" /dev/shm " in line and "size=5120k" in line for line in mounts)
    assert "No space" in isle("exec", box, "dd", "if=/dev/zero", "of=/scratch/g", "bs=1M", "count=2",
                              check=False).stderr


def test_limits(isle, box, kind):
    """They are those of the group inside, and a machine is as large as they say."""
    assert isle("exec", box, "tail", "/dev/zero", check=False).returncode == 137
    assert isle.state(box) == "running"
    if kind == "vm":
        assert isle.out("exec", box, "nproc") == "2"
        kib = int(isle.out("exec", box, "awk", "/MemTotal/ { print $2 }", "/proc/meminfo"))
        assert 96 << 10 < kib < 160 << 10
        assert isle.out("exec", box, "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"
                        ) == f"{96 << 20}\n40"


def test_network_none(isle, box):
    assert isle.out("exec", box, "ls", "/sys/class/net") == "lo"
    assert "127.0.0.1" in isle.out("exec", box, "ip", "-o", "address")
    assert "127.0.0.1\tlocalhost" in isle.out("exec", box, "cat", "/etc/hosts")


@pytest.mark.parametrize("flags, text", [
    (["-p", "8080:80"], "publishing ports"),
    (["--network", "mine"], "mine"),
])
def test_what_no_kind_has_yet_is_refused(isle, flags, text):
    done = isle("run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125 and text in done.stderr


# --- looking at it ----------------------------------------------------------------------

def test_exec(isle, box):
    done = isle("exec", "-i", "-e", "B=b", "-w", "/tmp", "-u", "app", box, "sh", "-c",
                'cat; echo "$A $B $PWD $(id -u)"; echo err >&2; exit 9', input="in\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\ntwo words b /tmp 1000\n", "err\n")
    assert isle("exec", box, "nonexistent", check=False).returncode == 127
    assert isle("exec", box, "/etc/passwd", check=False).returncode == 126
    assert isle.out("exec", "-d", box, "touch", "/scratch/detached") == ""
    until(lambda: isle("exec", box, "test", "-e", "/scratch/detached", check=False).returncode == 0)


def test_exec_on_a_terminal(isle, box):
    script = "trap 'echo now $(stty size)' WINCH; trap 'exit 5' INT; stty size; echo armed; " + LOOP
    with Terminal(isle.command("exec", "-it", box, "sh", "-c", script), 30, 100) as t:
        assert t.expect("armed\r\n", 30) == b"30 100\r\n"
        t.size(40, 120)
        t.expect("now 40 120\r\n")
        t.type("\x03")
        assert t.wait() == 5 and t.restored


def test_attach_and_logs(isle, box):
    process = subprocess.Popen(isle.command("attach", box), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    follower = subprocess.Popen(isle.command("logs", "-f", box), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.readline() == "out one\n"
        assert process.stderr.readline() == "err one\n"
        isle.says(box, "out one")
        process.stdin.write("two\n")
        process.stdin.flush()
        assert [follower.stdout.readline() for _ in range(3)][1:] == ["out one\n", "out two\n"]
    finally:
        for it in (process, follower):
            it.kill()
            it.communicate()
    done = isle("logs", "--tail", "4", box)
    assert done.stdout == "out one\nout two\n" and done.stderr == "err one\nerr two\n"
    stamped = isle.out("logs", "-t", "--tail", "1", box) or isle("logs", "-t", "--tail", "1", box).stderr
    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z (out|err) two", stamped)
    assert isle.state(box) == "running"


def test_top_and_stats(isle, box):
    assert "read line" in isle.out("top", box)
    row = json.loads(isle.out("stats", "--no-stream", "--format", "{{json .}}", box))
    assert row["Name"] == box and re.fullmatch(r"[\d.]+%", row["CPUPerc"])
    assert int(row["PIDs"]) > 0 and not row["MemUsage"].startswith("0B")


def test_copies_of_trees(isle, box, tmp_path):
    """In and out, also by mounts, and while it is paused."""
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("content")
    os.symlink("deep/file", tmp_path / "tree" / "link")
    isle("cp", tmp_path / "tree", f"{box}:/root")
    assert isle.out("exec", box, "cat", "/root/tree/link") == "content"
    isle("exec", box, "sh", "-c", "echo more > /root/tree/deep/more")
    isle("pause", box)
    isle("cp", f"{box}:/root/tree", tmp_path / "back")
    isle("unpause", box)
    assert (tmp_path / "back" / "deep" / "more").read_text() == "more\n"
    assert os.readlink(tmp_path / "back" / "link") == "deep/file"
    isle("cp", tmp_path / "tree" / "deep" / "file", f"{box}:/vol/copied")
    assert isle.out("exec", box, "cat", "/vol/copied") == "content"
    changes = isle.out("diff", box).splitlines()
    assert "A /root/tree/deep/more" in changes and not any("/vol/" in c for c in changes)
    tar = subprocess.run(isle.command("export", box), stdout=subprocess.PIPE, check=True).stdout
    assert b"root/tree/deep/more" in tar


def test_pause(isle, box, shared):
    isle("exec", "-d", box, "sh", "-c", "while :; do date +%s > /bind/beat.new && mv /bind/beat.new "
         "/bind/beat; sleep 0.02; done")
    until(lambda: (shared / "beat").exists(), 20, lambda: "its first beat")
    isle("pause", box)
    assert isle.state(box) == "paused" and "(Paused)" in isle.out("ps", "--format", "{{.Status}}")
    before = (shared / "beat").stat().st_ino
    end = time.monotonic() + 0.3
    until(lambda: time.monotonic() > end)
    assert (shared / "beat").stat().st_ino == before
    assert "paused" in isle("exec", box, "true", check=False).stderr
    isle("unpause", box)
    until(lambda: (shared / "beat").stat().st_ino != before, 20, lambda: "its next beat")
    isle("exec", box, "sh", "-c", "for p in /proc/[0-9]*; do grep -q beat $p/cmdline && "
         "[ ${p#/proc/} != $$ ] && kill -9 ${p#/proc/}; done; true")


def test_the_daemon_goes_and_comes(isle, box, daemon):
    """What runs is not touched by it."""
    pid = isle.state(box, "Pid")
    daemon.restart()
    assert isle.state(box, "Pid") == pid and isle.state(box) == "running"
    assert isle.out("exec", box, "echo", "on") == "on"
    daemon.kill()
    daemon.start()
    assert isle.state(box, "Pid") == pid
    assert isle("exec", "-i", box, "cat", input="again").stdout == "again"


# --- its life ---------------------------------------------------------------------------

def test_terminal_detach_and_attach(isle):
    with Terminal(isle.command("run", "-it", "--name", "tty", "busybox", "sh"), 30, 100) as t:
        t.expect("# ", 30)
        t.type("stty size; test -t 0 -a -t 1 -a -t 2 && echo all-$((1+1))\n")
        t.expect("\r\n30 100\r\nall-2\r\n")
        t.type("\x10\x11")  # ctrl-p ctrl-q
        assert t.wait() == 0 and t.restored
    assert isle.state("tty") == "running"
    with Terminal(isle.command("attach", "tty"), 50, 90) as t:
        t.type("echo again-$(stty size)\n")
        t.expect("again-50 90", 20)
        t.type("exit 6\n")
        assert t.wait() == 6
    assert isle.out("wait", "tty") == "6"
    isle("rm", "tty")


def test_signals_and_stops(isle):
    """One that counts what it gets; its stop signal; then its timeout."""
    isle("run", "-d", "--name", "sig", "--stop-signal", "USR2", "busybox", "sh", "-c",
         "trap 'echo hup' HUP; trap 'echo usr2' USR2; trap 'echo int; exit 3' INT; echo ready; " + LOOP)
    isle.says("sig", "ready")
    isle("kill", "-s", "HUP", "sig")
    isle.says("sig", "hup")
    begin = time.monotonic()
    isle("stop", "-t", "1", "sig")
    assert time.monotonic() - begin >= 1
    assert isle.out("logs", "sig") == "ready\nhup\nusr2"
    assert isle.state("sig", "ExitCode") == "137" and isle.state("sig", "OOMKilled") == "false"
    assert "is not running" in isle("kill", "sig", check=False).stderr
    isle("start", "sig")
    until(lambda: isle.out("logs", "sig").count("ready") == 2, 30)
    isle("kill", "-s", "INT", "sig")
    assert isle.out("wait", "sig") == "3"
    isle("rename", "sig", "named")
    isle("rm", "named")


def test_events_of_a_life(isle):
    begin = time.time()
    isle("run", "--name", "life", "--label", "a=b", "busybox", "sh", "-c", "exit 3", check=False)
    isle("rm", "life")
    lines = isle.out("events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}", "--filter",
                     "container=life", "--format", "{{json .}}").splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["Action"] for e in events] == ["create", "attach", "start", "die", "destroy"]
    assert events[3]["Actor"]["Attributes"]["exitCode"] == "3"


# --- its health -------------------------------------------------------------------------

class Healths:
    """What the health of an instance becomes, as its events tell, and what they told of checks."""

    def __init__(self, isle, name):
        self.isle, self.begin, self.filter = isle, time.time(), ["--filter", f"container={name}"]

    def __enter__(self):
        # One that never comes is an end of the stream, not a test that hangs.
        self.process = subprocess.Popen(
            self.isle.command("events", "--since", f"{self.begin:.9f}", "--until",
                              f"{self.begin + 60:.9f}", *self.filter, "--filter",
                              "event=health_status", "--format", "{{.Action}}"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.communicate()

    def next(self):
        return self.process.stdout.readline().strip()

    def checks(self, since):
        return [a.split(":")[0] for a in self.isle.out(
            "events", "--since", f"{since:.9f}", "--until", f"{time.time():.9f}", *self.filter,
            "--format", "{{.Action}}").splitlines() if a.startswith("exec_")]


def health_of(isle, name):
    return json.loads(isle.out("inspect", "-f", "{{json .State.Health}}", name))


def test_health_follows_what_the_check_finds(isle):
    with Healths(isle, "fit") as healths:
        isle("run", "-d", "--name", "fit", "-u", "app", "-e", "A=b", "-w", "/tmp", "--health-cmd",
             'echo "$A $PWD $(id -u)"; ls /sick >&2 && exit 7; true', "--health-interval", "50ms",
             "--health-retries", "2", "busybox", "sleep", "1000")
        assert healths.next() == "health_status: healthy"
        health = health_of(isle, "fit")
        assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
        first = health["Log"][0]
        assert first["ExitCode"] == 0 and first["Start"] < first["End"]
        assert sorted(first["Output"].splitlines()) == ["b /tmp 1000", "ls: /sick: No such file or directory"]
        assert "(healthy)" in isle.out("ps", "--filter", "health=healthy", "--format", "{{.Status}}")
        assert healths.checks(healths.begin)[:3] == ["exec_create", "exec_start", "exec_die"]
        isle("exec", "-u", "0", "fit", "touch", "/sick")
        assert healths.next() == "health_status: unhealthy"
        assert "(unhealthy)" in isle.out("ps", "--filter", "name=fit", "--format", "{{.Status}}")
        until(lambda: health_of(isle, "fit")["FailingStreak"] > 5, 30)
        health = health_of(isle, "fit")
        assert [r["ExitCode"] for r in health["Log"]] == [7] * 5
        isle("exec", "-u", "0", "fit", "rm", "/sick")
        assert healths.next() == "health_status: healthy"
        isle("restart", "-t", "0", "fit")  # and it is starting again
        assert healths.next() == "health_status: healthy"
        isle("stop", "-t", "0", "fit")
        assert health_of(isle, "fit")["Status"] == "unhealthy"  # as docker's
        assert isle.out("ps", "-aq", "--filter", "health=healthy") == ""
    isle("rm", "fit")


def test_a_check_that_takes_too_long_is_killed(isle, box):
    """With what it started. Nobody's health is that of one without a check."""
    with Healths(isle, "slow") as healths:
        isle("run", "-d", "--name", "slow", "--health-cmd", "echo begun; sleep 999; echo never",
             "--health-interval", "20ms", "--health-timeout", "500ms", "--health-retries", "2",
             "busybox", "sleep", "1000")
        assert healths.next() == "health_status: unhealthy"
        until(lambda: health_of(isle, "slow")["FailingStreak"] >= 3, 30)
        log = health_of(isle, "slow")["Log"]
        assert {r["ExitCode"] for r in log} == {-1}
        assert "Health check exceeded timeout (500ms): begun\n" in [r["Output"] for r in log]
        count = ["exec", "slow", "sh", "-c", "grep -l '^sleep.999' /proc/[0-9]*/cmdline | wc -l"]
        until(lambda: int(isle.out(*count)) <= 1, 20, lambda: "no more than the check under way")
    isle("rm", "-f", "slow")
    assert isle.out("inspect", "-f", "{{if .State.Health}}some{{else}}none{{end}}", box) == "none"
    assert box in isle.out("ps", "--filter", "health=none", "--format", "{{.Names}}")


def test_a_paused_instance_is_not_checked(isle):
    with Healths(isle, "rests") as healths:
        isle("run", "-d", "--name", "rests", "--health-cmd", "true", "--health-interval", "10ms",
             "busybox", "sleep", "1000")
        assert healths.next() == "health_status: healthy"
        isle("pause", "rests")
        since = time.time()
        until(lambda: time.time() > since + 0.3)
        assert "exec_create" not in healths.checks(since)
        health = health_of(isle, "rests")
        assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
        since = time.time()
        isle("unpause", "rests")
        until(lambda: "exec_die" in healths.checks(since), 30, lambda: "a check")
    isle("rm", "-f", "rests")


def test_an_instance_that_is_stopped_is_not_checked(isle):
    """What fails while it shuts down says nothing."""
    with Healths(isle, "stops") as healths:
        isle("run", "-d", "--name", "stops", "--health-cmd", "test ! -e /down", "--health-interval",
             "50ms", "--health-retries", "1", "busybox", "sh", "-c",
             "trap 'touch /down' TERM; " + LOOP)
        assert healths.next() == "health_status: healthy"
        isle("stop", "-t", "1", "stops")
        isle("start", "stops")  # /down is still there
        assert healths.next() == "health_status: unhealthy"
        ends = isle.out("events", "--since", f"{healths.begin:.9f}", "--until", f"{time.time():.9f}",
                        *healths.filter, "--filter", "event=die", "--filter", "event=health_status",
                        "--format", "{{.Action}}").splitlines()
        assert ends == ["health_status: healthy", "die", "health_status: unhealthy"]
    isle("rm", "-f", "stops")


def test_checks_go_on_with_the_next_daemon(isle, daemon):
    """Which ends the one that was under way: nobody waits for it."""
    pids = ["exec", "goes-on", "cat", "/pids"]
    isle("run", "-d", "--name", "goes-on", "--health-cmd", "echo $$ >> /pids; exec sleep 999",
         "--health-interval", "20ms", "busybox", "sleep", "1000")
    until(lambda: isle(*pids, check=False).stdout, 30, lambda: "the first check")
    daemon.kill()
    daemon.start()
    until(lambda: len(isle.out(*pids).split()) == 2, 30, lambda: "the check after")
    first, second = isle.out(*pids).split()
    until(lambda: isle.out("exec", "goes-on", "sh", "-c", f"cat /proc/{first}/cmdline; true") == "",
          30, lambda: "the end of the first check")
    assert "sleep" in isle.out("exec", "goes-on", "cat", f"/proc/{second}/cmdline")
    assert health_of(isle, "goes-on") == {"Status": "starting", "FailingStreak": 0, "Log": []}
    isle("rm", "-f", "goes-on")
    until(lambda: not os.listdir(daemon.run / "execs"), 20, lambda: os.listdir(daemon.run / "execs"))


def test_restart_policies(isle):
    isle("run", "-d", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c",
         "echo run; exit 1")
    isle("run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c",
         "echo up; exec sleep 1000")
    isle.says("always", "up")
    os.kill(int(isle.state("always", "Pid")), 9)
    until(lambda: isle.out("logs", "always") == "up\nup", 30, lambda: "its second run")
    isle("stop", "-t", "0", "always")
    until(lambda: isle.state("fails") == "exited", 30, lambda: "the last attempt")
    assert isle.out("logs", "fails") == "run\nrun\nrun"
    assert isle.out("inspect", "-f", "{{.RestartCount}}", "fails") == "2"
    assert isle.state("always") == "exited"
    isle("rm", "fails", "always")


def test_out_of_memory(isle):
    """Of the first process and of another one; both are told as such."""
    begin = time.time()
    isle("run", "--name", "first", "-m", "32m", "busybox", "tail", "/dev/zero", check=False)
    assert isle.state("first", "ExitCode") == "137" and isle.state("first", "OOMKilled") == "true"
    isle("run", "-d", "--name", "other", "-m", "32m", "--pids-limit", "6", "busybox", "sh", "-c",
         "tail /dev/zero; (for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done); echo went on; exec sleep 1000")
    isle.says("other", "went on")
    assert "can't fork" in isle("logs", "other").stderr

    def ooms():
        return isle.out("events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}",
                        "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}").split()
    until(lambda: ooms() == ["first", "other"], 20, ooms())
    assert isle.state("other") == "running"
    isle("rm", "-f", "first", "other")


def test_images_of_instances(isle):
    """What was written is in an export, which is an image again."""
    isle("run", "--name", "made", "busybox", "sh", "-c", "echo inside > /made")
    tar = subprocess.run(isle.command("export", "made"), stdout=subprocess.PIPE, check=True).stdout
    done = subprocess.run(isle.command("import", "-", "again:1"), input=tar, capture_output=True,
                          check=False)
    assert done.returncode == 0, done
    assert isle.out("run", "--rm", "again:1", "cat", "/made") == "inside"
    isle("rmi", "again:1")
    isle("rm", "made")
