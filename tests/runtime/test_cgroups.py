"""Limits as they stand in cgroupfs, devices, and groups that are shared or in the way."""
import os
from pathlib import Path

import pytest

from tests.lib.runtime import cgroup_dir, cgroups_of, is_alive, wait_until

if not os.path.isdir("/sys/fs/cgroup/memory"):
    pytest.skip("these look at version 1 files", allow_module_level=True)


def value(pid, controller, name):
    return cgroup_dir(controller, cgroups_of(pid)[controller]).joinpath(name).read_text().strip()


def test_limits(runtime, bundle):
    bundle.config["linux"]["resources"].update({
        "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20,
                   "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 30},
        "blockIO": {},
    })
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    assert value(pid, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert value(pid, "memory", "memory.memsw.limit_in_bytes") == str(128 << 20)
    assert value(pid, "memory", "memory.soft_limit_in_bytes") == str(32 << 20)
    assert value(pid, "memory", "memory.swappiness") == "10"
    assert value(pid, "cpu", "cpu.shares") == "512"
    assert value(pid, "cpu", "cpu.cfs_quota_us") == "50000"
    assert value(pid, "cpu", "cpu.cfs_period_us") == "100000"
    assert value(pid, "cpuset", "cpuset.cpus") == "0"
    assert value(pid, "pids", "pids.max") == "30"
    assert cgroups_of(pid)["blkio"].endswith(id)


def test_only_needed_hierarchies_are_joined(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    groups = cgroups_of(runtime.pid(id))
    for controller in ("memory", "pids", "devices", "freezer", "cpuacct"):
        assert groups[controller].endswith(f"/{id}")
    for controller in ("cpu", "cpuset", "blkio"):
        assert not groups[controller].endswith(f"/{id}")


def test_limits_can_be_raised_and_lowered(runtime, bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20, "swap": 64 << 20}
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    for limit in (128 << 20, 32 << 20, 256 << 20):
        runtime.call("update", "--memory", limit, "--memory-swap", limit, id)
        assert value(pid, "memory", "memory.limit_in_bytes") == str(limit)
        assert value(pid, "memory", "memory.memsw.limit_in_bytes") == str(limit)
    runtime.call("update", "--memory", "-1", id)
    assert int(value(pid, "memory", "memory.limit_in_bytes")) > 1 << 60


def test_pids_limit_holds(runtime, bundle):
    bundle.config["linux"]["resources"]["pids"] = {"limit": 3}
    out = runtime.run(bundle.sh("for i in 1 2 3 4 5 6; do sleep 1 & done; wait"), check=False)
    assert "Resource temporarily unavailable" in out.stderr or "can't fork" in out.stderr


def test_memory_limit_kills(runtime, bundle, leaks):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 8 << 20, "swap": 8 << 20}
    done = runtime.run(bundle.sh("exec dd if=/dev/zero of=/dev/shm/x bs=1M count=32"), check=False)
    assert done.returncode == 137
    leaks.check()


def test_default_devices_only(runtime, bundle):
    bundle.config["linux"]["devices"] = [{"path": "/dev/kmsg2", "type": "c", "major": 1,
                                          "minor": 11},
                                         {"path": "/dev/mem3", "type": "c", "major": 1,
                                          "minor": 1}]
    bundle.config["linux"]["resources"]["devices"] = [
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]
    bundle.config["process"]["capabilities"] = {
        k: ["CAP_MKNOD", "CAP_SYSLOG"] for k in ("bounding", "effective", "permitted")}
    out = runtime.output(bundle.sh(
        "mknod /dev/mem2 c 1 1; cat /dev/mem2 2>&1 | head -c 80; "
        "cat /dev/mem3 2>&1 | head -c 80; (echo x > /dev/kmsg2) 2>&1; "
        "head -c 1 /dev/urandom > /dev/null && echo random; "
        "dd if=/dev/kmsg2 of=/dev/null bs=8k count=1 2>&1 | head -1"))
    assert "Operation not permitted" in out
    assert "random" in out
    # memory is refused by either name, and the log may only be read
    assert out.count("not permitted") == 3


def test_device_rules(runtime, bundle):
    bundle.config["linux"]["resources"]["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"}]
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    rules = value(runtime.pid(id), "devices", "devices.list").splitlines()
    assert "c 1:1 r" in rules and "c 1:3 rwm" in rules and "c *:* m" in rules
    assert not any(rule.startswith("a") for rule in rules)


def test_all_devices(runtime, bundle):
    bundle.config["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    assert value(runtime.pid(id), "devices", "devices.list") == "a *:* rwm"


def test_cgroups_path(runtime, bundle, leaks):
    id = runtime.new_id()
    bundle.config["linux"]["cgroupsPath"] = f"/isle-runtime-test/deep/{id}"
    runtime.start_detached(bundle.set_args("sleep", "1000"), id=id)
    assert cgroups_of(runtime.pid(id))["pids"] == f"/isle-runtime-test/deep/{id}"
    runtime.call("delete", "--force", id)
    assert not cgroup_dir("pids", f"/isle-runtime-test/deep/{id}").exists()
    for controller in os.listdir("/sys/fs/cgroup"):
        for name in ("isle-runtime-test/deep", "isle-runtime-test"):
            path = Path("/sys/fs/cgroup", controller, name)
            if path.exists():
                path.rmdir()
    leaks.check()


@pytest.mark.parametrize("path", ["/a/../../b", "/"])
def test_bad_cgroups_path(runtime, bundle, path):
    bundle.config["linux"]["cgroupsPath"] = path
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "cgroup path" in error


def test_a_group_with_members_is_not_ours(runtime, bundle, leaks):
    first = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(first)
    bundle.config["linux"]["cgroupsPath"] = cgroups_of(pid)["pids"]
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "cgroup is not empty" in error
    assert runtime.status(first) == "running"
    runtime.call("delete", "--force", first)
    leaks.check()


def test_nested_groups_made_inside_are_removed(runtime, bundle, leaks):
    for mount in bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev"]
    bundle.config["process"]["capabilities"] = {
        k: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"] for k in ("bounding", "effective", "permitted")}
    id = runtime.start_detached(bundle.sh(
        "mkdir -p /sys/fs/cgroup/pids/inner/most; sleep 500 & "
        "echo $! > /sys/fs/cgroup/pids/inner/most/cgroup.procs; sleep 1000"))
    inner = cgroup_dir("pids", cgroups_of(runtime.pid(id))["pids"]) / "inner" / "most"
    wait_until(inner.exists, what="the inner group")
    runtime.call("delete", "--force", id)
    leaks.check()


def test_unified_settings_need_version_2(runtime, bundle):
    bundle.config["linux"]["resources"]["unified"] = {"memory.high": "1000000"}
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "need cgroup version 2" in error


def test_missing_controller_is_named(runtime, bundle, leaks):
    settings = {"hugetlb": {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
                "rdma": {"rdma": {"mlx5_1": {"hcaHandles": 3}}},
                "net_prio": {"network": {"priorities": [{"name": "lo", "priority": 1}]}}}
    missing = [name for name in settings if not os.path.exists(f"/sys/fs/cgroup/{name}")]
    for name in missing:
        bundle.config["linux"]["resources"] = settings[name]
        error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
        assert f"no cgroup controller '{name}'" in error
        leaks.check()


def test_exec_in_a_group_below(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    group = cgroups_of(runtime.pid(id))["memory"]
    cgroup_dir("memory", group + "/below").mkdir()
    out = runtime.call("exec", "--cgroup", "memory:below", id, "cat", "/proc/self/cgroup").stdout
    assert out.count("/below") == 1
    for where, said in (("..", ".. is not a sub cgroup path"), ("a/../..", "not a sub cgroup path"),
                        ("whaaat:/", "unknown controller whaaat"),
                        ("memory:missing", "/missing/cgroup.procs: no such file or directory"),
                        ("missing", "adding pid of the new process to /sys/fs/cgroup/")):
        assert said in runtime.fails("exec", "--cgroup", where, id, "true", code=255)


def test_refused_value_names_the_file(runtime, bundle, leaks):
    bundle.config["linux"]["resources"]["cpu"] = {"cpus": "77777"}
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "cpuset.cpus" in error and "77777" in error
    leaks.check()


@pytest.mark.parametrize("verb", [("delete", "--force"), ("kill",)])
def test_frozen_in_a_group_that_is_not_ours(runtime, bundle, verb):
    """Somebody has moved the process into a frozen group: it can still be ended."""
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    frozen = cgroup_dir("freezer", f"/isle-test-{os.getpid()}")
    frozen.mkdir()
    try:
        (frozen / "cgroup.procs").write_text(str(pid))
        (frozen / "freezer.state").write_text("FROZEN")
        wait_until(lambda: (frozen / "freezer.state").read_text() == "FROZEN\n", what="the frost")
        runtime.call(*verb, id, *(["KILL"] if verb == ("kill",) else []))
        wait_until(lambda: not is_alive(pid), what="the end")
    finally:
        (frozen / "freezer.state").write_text("THAWED")
        wait_until(lambda: (frozen / "cgroup.procs").read_text() == "", what="the empty group")
        frozen.rmdir()


@pytest.mark.parametrize("access", ["ro", "rw"])
@pytest.mark.parametrize("user", [False, True])
def test_hierarchy_that_an_update_joins_is_seen_inside(runtime, bundle, leaks, access, user):
    """As the others are: the container's own group, read-only or not."""
    bundle.config["mounts"][-1]["options"] = ["nosuid", "noexec", "nodev", access]
    if user:
        bundle.namespace("user")
        for kind in ("uidMappings", "gidMappings"):
            bundle.config["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    inside = "/sys/fs/cgroup/cpu"
    assert not os.path.exists(f"/proc/{runtime.pid(id)}/root{inside}")
    runtime.call("update", "--cpu-share", "512", id)
    assert runtime.call("exec", id, "cat", f"{inside}/cpu.shares").stdout == "512\n"
    options = {line.split()[4]: line.split()[5].split(",") for line in
               runtime.call("exec", id, "cat", "/proc/self/mountinfo").stdout.splitlines()}
    assert options[inside][0] == options["/sys/fs/cgroup"][0] == access
    assert {"nosuid", "noexec", "nodev"} <= set(options[inside])
    runtime.call("update", "--cpu-share", "256", id)
    assert runtime.call("exec", id, "cat", f"{inside}/cpu.shares").stdout == "256\n"
    runtime.call("delete", "--force", id)
    leaks.check()


def test_update_does_not_need_to_be_seen(runtime, bundle):
    """Something else is where the hierarchies were: the limit holds all the same."""
    bundle.config["process"]["capabilities"] = {
        kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    id = runtime.start_detached(bundle.sh("umount -l /sys/fs/cgroup; sleep 1000"))
    wait_until(lambda: "cgroup" not in Path(f"/proc/{runtime.pid(id)}/mounts").read_text(),
               what="the unmount")
    done = runtime.call("update", "--cpu-share", "512", id)
    assert "cannot be seen inside" in done.stderr
    group = cgroups_of(runtime.pid(id))["cpu"]
    assert (cgroup_dir("cpu", group) / "cpu.shares").read_text() == "512\n"
