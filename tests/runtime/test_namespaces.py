"""Every kind of namespace: new, joined by path, left out; user namespaces and time."""
import json
import os
import subprocess

import pytest

from tests.lib.runtime import cgroups_of

KINDS = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt",
         "cgroup": "cgroup", "user": "user", "time": "time"}


def namespaces(runtime, bundle):
    out = runtime.output(bundle.sh("cd /proc/self/ns; for n in pid net ipc uts mnt cgroup user "
                                   "time; do echo $n $(readlink $n); done"))
    return dict(line.split() for line in out.splitlines())


def own(name):
    return os.readlink(f"/proc/self/ns/{name}")


def map_all(bundle, count=65536, first=100000):
    bundle.namespace("user")
    bundle.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": first, "size": count}]
    bundle.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": first, "size": count}]


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "mount"])
def test_new_and_absent(runtime, bundle, kind):
    if kind != "mount":
        assert namespaces(runtime, bundle)[KINDS[kind]] != own(KINDS[kind])
        bundle.namespace(kind, present=False)
        if kind == "uts":
            del bundle.config["hostname"]
        assert namespaces(runtime, bundle)[KINDS[kind]] == own(KINDS[kind])
    else:
        bundle.namespace(kind, present=False)
        error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
        assert "private MNT namespace" in error


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_join_by_path(runtime, bundle, kind, tmp_path):
    first = runtime.start_detached(bundle.set_args("sleep", "1000"))
    path = f"/proc/{runtime.pid(first)}/ns/{KINDS[kind]}"
    bundle.namespace(kind, path=path)
    if kind == "uts":
        del bundle.config["hostname"]
    assert namespaces(runtime, bundle)[KINDS[kind]] == os.readlink(path)
    if kind == "pid":
        assert "sleep 1000" in runtime.output(bundle.set_args("ps"))


def test_joining_the_wrong_kind_is_an_error(runtime, bundle, leaks):
    bundle.namespace("network", path="/proc/self/ns/ipc")
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "is not a net namespace" in error
    bundle.namespace("network", path="/no/such/ns")
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "/no/such/ns" in error
    leaks.check()


def test_loopback_is_up(runtime, bundle):
    assert "UP" in runtime.output(bundle.sh("ip addr show lo"))
    runtime.run(bundle.sh("ping -c 1 -w 1 127.0.0.1 || nc -z 127.0.0.1 1; true"))


def test_hostname_and_domainname(runtime, bundle):
    bundle.config["domainname"] = "example.test"
    out = runtime.output(bundle.sh("hostname; cat /proc/sys/kernel/domainname"))
    assert out == "isle-test\nexample.test\n"


def test_cgroup_namespace(runtime, bundle):
    bundle.namespace("cgroup")
    out = runtime.output(bundle.sh("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs"))
    groups = dict(line.split(":")[1:] for line in out.splitlines() if line.count(":") == 2)
    assert groups["memory"] == "/" and groups["pids"] == "/"
    assert "1" in out.splitlines()


def test_time_namespace(runtime, bundle):
    bundle.namespace("time")
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 7200, "nanosecs": 0},
                                             "monotonic": {"secs": 3600, "nanosecs": 0}}
    uptime = float(open("/proc/uptime").read().split()[0])
    inside = float(runtime.output(bundle.set_args("cat", "/proc/uptime")).split()[0])
    assert 7190 < inside - uptime < 7300


def test_joined_time_namespace(runtime, bundle):
    bundle.namespace("time")
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 7200, "nanosecs": 0}}
    first = runtime.start_detached(bundle.set_args("sleep", "1000"))
    uptime = float(open("/proc/uptime").read().split()[0])
    inside = float(runtime.call("exec", first, "cat", "/proc/uptime").stdout.split()[0])
    assert inside - uptime > 7190
    del bundle.config["linux"]["timeOffsets"]
    bundle.namespace("time", path=f"/proc/{runtime.pid(first)}/ns/time")
    inside = float(runtime.output(bundle.set_args("cat", "/proc/uptime")).split()[0])
    assert inside - uptime > 7190


def test_user_namespace(runtime, bundle, tmp_path, leaks):
    map_all(bundle)
    os.chmod(tmp_path, 0o700)  # not for the mapped root to see: the parent opens it
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("seen\n")
    bundle.mount("/data", source, options=["bind"])
    for path in (bundle.rootfs, bundle.rootfs / "data"):
        path.mkdir(exist_ok=True)
        os.chown(path, 100000, 100000)
    out = runtime.output(bundle.sh("id -u; cat /proc/self/uid_map; cat /data/file; echo x > "
                                   "/dev/null; stat -c %u /data/file; grep CapEff "
                                   "/proc/self/status"))
    lines = out.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "100000", "65536"]
    assert lines[2] == "seen"
    assert lines[3] == "65534"
    leaks.check()


def test_user_namespace_from_the_host(runtime, bundle):
    map_all(bundle)
    os.chown(bundle.rootfs, 100000, 100000)
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    assert runtime.call("exec", id, "id", "-u").stdout == "0\n"
    assert runtime.call("exec", "--user", "5:6", id, "sh", "-c", "id -u; id -g").stdout == "5\n6\n"
    bundle.namespace("user", path=f"/proc/{pid}/ns/user")
    bundle.namespace("network", path=f"/proc/{pid}/ns/net")
    del bundle.config["linux"]["uidMappings"], bundle.config["linux"]["gidMappings"]
    assert runtime.output(bundle.sh("id -u; cat /proc/self/uid_map")).split() == [
        "0", "0", "100000", "65536"]


def test_idmap_option_uses_the_containers_mapping(runtime, bundle, tmp_path):
    map_all(bundle)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(bundle.rootfs, 100000, 100000)
    bundle.mount("/tmp", source, options=["bind", "idmap"])
    done = runtime.run(bundle.sh("stat -c %u /tmp/file; touch /tmp/new"), check=False)
    if "set mount attributes" in done.stderr:
        pytest.skip("the file system of the test directory cannot be idmapped")
    assert done.stdout == "0\n"
    assert (source / "new").stat().st_uid == 0


@pytest.mark.parametrize("option, below", [("idmap", "65534"), ("ridmap", "0")])
def test_idmap_of_what_is_mounted_below(runtime, bundle, tmp_path, option, below):
    """ridmap is for the whole tree that rbind brings, idmap for its top only."""
    map_all(bundle)
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    os.chown(bundle.rootfs, 100000, 100000)
    for place in (source, source / "below"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", place], check=True)
        (place / "below").mkdir(exist_ok=True)
    try:
        bundle.mount("/tmp", source, options=["rbind", option])
        assert runtime.output(bundle.sh("stat -c %u /tmp /tmp/below")) == f"0\n{below}\n"
    finally:
        for place in (source / "below", source):
            subprocess.run(["umount", "-l", place], check=True)


def test_sysctl(runtime, bundle):
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "65536",
                                        "net.ipv4.conf.lo.forwarding": "1"}
    out = runtime.output(bundle.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"))
    assert out == "1\n65536\n"


@pytest.mark.parametrize("key,drop,message", [
    ("vm.swappiness", None, "is not in a separate kernel namespace"),
    ("net.ipv4.ip_forward", "network", "not allowed in host network namespace"),
    ("kernel.shmmax", "ipc", "not allowed in the hosts ipc namespace"),
    ("kernel.hostname", None, "conflicts"),
    ("net/../vm/swappiness", None, "vm")])
def test_sysctl_of_the_host_is_refused(runtime, bundle, key, drop, message):
    before = open("/proc/sys/vm/swappiness").read()
    if drop:
        bundle.namespace(drop, present=False)
    bundle.config["linux"]["sysctl"] = {key: "1"}
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert message in error
    assert open("/proc/sys/vm/swappiness").read() == before


def test_hostname_without_uts_namespace(runtime, bundle):
    bundle.namespace("uts", present=False)
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "hostname" in error and "uts" in error


def test_network_device_is_moved(runtime, bundle):
    subprocess.run(["ip", "link", "add", "islertest0", "type", "veth", "peer", "name",
                    "islertest1"], check=True)
    try:
        bundle.config["linux"]["netDevices"] = {"islertest0": {"name": "eth7"}}
        assert "eth7" in runtime.output(bundle.sh("ip link show eth7"))
    finally:
        subprocess.run(["ip", "link", "del", "islertest1"], check=False)


def test_rootless(bundle, tmp_path):
    """An ordinary user, with a user namespace of one id."""
    import tests.lib.runtime as lib
    uid = 12345
    program = tmp_path / "isle-runtime"
    subprocess.run(["cp", lib.find_program(), program], check=True)
    for directory in [tmp_path, *tmp_path.parents]:
        if str(directory).startswith("/tmp/"):
            os.chmod(directory, os.stat(directory).st_mode | 0o755)
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, uid, uid)
    subprocess.run(["chown", "-hR", f"{uid}:{uid}", bundle.path], check=True)
    bundle.namespace("user")
    bundle.namespace("network", present=False)
    bundle.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    bundle.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    bundle.config["linux"]["resources"] = {}
    bundle.config["mounts"] = [m for m in bundle.config["mounts"]
                               if m["destination"] not in ("/sys", "/sys/fs/cgroup")]
    for mount in bundle.config["mounts"]:
        mount["options"] = [o for o in mount.get("options", []) if not o.startswith("gid=")]
    bundle.mount("/sys", "/sys", "none", ["rbind", "ro"])
    bundle.sh("id -u; cat /proc/self/uid_map; echo $$").write()
    done = subprocess.run([program, "--root", state, "run", "--bundle", bundle.path, "rootless"],
                          user=uid, group=uid, extra_groups=[], capture_output=True, text=True,
                          timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0", str(uid), "1", "1"]
    assert os.listdir(state) == []


@pytest.mark.parametrize("where,what,said", [
    ("linux", {"intelRdt": {"closID": "x"}}, "intelRdt needs the resctrl file system"),
    ("process", {"selinuxLabel": "u:r:t"}, "SELinux is not enabled on this host"),
    ("process", {"apparmorProfile": "x"}, "AppArmor is not enabled on this host")])
def test_what_the_host_has_not_is_said(runtime, bundle, leaks, where, what, said):
    bundle.config[where].update(what)
    assert said in runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    leaks.check()


def test_mount_label_without_selinux_is_a_warning(runtime, bundle):
    bundle.config["linux"]["mountLabel"] = "u:r:t"
    done = runtime.run(bundle.set_args("true"))
    assert "SELinux is not enabled on this host: linux.mountLabel 'u:r:t'" in done.stderr


def test_rdt_of_a_container_without_it_cannot_be_updated(runtime, bundle):
    id = runtime.create(bundle.set_args("true"))
    error = runtime.fails("update", "--l3-cache-schema", "L3:0=1", id, code=1)
    assert "the container was made without intelRdt" in error


def test_state_of_pod_members(runtime, bundle):
    """Containers that share a pid namespace: killing one leaves the other."""
    first = runtime.start_detached(bundle.set_args("sleep", "1000"))
    bundle.namespace("pid", path=f"/proc/{runtime.pid(first)}/ns/pid")
    second = runtime.start_detached(bundle.sh("sleep 1001 & wait"))
    runtime.call("kill", second, "KILL")
    runtime.wait_status(second, "stopped")
    runtime.call("delete", second)
    assert runtime.status(first) == "running"
    assert "1001" not in runtime.call("exec", first, "ps").stdout
    assert cgroups_of(runtime.pid(first))["pids"].endswith(first)
    assert json.loads(runtime.call("ps", "-f", "json", first).stdout) == [runtime.pid(first)]


def test_without_a_mount_namespace_nothing_is_mounted(runtime, bundle):
    """What was mounted would appear on the host. Everything else is inherited."""
    bundle.config["linux"]["namespaces"] = []
    for key in ("maskedPaths", "readonlyPaths"):
        bundle.config["linux"].pop(key, None)
    bundle.config.pop("hostname", None)
    before = open("/proc/self/mountinfo").read()
    done = runtime.run(bundle.set_args("ls", "/proc"))
    assert done.stdout == "" and "nothing is mounted" in done.stderr
    assert open("/proc/self/mountinfo").read() == before


@pytest.mark.parametrize("base", [0, 200_000])
def test_devices_in_a_user_namespace(runtime, bundle, base):
    """Nodes cannot be made there; what the host has not at the same path is made before."""
    bundle.namespace("user")
    bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": base, "size": 65536}]
    bundle.config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 10,
         "gid": 11}]
    subprocess.run(["chown", "-R", f"{base}:{base}", bundle.rootfs], check=True)
    out = runtime.output(bundle.sh("stat -c '%u:%g %a %t,%T' /dev/mine; head -c 3 /dev/mine | wc -c; "
                                   "echo x > /dev/null && echo null"))
    assert out.splitlines() == ["10:11 644 1,5", "3", "null"]
    bundle.config["linux"]["devices"][0]["uid"] = 70_000
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "/dev/mine" in error and "not mapped" in error
