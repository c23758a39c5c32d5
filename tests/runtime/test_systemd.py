"""The systemd cgroup driver, with a real systemd."""
import subprocess

import pytest

from tests.lib.runtime import cgroup_dir, cgroups_of, is_alive, wait_until
from tests.lib.systemd import Systemd
from tests.runtime.stops import kill_at


@pytest.fixture(scope="module")
def manager():
    systemd = Systemd()
    yield systemd
    systemd.close()


@pytest.fixture
def systemd(manager, runtime, monkeypatch):
    """Our runtime speaks to the manager, and afterwards nothing of ours is left there."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.address)
    plain = runtime.command
    runtime.command = lambda verb, *args: [*plain()[:1], "--systemd-cgroup", *plain(verb, *args)[1:]]
    yield manager
    runtime.cleanup()
    assert manager.scopes() == set()


def start(runtime, bundle, path, **resources):
    bundle.config["linux"]["cgroupsPath"] = path
    bundle.config["linux"]["resources"].update(resources)
    return runtime.start_detached(bundle.set_args("sleep", "1000"))


def test_run_in_a_scope_leaves_nothing(systemd, runtime, bundle, leaks):
    id = runtime.new_id()
    text = runtime.output(bundle.set_args("cat", "/proc/self/cgroup"), id=id)
    scope = f"/{systemd.name}/system.slice/isle-{id}.scope"
    groups = dict(line.split(":")[1:] for line in text.splitlines())
    for name in ("name=systemd", "", "memory", "pids", "freezer"):
        assert groups[name] == scope
    leaks.check()
    assert systemd.scopes() == set()


def test_slice_prefix_and_name(systemd, runtime, bundle):
    id = start(runtime, bundle, "a-b.slice:test:one+two")
    unit = "test-one\\x2btwo.scope"
    group = f"/{systemd.name}/a.slice/a-b.slice/{unit}"
    shown = systemd.show(unit)
    assert shown["ControlGroup"] == group and shown["Slice"] == "a-b.slice"
    assert shown["Delegate"] == "yes" and id in shown["Description"]
    assert cgroups_of(runtime.pid(id))["name=systemd"] == group


def test_no_prefix(systemd, runtime, bundle):
    start(runtime, bundle, "a.slice::alone")
    assert "alone.scope" in systemd.scopes()


def test_limits_are_properties_and_files(systemd, runtime, bundle):
    id = start(runtime, bundle, "a.slice:test:limits", memory={"limit": 50 << 20},
               pids={"limit": 20}, cpu={"shares": 512, "quota": 20000, "period": 50000})
    shown = systemd.show("test-limits.scope")
    assert shown["MemoryMax"] == str(50 << 20)
    assert shown["TasksMax"] == "20"
    assert shown["CPUShares"] == "512"
    assert shown["CPUQuotaPerSecUSec"] == "400ms" and shown["CPUQuotaPeriodUSec"] == "50ms"
    assert shown["DevicePolicy"] == "strict"
    assert {"/dev/char/1:3 rwm", "char-pts rwm", "char-* m"} <= set(
        line.split("=", 1)[1] for line in systemd.ctl("show", "test-limits.scope").stdout
        .splitlines() if line.startswith("DeviceAllow="))
    groups = cgroups_of(runtime.pid(id))
    read = lambda controller, file: (cgroup_dir(controller, groups[controller]) / file).read_text()
    assert read("memory", "memory.limit_in_bytes") == f"{50 << 20}\n"
    assert read("pids", "pids.max") == "20\n"
    assert read("cpu", "cpu.shares") == "512\n"


def test_update_changes_both(systemd, runtime, bundle):
    id = start(runtime, bundle, "a.slice:test:update", memory={"limit": 50 << 20})
    runtime.call("update", "--memory", str(60 << 20), "--pids-limit", "30", id)
    shown = systemd.show("test-update.scope")
    assert shown["MemoryMax"] == str(60 << 20) and shown["TasksMax"] == "30"
    group = cgroup_dir("memory", cgroups_of(runtime.pid(id))["memory"])
    assert (group / "memory.limit_in_bytes").read_text() == f"{60 << 20}\n"


def test_all_devices_are_no_policy(systemd, runtime, bundle):
    start(runtime, bundle, "a.slice:test:devices", devices=[{"allow": True, "access": "rwm"}])
    assert systemd.show("test-devices.scope")["DevicePolicy"] == "auto"


def test_annotations_are_properties(systemd, runtime, bundle):
    bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "7",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.SendSIGHUP": "true",
        "org.systemd.property.RuntimeMaxUSec": "uint64 90000000",
        "org.systemd.property.Documentation": "['man:a', 'man:b']"}
    start(runtime, bundle, "a.slice:test:notes")
    shown = systemd.show("test-notes.scope")
    assert shown["TimeoutStopUSec"] == "7s" and shown["RuntimeMaxUSec"] == "1min 30s"
    assert shown["CollectMode"] == "inactive-or-failed" and shown["SendSIGHUP"] == "yes"
    assert shown["Documentation"] == "man:a man:b"


@pytest.mark.parametrize("name,value,said", [
    ("TimeoutStopSec", "soon", "value of systemd property TimeoutStopSec: 'soon'"),
    ("Documentation", "[man:a]", "value of systemd property Documentation"),
    ("No.Name", "1", "'No.Name' is not the name"),
    ("NoSuchThing", "true", "NoSuchThing")])
def test_bad_annotations_are_named(systemd, runtime, bundle, leaks, name, value, said):
    bundle.config["annotations"] = {f"org.systemd.property.{name}": value}
    assert said in runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    leaks.check()


@pytest.mark.parametrize("path,said", [
    ("/a/b", "must be \"slice:prefix:name\""), ("a.slice:b", "must be"), ("a:b:c", "'a' is no name"),
    ("a--b.slice:c:d", "'a--b.slice' is no name"), ("a.slice:b:c.slice", "cannot be the slice"),
    ("a.slice:b:" + "x" * 300, "too long")])
def test_bad_cgroups_path_is_named(systemd, runtime, bundle, leaks, path, said):
    bundle.config["linux"]["cgroupsPath"] = path
    assert said in runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    leaks.check()


def test_exec_joins_the_scope(systemd, runtime, bundle):
    id = start(runtime, bundle, "a.slice:test:exec")
    text = runtime.call("exec", id, "cat", "/proc/self/cgroup").stdout
    groups = dict(line.split(":")[1:] for line in text.splitlines())
    for name in ("name=systemd", "", "memory"):
        assert groups[name] == f"/{systemd.name}/a.slice/test-exec.scope"


def test_cgroup_namespace_and_mount(systemd, runtime, bundle):
    bundle.namespace("cgroup")
    text = runtime.output(bundle.sh("cat /proc/self/cgroup; ls /sys/fs/cgroup; "
                                    "ls /sys/fs/cgroup/systemd"))
    assert ":name=systemd:/\n" in text
    assert "systemd\n" in text and "cgroup.procs\n" in text


def test_pause_kill_and_delete(systemd, runtime, bundle, leaks):
    id = start(runtime, bundle, "a.slice:test:pause")
    pid = runtime.pid(id)
    runtime.call("pause", id)
    assert runtime.status(id) == "paused"
    runtime.call("resume", id)
    runtime.call("delete", "--force", id)
    assert not is_alive(pid) and systemd.scopes() == set()
    leaks.check()


def test_taken_name_is_an_error_and_the_other_lives(systemd, runtime, bundle):
    first = start(runtime, bundle, "a.slice:test:taken")
    error = runtime.fails("run", "--bundle", bundle.path, runtime.new_id(), code=1)
    assert "cgroup is not empty" in error
    assert runtime.status(first) == "running"


def test_failed_scope_makes_room(systemd, runtime, bundle):
    bundle.config["annotations"] = {"org.systemd.property.RuntimeMaxUSec": "uint64 100000",
                                    "org.systemd.property.TimeoutStopUSec": "uint64 100000"}
    first = start(runtime, bundle, "a.slice:test:failed")
    wait_until(lambda: systemd.show("test-failed.scope")["ActiveState"] == "failed",
               what="the scope to fail")
    assert runtime.status(first) == "stopped"
    bundle.config["annotations"] = {}
    second = start(runtime, bundle, "a.slice:test:failed")
    assert runtime.status(second) == "running"


def test_killed_anywhere_in_create(systemd, runtime, bundle, leaks):
    bundle.set_args("sleep", "1000").write()
    id = runtime.new_id()
    for stops in range(1, 4000, 31):
        alive = kill_at(runtime.command("create", "--bundle", bundle.path, id), stops)
        runtime.call("delete", "--force", id)
        leaks.check()
        wait_until(lambda: systemd.scopes() == set(), what="no scope")
        if not alive:
            break


def test_without_systemd(runtime, bundle, leaks, monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    done = subprocess.run([runtime.program, "--cgroup-manager=systemd", "--root", runtime.root,
                           "run", "--bundle", bundle.write().path, "x"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    assert "no connection to systemd" in done.stderr and "--cgroup-manager=cgroupfs" in done.stderr
    leaks.check()


def test_delete_when_systemd_has_gone(runtime, bundle, leaks, monkeypatch):
    own = Systemd()
    try:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", own.address)
        bundle.write()
        id = runtime.new_id()
        subprocess.run([runtime.program, "--systemd-cgroup", "--root", runtime.root, "run",
                        "--detach", "--bundle", bundle.set_args("sleep", "1000").write().path, id],
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        own.kill()
        done = runtime.call("delete", "--force", id)
        assert f"scope isle-{id}.scope" in done.stderr
        leaks.check()
    finally:
        own.close()
