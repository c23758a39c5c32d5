"""One more process in a running container."""
import json
import os
import subprocess

import pytest

from tests.lib.runtime import ConsoleSocket, cgroups_of, is_alive, read_terminal, wait_until


@pytest.fixture
def running(runtime, bundle):
    return runtime.start_detached(bundle.set_args("sleep", "1000"))


def test_exec_is_in_the_containers_namespaces_and_cgroups(runtime, running):
    out = runtime.call("exec", running, "sh", "-c",
                       "hostname; cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/self/cgroup; "
                       "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done"
                       ).stdout.splitlines()
    assert out[0] == "isle-test"
    assert out[1] == "sleep 1000 "
    pid = runtime.pid(running)
    host = [os.readlink(f"/proc/{pid}/ns/{n}") for n in ("pid", "net", "ipc", "uts", "mnt",
                                                         "cgroup")]
    assert out[-6:] == host
    assert f"/{running}" in "".join(out)


def test_exit_codes(runtime, running):
    assert runtime.call("exec", running, "sh", "-c", "exit 9", check=False).returncode == 9
    assert runtime.call("exec", running, "sh", "-c", "kill -9 $$", check=False).returncode == 137


def test_errors_have_code_255(runtime, running):
    error = runtime.fails("exec", running, "nonexistent", code=255)
    assert "executable file `nonexistent` not found in $PATH" in error
    error = runtime.fails("exec", "--cwd", "/not/there", running, "true", code=255)
    assert "/not/there" in error
    assert "container does not exist" in runtime.fails("exec", "nobody", "true", code=255)
    runtime.call("kill", running, "KILL")
    runtime.wait_status(running, "stopped")
    assert "cannot exec in a stopped container" in runtime.fails("exec", running, "true", code=255)


def test_streams(runtime, running):
    done = runtime.call("exec", running, "sh", "-c", "cat; echo err >&2", input="in")
    assert (done.stdout, done.stderr) == ("in", "err\n")


def test_flags(runtime, running):
    out = runtime.call("exec", "--cwd", "/tmp", "--env", "A=1", "-e", "B=2", "--user", "12:34",
                       "-g", "55", "--cap", "CAP_NET_RAW", running, "sh", "-c",
                       "pwd; echo $A$B; id -u; id -g; id -G; grep CapBnd /proc/self/status"
                       ).stdout.splitlines()
    assert out[:4] == ["/tmp", "12", "12", "34"]
    assert "55" in out[4].split()
    assert int(out[5].split()[1], 16) >> 13 & 1


def test_process_file(runtime, running, tmp_path):
    process = {"terminal": False, "user": {"uid": 7, "gid": 8}, "cwd": "/tmp",
               "args": ["sh", "-c", "id -u; echo $X; pwd"], "env": ["PATH=/bin", "X=y"]}
    path = tmp_path / "process.json"
    path.write_text(json.dumps(process))
    assert runtime.call("exec", "--process", path, running).stdout == "7\ny\n/tmp\n"
    path.write_text(json.dumps({"args": ["true"]}))
    assert "cwd" in runtime.fails("exec", "--process", path, running, code=255)
    path.write_text("{")
    assert str(path) in runtime.fails("exec", "--process", path, running, code=255)


def test_detached_exec_writes_its_pid(runtime, running, tmp_path):
    pid_file = tmp_path / "pid"
    subprocess.run(runtime.command("exec", "--detach", "--pid-file", pid_file, running, "sleep",
                                   "77"), check=True, stdout=subprocess.DEVNULL, timeout=30)
    pid = int(pid_file.read_text())
    assert is_alive(pid)
    assert cgroups_of(pid)["memory"] == cgroups_of(runtime.pid(running))["memory"]
    runtime.call("kill", running, "KILL")
    wait_until(lambda: not is_alive(pid), what="the exec'ed process to die with the container")


def test_terminal(runtime, running, tmp_path):
    console = ConsoleSocket(tmp_path / "console")
    process = runtime.popen("exec", "--tty", "--detach", "--console-socket", console.path, running,
                            "sh", "-c", "tty; read x; echo got $x")
    _, master = console.receive()
    assert process.wait(10) == 0
    read_terminal(master, "/dev/pts/0")
    os.write(master, b"typed\n")
    assert "got typed" in read_terminal(master, "got typed")
    os.close(master)


def test_terminal_in_the_foreground(runtime, running):
    import pty
    master, slave = pty.openpty()
    process = runtime.popen("exec", "-t", running, "sh", "-c", "tty; exit 6", stdin=slave,
                            stdout=slave, stderr=slave)
    os.close(slave)
    read_terminal(master, "/dev/pts/")
    assert process.wait(10) == 6
    os.close(master)


def test_nothing_is_inherited(runtime, running):
    read_end, write_end = os.pipe()
    out = runtime.call("exec", running, "sh", "-c", "ls /proc/self/fd | wc -l",
                       pass_fds=(read_end, write_end)).stdout
    os.close(read_end)
    os.close(write_end)
    assert int(out) == 4


def test_paused_container(runtime, running):
    runtime.call("pause", running)
    assert "paused" in runtime.fails("exec", running, "true", code=255)
    process = runtime.popen("exec", "--ignore-paused", running, "true")
    runtime.call("resume", running)
    assert process.wait(10) == 0


def test_many_at_once(runtime, running):
    processes = [runtime.popen("exec", running, "sh", "-c", f"exit {n}") for n in range(12)]
    assert [p.wait(20) for p in processes] == list(range(12))


def test_exec_in_a_container_of_the_hosts_namespaces(runtime, bundle):
    for kind in ("pid", "network", "ipc", "uts"):
        bundle.namespace(kind, present=False)
    del bundle.config["hostname"]
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    assert runtime.call("exec", id, "hostname").stdout.strip() == os.uname().nodename


def test_seccomp_holds_for_exec(runtime, bundle):
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    error = runtime.fails("exec", id, "mkdir", "/tmp/x")
    assert "Function not implemented" in error
