"""checkpoint and restore, with the CRIU that scripts/install-criu brings."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lib.runtime import ConsoleSocket, cgroups_of, is_alive, read_terminal, wait_until

# In names, not in files: a file that was open, and was written to after the dump, CRIU refuses.
COUNT = ("mkdir /tmp/n; while :; do i=$((i+1)); mkdir /tmp/n/$i 2>/dev/null; "
         "rmdir /tmp/n/$((i-1)) 2>/dev/null; done")


def count(bundle):
    directory = bundle.rootfs / "tmp" / "n"
    return max(map(int, os.listdir(directory)), default=0) if directory.exists() else 0


def counts_on(bundle):
    now = count(bundle)
    wait_until(lambda: count(bundle) > now, what="the counter to go on")


def start(runtime, bundle, script=COUNT, *flags):
    bundle.config["root"]["readonly"] = False
    bundle.sh(script)
    id = runtime.start_detached(bundle, *flags)
    if script == COUNT:
        counts_on(bundle)
    return id


@pytest.fixture
def images(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def counter(runtime, bundle):
    """A container that counts in a file of its rootfs."""
    return start(runtime, bundle)


def dump(runtime, images, id, *flags, **kwargs):
    return runtime.call("checkpoint", "--image-path", images, *flags, id, **kwargs)


def restore(runtime, bundle, images, id, *flags):
    """A restore that detaches, with its standard descriptors elsewhere, as an engine does it."""
    bundle.write()
    log = images.parent / "restore.err"
    with open(log, "w", encoding="utf-8") as errors:
        done = subprocess.run(
            runtime.command("restore", "--image-path", images, "--detach", *flags, "--bundle",
                            bundle.path, id), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=errors, timeout=60)
    assert done.returncode == 0, log.read_text()


def again(runtime, bundle, images, id, *flags):
    dump(runtime, images, id, *flags)
    restore(runtime, bundle, images, id, *flags)


def inside(runtime, id, script):
    return runtime.call("exec", id, "sh", "-c", script).stdout.strip()


def in_every_way(runtime, id):
    """All verbs work on it as on any other container."""
    state = runtime.state(id)
    assert state["status"] == "running" and is_alive(state["pid"])
    assert inside(runtime, id, "echo through") == "through"
    runtime.call("pause", id)
    assert runtime.status(id) == "paused"
    runtime.call("resume", id)
    assert str(state["pid"]) in runtime.call("ps", "--format", "json", id).stdout
    stats = json.loads(runtime.call("events", "--stats", id).stdout)
    assert stats["data"]["pids"]["current"] >= 1
    runtime.call("update", "--pids-limit", "77", id)
    runtime.call("kill", id, "KILL")
    runtime.wait_status(id, "stopped")
    runtime.call("delete", id)


def test_a_counter_goes_on_where_it_was(runtime, bundle, counter, images, leaks):
    groups = cgroups_of(runtime.pid(counter))
    dump(runtime, images, counter)
    assert "does not exist" in runtime.fails("state", counter)
    stopped_at = count(bundle)
    restore(runtime, bundle, images, counter)
    wait_until(lambda: count(bundle) > stopped_at, what="the counter to go on")
    assert cgroups_of(runtime.pid(counter)) == groups
    in_every_way(runtime, counter)
    leaks.ids = [counter]
    assert leaks.now()["cgroups"] == set() and leaks.now()["state"] == set()


def test_under_another_name_and_group(runtime, bundle, counter, images):
    dump(runtime, images, counter)
    bundle.config["linux"]["resources"]["pids"] = {"limit": 33}
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    other = runtime.new_id()
    restore(runtime, bundle, images, other)
    counts_on(bundle)
    pid = runtime.pid(other)
    groups = cgroups_of(pid)
    assert groups["pids"].endswith(other) and groups["memory"].endswith(other)
    assert Path("/sys/fs/cgroup/pids", groups["pids"].lstrip("/"), "pids.max"
                ).read_text().strip() == "33"
    assert Path("/sys/fs/cgroup/memory", groups["memory"].lstrip("/"), "memory.limit_in_bytes"
                ).read_text().strip() == str(64 << 20)
    in_every_way(runtime, other)


def test_leave_running(runtime, bundle, counter, images):
    pid = runtime.pid(counter)
    dump(runtime, images, counter, "--leave-running")
    assert runtime.pid(counter) == pid and runtime.status(counter) == "running"
    counts_on(bundle)
    runtime.call("delete", "--force", counter)
    restore(runtime, bundle, images, counter)
    counts_on(bundle)


def test_restored_and_dumped_again(runtime, bundle, counter, images, tmp_path):
    again(runtime, bundle, images, counter)
    again(runtime, bundle, tmp_path / "more", counter)
    counts_on(bundle)
    in_every_way(runtime, counter)


def test_a_paused_container_is_dumped(runtime, bundle, counter, images):
    runtime.call("pause", counter)
    dump(runtime, images, counter, "--leave-running")
    assert runtime.status(counter) == "paused"
    runtime.call("resume", counter)
    counts_on(bundle)
    runtime.call("pause", counter)
    dump(runtime, images, counter)
    restore(runtime, bundle, images, counter)
    counts_on(bundle)
    assert runtime.status(counter) == "running"


def test_what_is_read_only_and_masked_stays_so(runtime, bundle, images):
    bundle.config["linux"]["maskedPaths"] += ["/etc/passwd"]
    id = start(runtime, bundle, "sleep 1000")
    what = "cat /proc/self/mountinfo | cut -d' ' -f5,6 | sed 's/,relatime//' | sort"
    before = inside(runtime, id, what)
    limits = inside(runtime, id, "cat /proc/1/limits; grep -E 'Cap|NoNew|Seccomp' /proc/1/status")
    again(runtime, bundle, images, id)
    assert inside(runtime, id, what) == before
    assert inside(runtime, id, "cat /proc/1/limits; grep -E 'Cap|NoNew|Seccomp' /proc/1/status"
                  ) == limits
    assert inside(runtime, id, "cat /etc/passwd") == ""
    assert "Read-only" in inside(runtime, id, "(echo 1 >/proc/sys/kernel/shmmax) 2>&1; true")


def test_a_read_only_root_and_a_filter(runtime, bundle, images):
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
                      "errnoRet": 13}]}
    bundle.sh("while :; do mkdir /dev/shm/x 2>/dev/shm/said; usleep 10000; done")
    id = runtime.start_detached(bundle)
    wait_until(lambda: "denied" in inside(runtime, id, "cat /dev/shm/said"), what="a refusal")
    again(runtime, bundle, images, id)
    inside(runtime, id, "rm /dev/shm/said")
    wait_until(lambda: "denied" in inside(runtime, id, "cat /dev/shm/said; true"),
               what="a refusal by the restored filter")
    assert "Read-only" in inside(runtime, id, "(echo >/x) 2>&1; true")


def test_binds_and_volumes(runtime, bundle, images, tmp_path):
    volume = tmp_path / "volume"
    (volume / "below").mkdir(parents=True)
    (volume / "kept").write_text("kept")
    single = tmp_path / "single"
    single.write_text("one file")
    bundle.mount("/data", volume, "bind", ["rbind"])
    bundle.mount("/data/below", "tmpfs", "tmpfs", ["size=1m"])
    bundle.mount("/var/link/only", volume, "bind", ["bind", "ro"])
    bundle.mount("/etc/single", single, "bind", ["bind", "ro"])
    (bundle.rootfs / "srv").mkdir()
    (bundle.rootfs / "var" / "link").symlink_to("/srv")
    id = start(runtime, bundle, "exec 7>/data/open; echo a >&7; echo b >/data/below/memory; "
                                "while ! [ -e /data/go ]; do usleep 10000; done; echo c >&7; "
                                "sleep 1000")
    wait_until(lambda: inside(runtime, id, "cat /data/below/memory; true") == "b", what="tmpfs")
    again(runtime, bundle, images, id)
    assert inside(runtime, id, "cat /data/kept /etc/single /var/link/only/kept /data/below/memory"
                  ) == "keptone filekeptb"
    assert "Read-only" in inside(runtime, id, "(echo >/srv/only/x) 2>&1; true")
    (volume / "go").touch()
    wait_until(lambda: (volume / "open").read_text() == "a\nc\n", what="the open file")


def test_a_bind_from_another_place(runtime, bundle, images, tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    bundle.mount("/data", tmp_path / "old", "bind", ["bind"])
    id = start(runtime, bundle)
    dump(runtime, images, id)
    bundle.config["mounts"][-1]["source"] = str(tmp_path / "new")
    restore(runtime, bundle, images, id)
    assert inside(runtime, id, "cat /data/who") == "new"


def test_mounts_below_a_recursive_bind(runtime, bundle, images, tmp_path):
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "below"], check=True)
    try:
        (tree / "below" / "deep").write_text("deep")
        bundle.mount("/data", tree, "bind", ["rbind"])
        id = start(runtime, bundle)
        dump(runtime, images, id)
        (tree / "below" / "deep").write_text("deeper")  # the host's own, not a copy
        restore(runtime, bundle, images, id)
        assert inside(runtime, id, "cat /data/below/deep") == "deeper"
        runtime.call("delete", "--force", id)
    finally:
        subprocess.run(["umount", tree / "below"], check=True)


def test_a_bind_below_a_bind_has_its_place_made(runtime, bundle, images, tmp_path):
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
    (tmp_path / "inner" / "file").write_text("within")
    bundle.mount("/data", tmp_path / "outer", "bind", ["bind"])
    bundle.mount("/data/for/inner", tmp_path / "inner", "bind", ["bind"])
    id = start(runtime, bundle)
    dump(runtime, images, id)
    os.rmdir(tmp_path / "outer" / "for" / "inner")
    os.rmdir(tmp_path / "outer" / "for")
    restore(runtime, bundle, images, id)
    assert inside(runtime, id, "cat /data/for/inner/file") == "within"


def test_pipes_are_those_of_the_restore(runtime, bundle, images):
    bundle.config["root"]["readonly"] = False
    bundle.sh("while read line; do echo got $line; echo err $line >&2; done").write()
    id = runtime.new_id()
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = runtime.popen("run", "--bundle", bundle.path, id, **pipes)

    def talk(process, text):
        process.stdin.write(text + "\n")
        process.stdin.flush()
        return process.stdout.readline() + process.stderr.readline()

    assert talk(first, "one") == "got one\nerr one\n"
    dump(runtime, images, id)
    first.wait(10)
    second = runtime.popen("restore", "--image-path", images, "--bundle", bundle.path, id, **pipes)
    assert talk(second, "two") == "got two\nerr two\n"
    second.stdin.close()
    assert second.wait(10) == 0
    assert "does not exist" in runtime.fails("state", id)


def test_exit_code_of_a_foreground_restore(runtime, bundle, images):
    id = start(runtime, bundle, "trap 'exit 7' TERM; while :; do usleep 10000; done")
    dump(runtime, images, id)
    process = runtime.popen("restore", "--image-path", images, "--bundle", bundle.path, id,
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(lambda: '"running"' in runtime.call("state", id, check=False).stdout,
               what="the restored container")
    process.terminate()
    assert process.wait(10) == 7


def test_a_file_as_output(runtime, bundle, images, tmp_path):
    bundle.config["root"]["readonly"] = False
    bundle.sh("while ! [ -e /tmp/go ]; do usleep 10000; done; echo second; sleep 1000").write()
    id = runtime.new_id()
    for name, verb in (("first", ["run"]), ("second", ["restore", "--image-path", images])):
        with open(tmp_path / name, "w", encoding="utf-8") as out:
            assert subprocess.run(runtime.command(*verb, "--detach", "--bundle", bundle.path, id),
                                  stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                  timeout=60).returncode == 0, (tmp_path / name).read_text()
        if name == "first":
            dump(runtime, images, id)
    (bundle.rootfs / "tmp" / "go").touch()
    wait_until(lambda: (tmp_path / "second").read_text() == "second\n", what="output")
    assert (tmp_path / "first").read_text() == ""


def test_terminal(runtime, bundle, images, tmp_path):
    bundle.config["process"]["terminal"] = True
    bundle.config["root"]["readonly"] = False
    bundle.sh("while read line; do echo got $line; done").write()
    id = runtime.new_id()
    console = ConsoleSocket(tmp_path / "console")
    process = runtime.popen("run", "--detach", "--console-socket", console.path, "--bundle",
                            bundle.path, id)
    _, master = console.receive()
    assert process.wait(10) == 0
    os.write(master, b"one\n")
    read_terminal(master, "got one")
    dump(runtime, images, id)
    process = runtime.popen("restore", "--image-path", images, "--detach", "--console-socket",
                            console.path, "--bundle", bundle.path, id)
    _, master = console.receive()
    assert process.wait(30) == 0
    os.write(master, b"two\n")
    read_terminal(master, "got two")
    assert inside(runtime, id, "ls /dev/console") == "/dev/console"


def test_predump_and_parent(runtime, bundle, images, tmp_path):
    id = start(runtime, bundle)
    first = tmp_path / "first"
    said = runtime.call("checkpoint", "--image-path", first, "--pre-dump", id, check=False)
    if said.returncode != 0:  # a kernel without CONFIG_MEM_SOFT_DIRTY
        assert "does not tell which memory was written to" in said.stderr
        assert runtime.status(id) == "running"
        counts_on(bundle)
        return
    counts_on(bundle)
    assert runtime.status(id) == "running"
    dump(runtime, images, id, "--parent-path", "../first", "--auto-dedup")
    restore(runtime, bundle, images, id)
    counts_on(bundle)


def test_hooks(runtime, bundle, images, tmp_path):
    log = tmp_path / "log"
    names = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart",
             "poststop"]
    id = start(runtime, bundle)
    bundle.config["hooks"] = {
        name: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {name} $(cat) >>{log}"]}]
        for name in names}
    dump(runtime, images, id)
    restore(runtime, bundle, images, id)
    runtime.call("delete", "--force", id)
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["prestart", "createRuntime", "poststart",
                                                   "poststop"]
    states = [json.loads(line.split(" ", 1)[1]) for line in lines]
    assert {state["id"] for state in states} == {id}
    assert states[0]["pid"] == states[2]["pid"] > 0


def test_network_namespace_of_somebody_else(runtime, bundle, images, tmp_path):
    """As in a pod: namespaces that outlive the container."""
    holder = subprocess.Popen(["unshare", "-n", "-i", "-u", "sh", "-c",
                               "hostname pod; echo ready; exec sleep 1000"],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "ready\n"
        for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts")):
            bundle.namespace(kind, f"/proc/{holder.pid}/ns/{file}")
        bundle.config.pop("hostname")
        id = start(runtime, bundle)
        again(runtime, bundle, images, id)
        counts_on(bundle)
        for file in ("net", "ipc", "uts"):
            assert os.readlink(f"/proc/{runtime.pid(id)}/ns/{file}") == os.readlink(
                f"/proc/{holder.pid}/ns/{file}")
        assert inside(runtime, id, "hostname") == "pod"
    finally:
        holder.kill()
        holder.wait()


def has_session(init, session):
    """Whether a child of `init`, or the process itself, is of the session."""
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    for pid in [*children, str(session)]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            return True
    return False


def test_pid_namespace_of_somebody_else(runtime, bundle, images):
    holder = subprocess.Popen(["unshare", "-p", "-f", "--kill-child", "sh", "-c",
                               "echo ready; while :; do sleep 0.05; done"],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "ready\n"
        first = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()[0]
        bundle.namespace("pid", f"/proc/{first}/ns/pid")
        id = start(runtime, bundle)
        pid = runtime.pid(id)
        dump(runtime, images, id)
        # Its number is free when those of its session are reaped, too, by the namespace's init.
        wait_until(lambda: not has_session(first, pid), what="its number to be free again")
        restore(runtime, bundle, images, id)
        counts_on(bundle)
        assert os.readlink(f"/proc/{runtime.pid(id)}/ns/pid") == os.readlink(
            f"/proc/{first}/ns/pid")
        runtime.call("delete", "--force", id)
    finally:
        holder.kill()
        holder.wait()


def test_user_namespace(runtime, bundle, images):
    subprocess.run(["chown", "-R", "100000:100000", bundle.rootfs], check=True)
    bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        bundle.config["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    id = start(runtime, bundle)
    dump(runtime, images, id)
    images.chmod(0o700)
    error = runtime.fails("restore", "--image-path", images, "--detach", "--bundle", bundle.path,
                          id)
    assert f"'{images}' is closed to the root of the user namespace; chmod o+x it" in error
    images.chmod(0o711)
    restore(runtime, bundle, images, id)
    counts_on(bundle)
    assert inside(runtime, id, "cat /proc/self/uid_map").split() == ["0", "100000", "65536"]


def test_time_namespace(runtime, bundle, images):
    bundle.namespace("time")
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}
    id = start(runtime, bundle)
    again(runtime, bundle, images, id)
    counts_on(bundle)
    assert float(inside(runtime, id, "cut -d' ' -f1 /proc/uptime")) > 1000000


def test_without_namespaces_for_network_and_ipc(runtime, bundle, images):
    bundle.namespace("network", present=False)
    bundle.namespace("ipc", present=False)
    bundle.config["mounts"] = [m for m in bundle.config["mounts"]
                               if m["destination"] not in ("/sys", "/dev/mqueue")]
    id = start(runtime, bundle)
    again(runtime, bundle, images, id)
    assert os.readlink(f"/proc/{runtime.pid(id)}/ns/net") == os.readlink("/proc/self/ns/net")


def test_a_cgroup_namespace(runtime, bundle, images):
    bundle.namespace("cgroup")
    id = start(runtime, bundle)
    before = inside(runtime, id, "cat /proc/1/cgroup")
    again(runtime, bundle, images, id)
    assert inside(runtime, id, "cat /proc/1/cgroup") == before


def test_established_connections(runtime, bundle, images):
    id = start(runtime, bundle, "sleep 1000 | nc -l -p 99 >/tmp/out & "
               "until netstat -tln | grep -q :99; do usleep 10000; done; "
               "(while ! [ -e /tmp/go ]; do usleep 10000; done; echo across; sleep 1000) | "
               "nc 127.0.0.1 99")
    wait_until(lambda: "ESTABLISHED" in inside(runtime, id, "netstat -tn"), what="a connection")
    error = runtime.fails("checkpoint", "--image-path", images, id)
    assert "tcp-established" in error
    assert runtime.status(id) == "running"
    again(runtime, bundle, images, id, "--tcp-established")
    inside(runtime, id, "touch /tmp/go")
    wait_until(lambda: (bundle.rootfs / "tmp" / "out").read_text() == "across\n", what="the text")


def test_file_locks(runtime, bundle, images):
    """With programs of the host, of which Debian's static busybox has no flock."""
    bundle.mount("/usr", "/usr", "bind", ["rbind", "ro"])
    for name in ("lib", "lib64"):
        (bundle.rootfs / name).symlink_to("usr/" + name)
    id = start(runtime, bundle, "exec 9>/tmp/lock; /usr/bin/flock 9; echo >/tmp/have; sleep 1000")
    wait_until(lambda: (bundle.rootfs / "tmp" / "have").exists(), what="the lock")
    assert "lock" in runtime.fails("checkpoint", "--image-path", images, id)
    assert runtime.status(id) == "running"
    again(runtime, bundle, images, id, "--file-locks")
    assert runtime.call("exec", id, "/usr/bin/flock", "-n", "/tmp/lock", "true",
                        check=False).returncode == 1
    assert runtime.call("exec", id, "/usr/bin/flock", "-n", "/tmp/other", "true").returncode == 0


def test_status_fd(runtime, counter, images):
    read_end, write_end = os.pipe()
    dump(runtime, images, counter, "--status-fd", write_end, pass_fds=[write_end])
    assert os.read(read_end, 10) == b"\0"


def test_work_path_takes_the_log(runtime, bundle, counter, images, tmp_path):
    dump(runtime, images, counter, "--work-path", tmp_path / "work")
    assert (tmp_path / "work" / "dump.log").exists() and not (images / "dump.log").exists()
    restore(runtime, bundle, images, counter, "--work-path", tmp_path / "work")
    assert (tmp_path / "work" / "restore.log").exists()


def test_features_tell(runtime, tmp_path):
    def told(*flags):
        done = runtime.call(*flags, "features")
        assert done.stderr == ""
        return json.loads(done.stdout)["annotations"]["org.opencontainers.runc.checkpoint.enabled"]
    assert shutil.which("criu"), "scripts/install-criu installs it"
    assert told() == "true"
    assert told("--criu", str(tmp_path / "none")) == "false"
    assert re.search(r"checkpoint +\[flags\] ID", runtime.call("--help").stdout)
