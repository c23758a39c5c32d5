"""The same bundle and the same commands, as a container and in a virtual machine."""
import json
import os
import subprocess
import time

import pytest

from tests.lib.runtime import ConsoleSocket, is_alive, read_terminal, wait_until


def test_streams_and_exit_code(runtime, bundle):
    done = runtime.run(bundle.sh("cat; echo err >&2; exit 7"), check=False, input="in")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in", "err\n")


def test_large_streams_arrive_whole(runtime, bundle):
    text = "0123456789abcdef" * (1 << 16)
    done = runtime.run(bundle.sh("cat; cat /proc/version >&2"), input=text)
    assert done.stdout == text
    assert "Linux" in done.stderr


def test_the_kernel_is_another_only_in_a_machine(runtime, bundle, kind):
    same = runtime.output(bundle.set_args("uname", "-r")).strip() == os.uname().release
    assert same == (kind == "container")


def test_process_is_what_the_spec_says(runtime, bundle):
    process = bundle.config["process"]
    process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10]}
    process["env"].append("COLOUR=blue")
    process["cwd"] = "/tmp"
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 50}]
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
    out = runtime.output(bundle.sh(
        "id -u; id -G; echo $COLOUR; pwd; ulimit -n; hostname; mkdir /tmp/d 2>&1;"
        "grep -e CapEff -e NoNewPrivs -e Seccomp: /proc/self/status; echo $$")).splitlines()
    assert out[:6] == ["1000", "1000 10", "blue", "/tmp", "50", "isle-test"]
    assert "not supported" in out[6]
    assert [line.split()[1] for line in out[7:10]] == ["0000000000000000", "1", "2"]
    assert out[10] == "1"


def test_created_started_killed_deleted(runtime, bundle):
    id = runtime.create(bundle.set_args("sleep", "1000"))
    assert runtime.status(id) == "created"
    pid = runtime.pid(id)
    runtime.call("start", id)
    assert runtime.status(id) == "running"
    assert "cannot delete" in runtime.fails("delete", id)
    runtime.call("kill", id, "KILL")
    runtime.wait_status(id, "stopped")
    assert not is_alive(pid)
    runtime.call("delete", id)
    assert "does not exist" in runtime.fails("state", id)


def test_signals_reach_the_program(runtime, bundle, tmp_path):
    bundle.sh("trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.01; done").write()
    id = runtime.new_id()
    process = runtime.popen("run", "--bundle", bundle.path, id, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    runtime.call("kill", id, "USR1")
    assert process.stdout.readline() == "got\n"
    assert process.wait(10) == 3
    process.stdout.close()


def test_program_that_is_not_there(runtime, bundle):
    bundle.set_args("nonexistent").write()
    error = runtime.fails("create", "--bundle", bundle.path, runtime.new_id())
    assert "executable file `nonexistent` not found in $PATH" in error


def test_root_file_system_is_the_bundles(runtime, bundle):
    (bundle.rootfs / "etc" / "given").write_text("from outside\n")
    bundle.config["root"]["readonly"] = False
    sets = bundle.config["process"]["capabilities"]
    for name in sets:
        sets[name] = sets[name] + ["CAP_CHOWN", "CAP_FOWNER"]
    out = runtime.output(bundle.sh("cat /etc/given; echo inside > /etc/made; chown 5:6 /etc/made;"
                                   "chmod 640 /etc/made; ln -s made /etc/link; mknod /etc/p p"))
    assert out == "from outside\n"
    made = bundle.rootfs / "etc" / "made"
    assert made.read_text() == "inside\n"
    assert (made.stat().st_uid, made.stat().st_gid, made.stat().st_mode & 0o777) == (5, 6, 0o640)
    assert os.readlink(bundle.rootfs / "etc" / "link") == "made"
    assert (bundle.rootfs / "etc" / "p").is_fifo()


def test_read_only_root(runtime, bundle):
    assert "Read-only file system" in runtime.run(bundle.sh("echo x > /etc/made"),
                                                  check=False).stderr
    assert not (bundle.rootfs / "etc" / "made").exists()


def test_read_only_root_gets_mount_points(runtime, bundle, tmp_path):
    """They are made before, for a machine on the host; a link leads nowhere out of the root."""
    (tmp_path / "file").write_text("content")
    (bundle.rootfs / "link").symlink_to("/../../../../../tmp")
    bundle.mount("/new/deep", tmp_path, "bind", ["bind", "ro"])
    bundle.mount("/etc/single", tmp_path / "file", "bind", ["bind", "ro"])
    bundle.mount("/link/scratch", "tmpfs", "tmpfs")
    bundle.sh("cat /new/deep/file /etc/single; touch /link/scratch/x && touch /new/x")
    done = runtime.run(bundle, check=False)
    assert done.stdout == "contentcontent" and "/new/x: Read-only file system" in done.stderr
    assert (bundle.rootfs / "tmp" / "scratch").is_dir() and not os.path.exists("/tmp/scratch")


def test_volumes_are_live_both_ways(runtime, bundle, tmp_path):
    shared, single = tmp_path / "shared", tmp_path / "single"
    shared.mkdir()
    single.write_text("one file\n")
    bundle.mount("/data", shared, "bind", ["rbind", "rw"])
    bundle.mount("/etc/single", single, "bind", ["bind", "ro"])
    bundle.mount("/scratch", "tmpfs", "tmpfs", ["size=1m"])
    bundle.config["root"]["readonly"] = False
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    assert runtime.call("exec", id, "cat", "/etc/single").stdout == "one file\n"
    assert "Read-only" in runtime.fails("exec", id, "sh", "-c", "echo x > /etc/single")
    runtime.call("exec", id, "sh", "-c", "echo in > /data/a; echo t > /scratch/t")
    assert (shared / "a").read_text() == "in\n"
    (shared / "b").write_text("out\n")
    assert runtime.call("exec", id, "cat", "/data/b").stdout == "out\n"
    assert runtime.call("exec", id, "cat", "/scratch/t").stdout == "t\n"


def test_exec(runtime, running):
    done = runtime.call("exec", running, "sh", "-c", "cat; echo err >&2; exit 9", input="in",
                        check=False)
    assert (done.returncode, done.stdout, done.stderr) == (9, "in", "err\n")
    out = runtime.call("exec", "--cwd", "/tmp", "--env", "A=1", "--user", "12:34", running, "sh",
                       "-c", "pwd; echo $A; id -u; id -g; cat /proc/1/cmdline").stdout
    assert out == "/tmp\n1\n12\n34\nsleep\x001000\x00"
    error = runtime.fails("exec", running, "nonexistent", code=255)
    assert "executable file `nonexistent` not found in $PATH" in error


def test_exec_of_a_process_file(runtime, running, tmp_path):
    process = {"user": {"uid": 3, "gid": 4}, "args": ["sh", "-c", "id -u; pwd"], "cwd": "/etc",
               "env": ["PATH=/bin"]}
    (tmp_path / "process.json").write_text(json.dumps(process))
    out = runtime.call("exec", "--process", tmp_path / "process.json", running).stdout
    assert out == "3\n/etc\n"


def test_detached_exec(runtime, running, tmp_path):
    """The caller, as a monitor does, sees a process that ends as the one inside does."""
    pid_file = tmp_path / "pid"
    with open(tmp_path / "out", "wb") as out:
        subprocess.run(runtime.command("exec", "--detach", "--pid-file", pid_file, running, "sh",
                                       "-c", "echo here; while ! test -e /tmp/go; do sleep 0.01; "
                                       "done; echo gone"),
                       check=True, stdin=subprocess.DEVNULL, stdout=out, timeout=30)
    pid = int(pid_file.read_text())
    wait_until(lambda: (tmp_path / "out").read_text() == "here\n", 10, "its output")
    assert is_alive(pid)
    runtime.call("exec", running, "touch", "/tmp/go")
    wait_until(lambda: not is_alive(pid), 10, "its end")
    assert (tmp_path / "out").read_text() == "here\ngone\n"


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_terminal(runtime, bundle, tmp_path, verb):
    script = "tty; stty size; read line; echo =$line=; exec sleep 1000"
    console = ConsoleSocket(tmp_path / "console.sock")
    bundle.config["process"]["terminal"] = verb == "create"
    bundle.config["process"]["consoleSize"] = {"height": 30, "width": 100}
    if verb == "create":
        id = runtime.create(bundle.sh(script), "--console-socket", console.path)
        runtime.call("start", id)
    else:
        id = runtime.start_detached(bundle.set_args("sleep", "1000"))
        runtime.call("exec", "--detach", "--tty", "--console-socket", console.path, id, "sh",
                     "-c", script)
    _, master = console.receive()
    console.close()
    seen = read_terminal(master, "\n")
    assert "/dev/pts/" in seen or "/dev/console" in seen
    os.write(master, b"hello\n")
    assert "=hello=" in read_terminal(master, "=hello=")
    os.close(master)


def test_pause_and_resume(runtime, running):
    runtime.call("pause", running)
    assert runtime.status(running) == "paused"
    assert "paused" in runtime.fails("exec", running, "true")
    runtime.call("resume", running)
    assert runtime.call("exec", running, "echo", "on").stdout == "on\n"


def test_limit_of_processes(runtime, bundle):
    bundle.config["linux"]["resources"]["pids"] = {"limit": 6}
    out = runtime.run(bundle.sh("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"), check=False)
    assert "can't fork" in out.stderr


def test_out_of_memory_kills_the_program_not_the_host(runtime, bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 32 << 20}
    done = runtime.run(bundle.set_args("sh", "-c", "tail /dev/zero; echo ended with $?"),
                       check=False)
    assert done.stdout == "ended with 137\n"


def test_death_of_the_first_process_leaves_nothing(runtime, running):
    """kill -9 from outside, of what stands for the container."""
    pid = runtime.pid(running)
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True,
                              check=False).stdout.split()
    os.kill(pid, 9)
    runtime.wait_status(running, "stopped")
    wait_until(lambda: not any(is_alive(int(child)) for child in children), 10, "their end")
    runtime.call("delete", running)


def test_hooks_run_outside_but_for_the_last(runtime, bundle, tmp_path):
    log = tmp_path / "log"

    def hook(name):
        return [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {name} >> {log}"]}]
    bundle.config["root"]["readonly"] = False
    bundle.config["hooks"] = {name: hook(name) for name in
                              ("prestart", "createRuntime", "poststart", "poststop")}
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "echo inside > /etc/hook"]}]
    runtime.run(bundle.set_args("cat", "/etc/hook"))
    assert log.read_text().split() == ["prestart", "createRuntime", "poststart", "poststop"]
    assert (bundle.rootfs / "etc" / "hook").read_text() == "inside\n"


def test_processes(runtime, bundle, kind):
    """ps shows the container's own: in the table those inside, in JSON what the host can see."""
    bundle.sh("sleep 1001 & exec sleep 1000")
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    id = runtime.start_detached(bundle)

    def rows(*options):
        lines = runtime.call("ps", id, *options).stdout.splitlines()
        return [line.split(None, len(lines[0].split()) - 1) for line in lines]

    wait_until(lambda: sorted(row[-1] for row in rows()) == ["CMD", "sleep 1000", "sleep 1001"], 10,
               "both")
    assert rows()[0] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert "USER" in rows("aux")[0] and len(rows("aux")) == 3
    titles, first, second = rows("-eo", "pid,ppid,rss,args")
    assert titles[:3] == ["PID", "PPID", "RSS"] and second[1] == first[0]
    assert all(int(row[2]) > 0 for row in (first, second))
    pids = json.loads(runtime.call("ps", "--format", "json", id).stdout)
    assert runtime.pid(id) in pids and all(is_alive(pid) for pid in pids)
    if kind == "vm":
        assert first[0] == "1" and first[3] == "sleep 1000"
        assert "column 'wchan' is not known" in runtime.fails("ps", id, "-eo", "pid,wchan")
        runtime.call("pause", id)
        assert "a paused virtual machine cannot be asked" in runtime.fails("ps", id)
        runtime.call("resume", id)
        assert len(rows()) == 3


def test_processes_with_names_that_are_no_text(runtime, bundle, kind):
    """A program chooses its arguments."""
    bundle.set_args("sh", "-c", "sleep 1000 & wait", "a\033[2J\nb")
    id = runtime.start_detached(bundle)
    wait_until(lambda: "sleep 1000" in runtime.call("ps", id).stdout.splitlines()[-1], 10, "both")
    shown = runtime.call("ps", id).stdout
    assert "\033" not in shown and len(shown.splitlines()) == 3
    if kind == "vm":
        assert shown.splitlines()[1].endswith(" sh -c sleep 1000 & wait a?[2J?b")


@pytest.mark.parametrize("kind", ["vm"], indirect=True)  # a container's clock is the host's
def test_clock_that_is_wrong_is_set_after_a_pause(runtime, bundle):
    for capabilities in bundle.config["process"]["capabilities"].values():
        capabilities.append("CAP_SYS_TIME")
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    assert runtime.call("exec", id, "uname", "-r").stdout.strip() != os.uname().release

    def inside_s():
        return int(runtime.call("exec", id, "date", "+%s").stdout)

    for wrong in (1_000_000_000, 4_000_000_000):
        runtime.call("exec", id, "date", "-s", f"@{wrong}")
        assert abs(inside_s() - wrong) < 100
        runtime.call("pause", id)
        runtime.call("resume", id)
        wait_until(lambda: abs(inside_s() - time.time()) < 2, 20, "the host's time")


def test_clock_after_a_pause(runtime, running):
    """The first look at it is right: time has passed for those inside, too."""
    asked = runtime.popen("exec", running, "sh", "-c", "while read line; do adjtimex; done",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def error_s():
        before = time.time()
        asked.stdin.write("now\n")
        asked.stdin.flush()
        values = {}
        while "time.tv_usec" not in values:  # BusyBox prints the seconds first
            name, _, value = asked.stdout.readline().partition(":")
            values[name.strip()] = value.split()[0] if value.split() else ""
        inside = int(values["time.tv_sec"]) + int(values["time.tv_usec"]) / 1e6
        return max(before - inside, inside - time.time(), 0)

    assert error_s() < 0.3
    runtime.call("pause", running)
    end = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > end, 5, "time to pass")
    runtime.call("resume", running)
    assert error_s() < 0.3
