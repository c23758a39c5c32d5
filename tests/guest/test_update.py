"""update: a machine that runs is resized."""
import json
import os
import time

import pytest

from tests.lib.runtime import cgroup_dir, cgroups_of, wait_until

MIB = 1 << 20


@pytest.fixture
def kind():
    return "vm"


def start(runtime, bundle, memory=None, cpus=None, **annotations):
    resources = bundle.config["linux"]["resources"]
    if memory:
        resources["memory"] = {"limit": memory}
    if cpus:
        resources["cpu"] = {"quota": cpus * 100000, "period": 100000}
    bundle.config["annotations"] = {f"isle.vm.{k.replace('_', '-')}": v
                                    for k, v in annotations.items()}
    bundle.namespace("cgroup")
    return runtime.start_detached(bundle.set_args("sleep", "1000"))


def inside(runtime, id, *command):
    return runtime.call("exec", id, *command).stdout.strip()


def limit_inside(runtime, id):
    """Of the container's group, in bytes."""
    text = inside(runtime, id, "cat", "/sys/fs/cgroup/memory.max")
    return int(text) if text != "max" else None


def limit_outside(runtime, id):
    group = cgroup_dir("memory", cgroups_of(runtime.pid(id))["memory"])
    return int((group / "memory.limit_in_bytes").read_text())


def free_inside(runtime, id):
    line = inside(runtime, id, "grep", "MemFree", "/proc/meminfo")
    return int(line.split()[1]) << 10


def test_memory_goes_down_and_up(runtime, bundle):
    id = start(runtime, bundle, 512 * MIB)
    outside, free = limit_outside(runtime, id), free_inside(runtime, id)
    runtime.call("update", "--memory", "128m", id)
    assert limit_inside(runtime, id) == 128 * MIB
    assert limit_outside(runtime, id) == outside - 384 * MIB
    assert free_inside(runtime, id) < free - 300 * MIB
    runtime.call("update", "--memory", "512m", id)
    assert limit_inside(runtime, id) == 512 * MIB and limit_outside(runtime, id) == outside
    wait_until(lambda: free_inside(runtime, id) > free - 64 * MIB, 20, "the memory to be there again")


def test_memory_has_a_maximum(runtime, bundle):
    id = start(runtime, bundle, 64 * MIB)
    error = runtime.fails("update", "--memory", "512m", id)
    assert "takes a virtual machine of 576 MiB; this one was made with 128" in error
    assert "isle.vm.memory-max" in error
    assert limit_inside(runtime, id) == 64 * MIB
    large = start(runtime, bundle, 64 * MIB, memory_max="512m")
    runtime.call("update", "--memory", "512m", large)
    assert limit_inside(runtime, large) == 512 * MIB
    # It is there for the program.
    inside(runtime, large, "sh", "-c", "head -c 300000000 /dev/zero | tail -c 1 >/dev/null;"
           "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>/dev/null")
    assert "memory-max: 'x' is no size" in runtime.run(
        with_annotation(bundle, "isle.vm.memory-max", "x"), check=False).stderr
    assert "'32m' is less than the memory limit" in runtime.run(
        with_annotation(bundle, "isle.vm.memory-max", "32m"), check=False).stderr


def with_annotation(bundle, name, value):
    bundle.config["annotations"] = {name: value}
    return bundle


def test_memory_that_is_used_stays(runtime, bundle):
    """What cannot be given back is told, and everything is as it was."""
    bundle.mount("/fill", "tmpfs", "tmpfs", ["size=400m"])
    bundle.config["root"]["readonly"] = False
    id = start(runtime, bundle, 512 * MIB)
    outside = limit_outside(runtime, id)
    inside(runtime, id, "dd", "if=/dev/zero", "of=/fill/x", "bs=1M", "count=380")
    assert "unable to set memory limit to 134217728 (current usage: " in runtime.fails(
        "update", "--memory", "128m", id)
    assert limit_outside(runtime, id) == outside
    assert limit_inside(runtime, id) == 512 * MIB
    assert inside(runtime, id, "stat", "-c", "%s", "/fill/x") == str(380 * MIB)


def test_memory_that_the_kernel_uses_stays(runtime, bundle):
    """The tables of a large machine's pages are more than a small one leaves for its kernel: the
    balloon never gets as much, which is waited for, told, and undone."""
    id = start(runtime, bundle, 64 * MIB, memory_max="8g")
    outside, free = limit_outside(runtime, id), free_inside(runtime, id)
    begin = time.monotonic()
    error = runtime.fails("update", "--memory", "48m", id)
    assert "the guest uses its memory: it gave back " in error and " of 8128 MiB" in error
    assert 14 < time.monotonic() - begin < 40
    assert limit_outside(runtime, id) == outside and limit_inside(runtime, id) == 64 * MIB
    wait_until(lambda: free_inside(runtime, id) > free - 64 * MIB, 20, "the memory to be there again")


def test_processors(runtime, bundle):
    id = start(runtime, bundle, cpus=1, cpus_max="3")
    count = ("grep", "-c", "^processor", "/proc/cpuinfo")
    assert inside(runtime, id, *count) == "1"
    runtime.call("update", "--cpu-quota", "300000", "--cpu-period", "100000", id)
    assert inside(runtime, id, *count) == "3"
    group = cgroup_dir("cpu", cgroups_of(runtime.pid(id))["cpu"])
    assert (group / "cpu.cfs_quota_us").read_text() == "300000\n"
    runtime.call("update", "--cpu-quota", "150000", id)
    assert inside(runtime, id, *count) == "2"
    assert (group / "cpu.cfs_quota_us").read_text() == "150000\n"
    error = runtime.fails("update", "--cpu-quota", "400000", id)
    assert "takes 4 processors; this virtual machine was made with 3" in error
    assert (group / "cpu.cfs_quota_us").read_text() == "150000\n"


def test_other_limits(runtime, bundle):
    id = start(runtime, bundle)
    runtime.call("update", "--pids-limit", "77", id)
    assert inside(runtime, id, "cat", "/sys/fs/cgroup/pids.max") == "77"
    runtime.call("pause", id)
    assert "a paused virtual machine cannot be updated" in runtime.fails("update", "--pids-limit",
                                                                       "78", id)
    runtime.call("resume", id)
    assert json.loads(runtime.call("state", id).stdout)["status"] == "running" and os.path.isdir(
        runtime.root / id / "control")
