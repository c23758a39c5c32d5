"""Hooks: order, place, state on standard input, failure, time limits."""
import json
import os
import subprocess

import pytest

from tests.lib.runtime import wait_until

ORDER = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "hooks.log"
    path.write_text("")
    return path


@pytest.fixture
def hook(tmp_path, log):
    """A program that writes its name, its state and its namespace into the log."""
    script = tmp_path / "hook.sh"
    script.write_text('#!/bin/sh\nstate=$(cat)\n'
                      f'echo "$1|$(readlink /proc/self/ns/mnt)|$state" >> {log}\n')
    script.chmod(0o755)
    return script


def entries(log):
    result = []
    for line in log.read_text().splitlines():
        name, namespace, state = line.split("|", 2)
        result.append((name, namespace, json.loads(state)))
    return result


def test_order_and_state(runtime, bundle, hook, log):
    hooks = {name: [{"path": str(hook), "args": ["hook", name]}] for name in ORDER}
    # This one runs inside the container: what it needs must be there.
    bundle.config["root"]["readonly"] = False
    hooks["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /state-at-start"]}]
    bundle.config["hooks"] = hooks
    bundle.config["annotations"] = {"key": "value"}
    id = runtime.create(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    host = os.readlink("/proc/self/ns/mnt")
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    seen = entries(log)
    assert [e[0] for e in seen] == ["prestart", "createRuntime", "createContainer"]
    assert [e[1] for e in seen] == [host, host, inside]
    for name, _, state in seen:
        assert state["id"] == id and state["pid"] == pid
        assert state["status"] == ("created" if name == "prestart" else "creating")
        assert state["bundle"] == str(bundle.path)
        assert state["annotations"] == {"key": "value"}
        assert state["ociVersion"]
    assert not (bundle.rootfs / "state-at-start").exists()
    runtime.call("start", id)
    assert json.loads((bundle.rootfs / "state-at-start").read_text())["status"] == "created"
    assert entries(log)[-1][0] == "poststart"
    assert entries(log)[-1][2]["status"] == "running"
    runtime.call("kill", id, "KILL")
    runtime.wait_status(id, "stopped")
    runtime.call("delete", id)
    assert entries(log)[-1][0] == "poststop"
    assert entries(log)[-1][2]["status"] == "stopped"
    assert [e[0] for e in entries(log)].count("poststop") == 1


def test_run_calls_them_all(runtime, bundle, hook, log):
    names = [n for n in ORDER if n != "startContainer"]
    bundle.config["hooks"] = {n: [{"path": str(hook), "args": ["hook", n]}] * 2 for n in names}
    runtime.run(bundle.set_args("true"))
    assert [e[0] for e in entries(log)] == [n for n in names for _ in range(2)]


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
def test_failing_hook_stops_the_creation(runtime, bundle, leaks, name):
    bundle.config["hooks"] = {name: [{"path": "/bin/sh", "args": [
        "sh", "-c", "echo what went wrong >&2; exit 3"]}]}
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert f"error running hook {name} #0" in error
    assert "exit status 3" in error and "what went wrong" in error
    leaks.check()


def test_failing_start_container_hook(runtime, bundle, leaks):
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    id = runtime.create(bundle.set_args("sleep", "1000"))
    assert "hook startContainer #0" in runtime.fails("start", id, code=1)
    runtime.wait_status(id, "stopped")
    runtime.call("delete", id)
    leaks.check()


def test_time_limit(runtime, bundle, leaks):
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"],
                                                 "timeout": 1}]}
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1,
                          timeout=20)
    assert "hook ran past specified timeout of 1s" in error
    leaks.check()


def test_environment_of_hooks(runtime, bundle, tmp_path):
    out = tmp_path / "env"
    bundle.config["hooks"] = {"createRuntime": [{
        "path": "/bin/sh", "args": ["sh", "-c", f"env > {out}"], "env": ["ONLY=this"]}]}
    runtime.run(bundle.set_args("true"))
    env = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert env["ONLY"] == "this" and "HOME" not in env


def test_hooks_inherit_no_descriptors(runtime, bundle, tmp_path):
    out = tmp_path / "fds"
    bundle.config["hooks"] = {name: [{"path": "/bin/sh", "args": [
        "sh", "-c", f"ls /proc/self/fd | wc -l >> {out}"]}] for name in ORDER if name !=
        "startContainer"}
    runtime.run(bundle.set_args("true"))
    assert set(out.read_text().split()) == {"4"}


def test_network_can_be_set_up_by_a_hook(runtime, bundle):
    """What engines do: the hook finds the network namespace by the pid."""
    bundle.config["hooks"] = {"createRuntime": [{
        "path": "/bin/sh", "args": ["sh", "-c",
                                    "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); "
                                    "ip link add islehook0 netns $pid type veth peer name "
                                    "islehook1"], "env": ["PATH=/usr/sbin:/sbin:/usr/bin:/bin"]}]}
    try:
        assert "islehook0" in runtime.output(bundle.sh("ip link"))
    finally:
        subprocess.run(["ip", "link", "del", "islehook1"], stderr=subprocess.DEVNULL, check=False)


def test_a_hanging_hook_does_not_keep_the_container_alive(runtime, bundle, leaks, tmp_path):
    started = tmp_path / "started"
    bundle.config["hooks"] = {"createRuntime": [{
        "path": "/bin/sh", "args": ["sh", "-c", f"echo $$ > {started}; exec sleep 1000"]}]}
    bundle.write()
    id = runtime.new_id()
    process = runtime.popen("create", "--bundle", bundle.path, id)
    wait_until(lambda: started.exists() and started.read_text().strip(), what="the hook")
    assert runtime.status(id) == "creating"
    process.kill()
    process.wait()
    runtime.call("delete", "--force", id)
    os.kill(int(started.read_text()), 9)
    leaks.check()


def test_create_container_hooks_begin_in_the_root_file_system(runtime, bundle, tmp_path):
    """As with other runtimes; hook libraries rely on relative names."""
    bundle.config["hooks"] = {"createContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", f"pwd > {tmp_path}/where; touch ./made-by-hook"]}]}
    bundle.config["root"]["readonly"] = False
    runtime.run(bundle.set_args("true"))
    assert (bundle.rootfs / "made-by-hook").exists()


def test_start_container_hooks_have_no_more_rights_than_the_program(runtime, bundle):
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]}
    bundle.config["hooks"] = {"startContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/shm/foo"]}]}
    error = runtime.fails("run", "--bundle", bundle.set_args("true").write().path,
                          runtime.new_id(), code=1)
    assert "error running hook startContainer #0" in error
    bundle.config["linux"].pop("seccomp")
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.config["hooks"]["startContainer"][0]["args"][2] = "test $(id -u) = 1000"
    runtime.run(bundle)


def test_failing_poststop_hooks_are_warnings(runtime, bundle, tmp_path):
    bundle.config["hooks"] = {"poststop": [
        {"path": "/bin/false"}, {"path": "/bin/sh", "args": ["sh", "-c", f"touch {tmp_path}/ran"]}]}
    done = runtime.run(bundle.set_args("true"))
    assert "poststop hook failed with exit code" in done.stderr
    assert "error running hook poststop #0" in done.stderr
    assert (tmp_path / "ran").exists()


def test_failing_poststart_hook_ends_the_container(runtime, bundle, tmp_path, leaks):
    """The specification: an error, the container is stopped, and its end is gone through."""
    bundle.config["hooks"] = {
        "poststart": [{"path": "/bin/false"}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo x >> {tmp_path}/told"]}]}
    id = runtime.create(bundle.set_args("sleep", "1000"))
    assert "hook poststart #0" in runtime.fails("start", id, code=1)
    assert "does not exist" in runtime.fails("state", id, code=1)
    runtime.fails("run", "--bundle", bundle.path, runtime.new_id(), code=1)
    assert (tmp_path / "told").read_text() == "x\nx\n"
    leaks.check()


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "poststart", "poststop"])
def test_output_of_hooks_goes_where_annotations_say(runtime, bundle, tmp_path, name):
    out, errors = tmp_path / "out", tmp_path / "errors"
    out.write_text("before\n")
    bundle.config["hooks"] = {name: [{"path": "/bin/sh",
                                      "args": ["sh", "-c", "echo said; echo wrong >&2"]}]}
    bundle.config["annotations"] = {"run.oci.hooks.stdout": str(out),
                                    "run.oci.hooks.stderr": str(errors)}
    runtime.run(bundle)
    assert out.read_text() == "before\nsaid\n"
    assert errors.read_text() == "wrong\n"


def test_output_of_hooks_that_cannot_be_kept(runtime, bundle, leaks):
    bundle.config["hooks"] = {"prestart": [{"path": "/bin/true"}]}
    bundle.config["annotations"] = {"run.oci.hooks.stdout": "/nowhere/at/all"}
    error = runtime.run(bundle, check=False).stderr
    assert "open '/nowhere/at/all' of the annotation run.oci.hooks.stdout" in error
    leaks.check()
