"""Every verb of the runtime interface, in order and out of order."""
import json
import os
import signal
import subprocess
import time

import pytest

from tests.lib.runtime import cgroups_of, cgroup_dir, is_alive, wait_until


def test_run_gives_the_exit_code_and_leaves_nothing(runtime, bundle, leaks):
    assert runtime.run(bundle.sh("exit 0")).returncode == 0
    assert runtime.run(bundle.sh("exit 7"), check=False).returncode == 7
    assert runtime.run(bundle.sh("kill -9 $$; sleep 9"), check=False).returncode in (0, 137)
    leaks.check()


def test_run_passes_standard_streams(runtime, bundle):
    done = runtime.run(bundle.sh("cat; echo error >&2"), input="through")
    assert done.stdout == "through"
    assert done.stderr == "error\n"


def test_create_start_kill_delete(runtime, bundle, leaks):
    id = runtime.create(bundle.set_args("sleep", "1000"))
    state = runtime.state(id)
    assert state["status"] == "created"
    assert state["id"] == id
    assert state["bundle"] == str(bundle.path)
    assert state["rootfs"] == str(bundle.rootfs)
    assert is_alive(state["pid"])
    assert os.readlink(f"/proc/{state['pid']}/root") == "/"
    runtime.call("start", id)
    assert runtime.status(id) == "running"
    wait_until(lambda: b"sleep" in open(f"/proc/{state['pid']}/cmdline", "rb").read(),
               what="the program")
    runtime.call("kill", id, "KILL")
    runtime.wait_status(id, "stopped")
    assert runtime.state(id)["pid"] == 0
    runtime.call("delete", id)
    assert "container does not exist" in runtime.fails("state", id, code=1)
    leaks.check()


def test_created_container_can_be_deleted_at_once(runtime, bundle, leaks):
    id = runtime.create(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    runtime.call("delete", id)
    assert not is_alive(pid)
    leaks.check()


def test_verbs_refuse_what_the_state_forbids(runtime, bundle):
    id = runtime.create(bundle.set_args("sleep", "1000"))
    assert "not stopped" not in runtime.fails("resume", id)
    runtime.call("start", id)
    assert "cannot start an already running container" in runtime.fails("start", id, code=1)
    error = runtime.fails("delete", id, code=1)
    assert f"cannot delete container {id} that is not stopped: running" in error
    assert "container with given ID already exists" in runtime.fails(
        "run", "--bundle", bundle.path, id, code=1)
    runtime.call("kill", id, "SIGKILL")
    runtime.wait_status(id, "stopped")
    assert "cannot start a container that has stopped" in runtime.fails("start", id, code=1)
    assert "container not running" in runtime.fails("kill", id, "TERM", code=1)
    assert "container not running" in runtime.fails("pause", id, code=1)
    runtime.call("delete", id)


@pytest.mark.parametrize("verb", ["state", "start", "delete", "pause", "resume", "ps"])
def test_missing_container_is_said_to_be_missing(runtime, verb):
    assert "container does not exist" in runtime.fails(verb, "nobody", code=1)


def test_forced_delete_of_a_missing_container_is_fine(runtime):
    runtime.call("delete", "--force", "nobody")


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "a b", "x" * 256])
def test_ids_that_are_not_names_are_refused(runtime, bundle, id):
    bundle.write()
    error = runtime.fails("run", "--bundle", bundle.path, id, code=1)
    assert "container" in error and ("invalid" in error or "empty" in error)


def test_forced_delete_kills_a_running_container(runtime, bundle, leaks):
    id = runtime.start_detached(bundle.sh("trap '' TERM; while :; do sleep 1; done"))
    pid = runtime.pid(id)
    runtime.call("delete", "--force", id)
    assert not is_alive(pid)
    leaks.check()


def test_kill_understands_names_and_numbers(runtime, bundle):
    bundle.sh("trap 'echo usr1 >> /out' USR1; trap 'echo usr2 >> /out' USR2; echo up >> /out; "
              "while :; do sleep 0.05; done")
    bundle.config["root"]["readonly"] = False
    id = runtime.start_detached(bundle)
    out = bundle.rootfs / "out"
    wait_until(out.exists, what="traps")
    for name, said in (("USR1", "usr1"), ("SIGUSR2", "usr2"), (str(int(signal.SIGUSR1)), "usr1")):
        before = out.read_text().count(said)
        runtime.call("kill", id, name)
        wait_until(lambda: out.read_text().count(said) > before, what=name)
    assert 'unknown signal "NONSENSE"' in runtime.fails("kill", id, "NONSENSE")


def test_kill_all_reaches_processes_that_outlive_the_first(runtime, bundle, leaks):
    bundle.namespace("pid", present=False)
    id = runtime.start_detached(bundle.sh("sleep 1000 & sleep 1001 & wait"))
    pids = wait_until(lambda: (lambda p: p if len(p) == 3 else None)(
        json.loads(runtime.call("ps", "--format", "json", id).stdout)), what="three processes")
    runtime.call("kill", "--all", id, "KILL")
    wait_until(lambda: not any(map(is_alive, pids)), what="all to die")
    runtime.call("delete", id)
    leaks.check()


def test_list_shows_all(runtime, bundle):
    assert runtime.call("list", "--quiet").stdout == ""
    first = runtime.start_detached(bundle.set_args("sleep", "1000"))
    second = runtime.create(bundle)
    assert runtime.call("list", "-q").stdout.split() == sorted([first, second])
    rows = {row["id"]: row for row in json.loads(runtime.call("list", "--format", "json").stdout)}
    assert rows[first]["status"] == "running"
    assert rows[second]["status"] == "created"
    table = runtime.call("list").stdout.splitlines()
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert len(table) == 3


def test_pause_and_resume(runtime, bundle):
    id = runtime.start_detached(bundle.sh("while :; do :; done"))
    pid = runtime.pid(id)
    runtime.call("pause", id)
    assert runtime.status(id) == "paused"
    used = open(f"/proc/{pid}/stat").read().split()[13]
    time.sleep(0.1)  # not a synchronisation: time in which nothing may happen
    assert open(f"/proc/{pid}/stat").read().split()[13] == used
    assert "cannot exec in a paused container" in runtime.fails("exec", id, "true", code=255)
    runtime.call("resume", id)
    assert runtime.status(id) == "running"
    assert "container not paused" in runtime.fails("resume", id, code=1)


def test_a_paused_container_dies_when_killed(runtime, bundle, leaks):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    runtime.call("pause", id)
    runtime.call("kill", id, "KILL")
    runtime.wait_status(id, "stopped")
    runtime.call("delete", id)
    leaks.check()


def test_a_paused_container_can_be_deleted_by_force(runtime, bundle, leaks):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    runtime.call("pause", id)
    runtime.call("delete", "--force", id)
    leaks.check()


def test_ps_lists_only_the_container(runtime, bundle):
    id = runtime.start_detached(bundle.sh("sleep 1234 & sleep 4321 & wait"))
    wait_until(lambda: len(json.loads(runtime.call("ps", "-f", "json", id).stdout)) == 3,
               what="processes")
    lines = runtime.call("ps", id).stdout.splitlines()
    assert "PID" in lines[0]
    assert len(lines) == 4
    lines = runtime.call("ps", id, "-o", "pid,args").stdout.splitlines()
    assert any("sleep 1234" in line for line in lines)


def test_foreground_run_forwards_signals(runtime, bundle):
    bundle.sh("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done").write()
    process = runtime.popen("run", "--bundle", bundle.path, runtime.new_id(),
                            stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(10) == 42


def test_pid_file_names_the_first_process(runtime, bundle, tmp_path):
    pid_file = tmp_path / "pid"
    id = runtime.start_detached(bundle.set_args("sleep", "1000"), "--pid-file", pid_file)
    assert int(pid_file.read_text()) == runtime.pid(id)


def test_relative_paths_count_from_where_the_runtime_was_called(runtime, bundle, tmp_path):
    bundle.set_args("true").write()
    runtime.call("run", "--bundle", "bundle", "--pid-file", "relative-pid", runtime.new_id(),
                 cwd=tmp_path)
    assert (tmp_path / "relative-pid").exists()


def test_keep_leaves_the_stopped_container(runtime, bundle):
    id = runtime.new_id()
    runtime.run(bundle.set_args("true"), "--keep", id=id)
    assert runtime.status(id) == "stopped"


def test_annotations_come_back_in_the_state(runtime, bundle):
    bundle.config["annotations"] = {"org.example.key": "value = with equals", "a=b": "c"}
    id = runtime.create(bundle.set_args("true"))
    assert runtime.state(id)["annotations"] == bundle.config["annotations"]


def test_update_changes_limits_while_running(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    runtime.call("update", "--memory", "64M", "--pids-limit", "20", id)
    groups = cgroups_of(pid)
    assert cgroup_dir("memory", groups["memory"]).joinpath(
        "memory.limit_in_bytes").read_text().strip() == str(64 << 20)
    assert cgroup_dir("pids", groups["pids"]).joinpath("pids.max").read_text().strip() == "20"
    # A hierarchy that the container did not need before is joined.
    assert groups["cpu"] == "/"
    resources = {"cpu": {"shares": 512, "quota": 20000, "period": 100000}}
    runtime.call("update", "--resources", "-", id, input=json.dumps(resources))
    groups = cgroups_of(pid)
    cpu = cgroup_dir("cpu", groups["cpu"])
    assert groups["cpu"] != "/"
    assert cpu.joinpath("cpu.shares").read_text().strip() == "512"
    assert cpu.joinpath("cpu.cfs_quota_us").read_text().strip() == "20000"
    runtime.call("delete", "--force", id)
    assert not cpu.exists()


def test_events_stats(runtime, bundle):
    id = runtime.start_detached(bundle.sh("while :; do :; done"))
    event = json.loads(runtime.call("events", "--stats", id).stdout)
    assert event["type"] == "stats" and event["id"] == id
    assert event["data"]["pids"]["current"] >= 1
    assert event["data"]["memory"]["usage"]["usage"] > 0


def test_events_stream_ends_with_the_container(runtime, bundle):
    id = runtime.start_detached(bundle.sh("while :; do :; done"))
    process = runtime.popen("events", "--interval", "50ms", id, stdout=subprocess.PIPE, text=True)
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    assert second["data"]["cpu"]["usage"]["total"] >= first["data"]["cpu"]["usage"]["total"]
    runtime.call("kill", id, "KILL")
    assert process.wait(10) == 0


def test_oom_is_an_event(runtime, bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 8 << 20, "swap": 8 << 20}
    id = runtime.start_detached(
        bundle.sh("while [ ! -e /dev/shm/go ]; do sleep 0.02; done; "
                  "(dd if=/dev/zero of=/dev/shm/x bs=1M count=32); sleep 1000"))
    process = runtime.popen("events", "--interval", "20ms", id, stdout=subprocess.PIPE, text=True)
    assert json.loads(process.stdout.readline())["type"] == "stats"
    runtime.call("exec", id, "touch", "/dev/shm/go")
    wait_until(lambda: json.loads(process.stdout.readline())["type"] == "oom", 10, "an oom event")


def test_spec_writes_a_config_that_runs(runtime, tmp_path, rootfs_template):
    bundle = tmp_path / "spec"
    bundle.mkdir()
    runtime.call("spec", "--bundle", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["echo", "from the spec"]
    config["root"]["path"] = str(rootfs_template)
    assert "exists. Remove it first" in runtime.fails("spec", "--bundle", bundle)
    (bundle / "config.json").write_text(json.dumps(config))
    done = runtime.call("run", "--bundle", bundle, runtime.new_id())
    assert done.stdout == "from the spec\n"


def test_features_tell_the_truth_about_namespaces(runtime):
    features = json.loads(runtime.call("features").stdout)
    assert set(features["linux"]["namespaces"]) >= {"pid", "network", "mount", "ipc", "uts",
                                                    "user", "cgroup", "time"}
    assert "ro" in features["mountOptions"] and "rro" in features["mountOptions"]
    assert "createContainer" in features["hooks"]
    assert features["ociVersionMax"] == "1.3.0"


def test_version_and_help(runtime):
    assert "spec: 1.3.0" in runtime.call("--version").stdout
    assert "create" in runtime.call("--help").stdout
    assert "Usage" in runtime.call("run", "--help").stdout


def test_delete_by_regular_expression(runtime, bundle):
    ids = [runtime.start_detached(bundle.set_args("sleep", "1000")) for n in range(3)]
    runtime.call("delete", "--force", "--regex", f"^({ids[0]}|{ids[1]})$")
    assert runtime.call("list", "-q").stdout.split() == [ids[2]]
    assert "not a regular expression" in runtime.fails("delete", "--regex", "(", code=1)


def test_container_without_a_process(runtime, bundle, leaks, tmp_path):
    """The specification wants one only when start is called, which is an error then."""
    process = bundle.config.pop("process")
    error = runtime.run(bundle, check=False).stderr
    assert 'config.json has no "process"' in error
    id = runtime.create(bundle)
    assert runtime.status(id) == "created"
    assert "--process" in runtime.fails("exec", id, "true")
    (tmp_path / "process.json").write_text(json.dumps({**process, "args": ["echo", "in"]}))
    assert runtime.call("exec", "--process", tmp_path / "process.json", id).stdout == "in\n"
    assert 'config.json has no "process"' in runtime.fails("start", id)
    runtime.wait_status(id, "stopped")
    runtime.call("delete", id)
    leaks.check()


def test_kill_by_an_expression(runtime, bundle):
    ids = [runtime.start_detached(bundle.sh("sleep 1000")) for _ in range(3)]
    runtime.call("kill", ids[0], "KILL")
    runtime.wait_status(ids[0], "stopped")
    done = runtime.call("kill", "--regex", f"^({ids[0]}|{ids[1]})$", "KILL")
    runtime.wait_status(ids[1], "stopped")
    assert f"kill {ids[0]}: " in done.stderr  # told, and no reason to leave the other alone
    assert runtime.status(ids[2]) == "running"
    assert "not a regular expression" in runtime.fails("kill", "--regex", "(", "KILL", code=1)


def test_specification_in_another_file(runtime, tmp_path):
    runtime.call("spec", "--bundle", tmp_path, "--file", "other.json")
    assert [p.name for p in tmp_path.glob("*.json")] == ["other.json"]
    assert json.loads((tmp_path / "other.json").read_text())["process"]["args"] == ["sh"]
    error = runtime.fails("spec", "--bundle", tmp_path, "-f", "other.json")
    assert "File other.json exists" in error
