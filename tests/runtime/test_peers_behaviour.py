"""Behaviours that runc's and crun's own suites hold them to, and that no other file here has."""
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lib.runtime import cgroup_dir, cgroups_of, is_alive, wait_until

CALL = """
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int n, char **a) { return n == 2 && syscall(atol(a[1])) < 0 ? errno : 0; }
"""


def test_another_configuration_file(runtime, bundle):
    bundle.set_args("echo", "the other").write()
    (bundle.path / "config.json").rename(bundle.path / "other.json")
    id = runtime.new_id()
    assert runtime.call("run", "--config", "other.json", "--bundle", bundle.path,
                        id).stdout == "the other\n"


def test_the_same_id_again(runtime, bundle):
    id = runtime.new_id()
    for text in ("one", "two"):
        assert runtime.output(bundle.set_args("echo", text), id=id) == text + "\n"


def test_the_bundle_is_the_rootfs(runtime, bundle):
    bundle.config["root"]["path"] = "."
    bundle.set_args("ls", "/config.json").write()
    (bundle.rootfs / "config.json").write_text((bundle.path / "config.json").read_text())
    assert runtime.call("run", "--bundle", bundle.rootfs,
                        runtime.new_id()).stdout == "/config.json\n"


@pytest.mark.parametrize("device", [
    {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0},
    {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
    {"path": "/dev/odd/", "type": "c", "major": 1, "minor": 3},
    {"path": "/dev/queue", "type": "p", "fileMode": 0o640}])
def test_devices_that_are_there_or_unusual(runtime, bundle, device):
    bundle.config["linux"]["devices"] = [device]
    path = device["path"].rstrip("/")
    if path == "/dev/ptmx":
        assert runtime.output(bundle.set_args("readlink", path)) == "pts/ptmx\n"
    else:
        kind = "fifo" if device["type"] == "p" else "character special file"
        assert runtime.output(bundle.set_args("stat", "-c", "%F", path)) == kind + "\n"


def test_program_that_only_a_capability_lets_execute(runtime, bundle):
    """No execute bit for this user: CAP_DAC_OVERRIDE does it, where any execute bit is set."""
    program = bundle.rootfs / "tmp" / "true"
    program.write_bytes((bundle.rootfs / "bin" / "busybox").read_bytes())
    program.chmod(0o100)
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.set_args("/tmp/true")
    assert runtime.run(bundle, check=False).returncode == 1
    names = ["CAP_DAC_OVERRIDE"]
    bundle.config["process"]["capabilities"] = {
        kind: names for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    assert runtime.run(bundle).returncode == 0


@pytest.mark.parametrize("cwd", ["tmp", "./tmp"])
def test_relative_working_directory_is_the_roots(runtime, bundle, cwd):
    bundle.config["process"]["cwd"] = cwd
    done = runtime.run(bundle.set_args("pwd"), check=False)
    assert done.stdout == "/tmp\n" or "process.cwd" in done.stderr


def test_a_hostname_that_is_too_long(runtime, bundle, leaks):
    bundle.config["hostname"] = "x" * 65
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "hostname" in error and "x" * 65 in error
    leaks.check()


@pytest.fixture
def userns(bundle):
    bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        bundle.config["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    subprocess.run(["chown", "-R", "100000:100000", bundle.rootfs], check=True)
    for directory in (bundle.path, *bundle.path.parents):
        if directory.is_relative_to("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o711)
    return bundle


def test_user_namespace_with_sources_only_root_may_reach(runtime, userns, tmp_path):
    for name in ("one", "two"):
        closed = tmp_path / name
        (closed / "inside").mkdir(parents=True)
        (closed / "inside" / "file").write_text(name)
        closed.chmod(0o700)
        userns.mount(f"/{name}", closed / "inside", "bind", ["bind"])
    id = runtime.start_detached(userns.set_args("sleep", "1000"))
    assert runtime.call("exec", id, "cat", "/one/file", "/two/file").stdout == "onetwo"


def test_user_namespace_with_a_bind_before_the_cgroups(runtime, userns, tmp_path):
    (tmp_path / "data").mkdir()
    mounts = userns.config["mounts"]
    mounts.insert(0, {"destination": "/tmp/data", "source": str(tmp_path / "data"), "type": "bind",
                      "options": ["bind"]})
    assert "memory" in runtime.output(userns.set_args("ls", "/sys/fs/cgroup"))


def test_user_namespace_joined_through_a_bound_file(runtime, userns, tmp_path):
    first = runtime.start_detached(userns.set_args("sleep", "1000"))
    inode = os.stat(f"/proc/{runtime.pid(first)}/ns/user").st_ino
    bound = tmp_path / "user"
    bound.write_text("")
    subprocess.run(["mount", "--bind", f"/proc/{runtime.pid(first)}/ns/user", bound], check=True)
    try:
        userns.namespace("user", path=str(bound))
        for kind in ("uidMappings", "gidMappings"):
            del userns.config["linux"][kind]
        text = runtime.output(userns.set_args("readlink", "/proc/self/ns/user"))
        assert text == f"user:[{inode}]\n"
    finally:
        subprocess.run(["umount", bound], check=True)


@pytest.fixture
def caller(tmp_path, bundle):
    """A program in the rootfs that makes a system call and exits with its errno."""
    (tmp_path / "call.c").write_text(CALL)
    subprocess.run(["cc", "-static", "-w", "-o", bundle.rootfs / "bin" / "call",
                    tmp_path / "call.c"], check=True)
    return "/bin/call"


def test_calls_newer_than_the_policy_do_not_exist(runtime, bundle, caller):
    """A policy that answers EPERM to what it does not list must not hide from a program that the
    kernel, or the policy, is older than the call."""
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": [
            "execve", "brk", "arch_prctl", "exit_group", "set_tid_address", "set_robust_list",
            "rseq", "prlimit64", "readlink", "readlinkat", "getrandom", "mprotect", "uname"]}]}
    for number, errno in ((9999, 38), (165, 1)):  # 165 is mount
        assert runtime.run(bundle.set_args(caller, str(number)), check=False).returncode == errno


def test_logged_calls_are_allowed(runtime, bundle):
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG"}]}
    bundle.config["root"]["readonly"] = False
    assert runtime.run(bundle.set_args("mkdir", "/tmp/x")).returncode == 0


def test_repeated_seccomp_rules(runtime, bundle):
    rule = {"names": ["getcwd", "getcwd", "chmod"], "action": "SCMP_ACT_ALLOW"}
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule, rule]}
    assert runtime.run(bundle.set_args("true")).returncode == 0


def test_listener_by_an_abstract_address_is_a_file_that_is_missing(runtime, bundle, tmp_path):
    name = f"\0isle-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(name)
        bundle.config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "@" + name[1:],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
        runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)


def exec_process(runtime, bundle, tmp_path, id, *args, **changes):
    process = {**bundle.config["process"], "args": list(args), **changes}
    (tmp_path / "process.json").write_text(json.dumps(process))
    return runtime.call("exec", "--process", tmp_path / "process.json", id)


def test_affinity_of_exec(runtime, bundle, tmp_path):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    done = exec_process(runtime, bundle, tmp_path, id, "grep", "Cpus_allowed_list",
                        "/proc/self/status", execCPUAffinity={"initial": "0", "final": "0"})
    assert done.stdout.split() == ["Cpus_allowed_list:", "0"]


def test_exec_leads_a_session(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid, session, group = runtime.call(
        "exec", id, "sh", "-c", "echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)").stdout.split()
    assert pid == session == group


def test_parent_is_outside(runtime, bundle):
    assert runtime.output(bundle.set_args("grep", "PPid", "/proc/self/status")).split()[1] == "0"


@pytest.mark.parametrize("cpu,period,quota", [
    ({"period": 50000}, "50000", "-1"), ({"quota": 30000}, "100000", "30000"),
    ({"quota": -1}, "100000", "-1"), ({"quota": 2000, "period": 20000}, "20000", "2000")])
def test_parts_of_a_cpu_quota(runtime, bundle, cpu, period, quota):
    bundle.config["linux"]["resources"]["cpu"] = cpu
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    group = cgroup_dir("cpu", cgroups_of(runtime.pid(id))["cpu"])
    assert (group / "cpu.cfs_period_us").read_text().strip() == period
    assert (group / "cpu.cfs_quota_us").read_text().strip() == quota


def test_update_from_standard_input_and_of_a_paused_container(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    group = cgroup_dir("pids", cgroups_of(runtime.pid(id))["pids"])
    runtime.call("pause", id)
    runtime.call("update", "--resources", "-", id, input='{"pids":{"limit":21}}')
    assert (group / "pids.max").read_text() == "21\n"
    assert runtime.status(id) == "paused"


def test_update_of_devices_does_not_disturb_who_uses_them(runtime, bundle):
    """While the rules are replaced, what was and stays allowed never fails."""
    bundle.config["root"]["readonly"] = False
    id = runtime.start_detached(bundle.sh(
        "while echo x > /dev/null && head -c1 /dev/zero > /dev/null; do :; done 2> /tmp/failed"))
    pid = runtime.pid(id)
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1,
                                                 "minor": 11, "access": "rw"}]
    for _ in range(20):
        runtime.call("update", "--resources", "-", id, input=json.dumps({"devices": rules}))
    assert is_alive(pid), (bundle.rootfs / "tmp" / "failed").read_text()


def test_forced_delete_reaches_groups_below(runtime, bundle, leaks):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    group = cgroup_dir("pids", cgroups_of(runtime.pid(id))["pids"])
    process = runtime.popen("exec", id, "sleep", "1000")
    wait_until(lambda: len((group / "cgroup.procs").read_text().split()) == 2, what="the exec")
    (group / "below").mkdir()
    other = set((group / "cgroup.procs").read_text().split()) - {str(runtime.pid(id))}
    (group / "below" / "cgroup.procs").write_text(other.pop())
    runtime.call("delete", "--force", id)
    process.wait(10)
    leaks.check()


@pytest.mark.parametrize("log", ["file:{}/log", "{}/log"])
def test_forms_of_the_log(runtime, tmp_path, log):
    done = subprocess.run([runtime.program, "--log", log.format(tmp_path), "--root", runtime.root,
                           "state", "nobody"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "container does not exist" in (tmp_path / "log").read_text()


def test_groups_where_setgroups_is_denied(runtime, bundle, tmp_path):
    """A user namespace made without privilege has setgroups denied: joined by path, additional
    groups are an error, and none are fine."""
    holder = subprocess.Popen(["unshare", "--user", "--map-root-user", "sleep", "1000"])
    try:
        wait_until(lambda: "deny" in open(f"/proc/{holder.pid}/setgroups").read(), what="the deny")
        bundle.namespace("user", path=f"/proc/{holder.pid}/ns/user")
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "devpts"]
        assert runtime.run(bundle.set_args("true")).returncode == 0
        bundle.config["process"]["user"]["additionalGids"] = [1]
        error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
        assert "supplementary groups" in error
    finally:
        holder.kill()
        holder.wait()


def test_supplementary_groups_of_the_caller(runtime, bundle):
    """As crun's annotation has it; otherwise none."""
    bundle.set_args("grep", "Groups", "/proc/self/status").write()
    id = runtime.new_id()

    def groups():
        done = subprocess.run(runtime.command("run", "--bundle", bundle.path, id),
                              capture_output=True, text=True, timeout=30, check=True,
                              extra_groups=[11, 12])
        return done.stdout.split()[1:]

    assert groups() == []
    bundle.config["annotations"] = {"run.oci.keep_original_groups": "1"}
    bundle.write()
    assert groups() == ["11", "12"]


def test_unknown_system_calls_are_an_error_when_that_is_asked_for(runtime, bundle, leaks):
    name = "call_of_the_future"
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", name], "action": "SCMP_ACT_ERRNO"}]}
    bundle.set_args("true")
    runtime.run(bundle)
    bundle.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "1"}
    assert f"system call '{name}' is unknown" in runtime.run(bundle, check=False).stderr
    leaks.check()
    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = ["mkdir"]
    runtime.run(bundle)


def test_an_id_that_is_none_says_why(runtime):
    assert "invalid character `/` in the ID" in runtime.fails("state", "this/is/none")
    assert "invalid container ID format: .." in runtime.fails("state", "..")


def test_parts_of_a_real_time_share(runtime, bundle):
    """A period below the time that is given out of the old one."""
    id = runtime.new_id()
    parent = cgroup_dir("cpu", f"/{id}-parent")
    parent.mkdir()
    try:
        (parent / "cpu.rt_runtime_us").write_text("900000")
        bundle.config["linux"]["cgroupsPath"] = f"/{id}-parent/{id}"
        bundle.config["linux"]["resources"]["cpu"] = {"realtimePeriod": 900001,
                                                      "realtimeRuntime": 600001}
        runtime.start_detached(bundle.sh("sleep 1000"), id=id)
        runtime.call("update", "--cpu-rt-period", "10000", "--cpu-rt-runtime", "3000", id)
        assert (parent / id / "cpu.rt_period_us").read_text() == "10000\n"
        assert (parent / id / "cpu.rt_runtime_us").read_text() == "3000\n"
        runtime.call("delete", "--force", id)
    finally:
        for made in Path("/sys/fs/cgroup").glob(f"*/{id}-parent"):  # in all, the container's are
            made.rmdir()


def test_statistics_speak_of_oom_only_after_one(runtime, bundle):
    """Scripts wait for the word."""
    id = runtime.start_detached(bundle.sh("sleep 1000"))
    assert "oom" not in runtime.call("events", "--stats", id).stdout.lower()
