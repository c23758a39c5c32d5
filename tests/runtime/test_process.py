"""Identity, limits, capabilities, filter, terminal: what the program finds."""
import json
import os
import re
import signal
import socket
import subprocess

import pytest

from tests.lib.runtime import ConsoleSocket, read_terminal, wait_until


def status_field(text, name):
    return re.search(rf"^{name}:\s*(.*)$", text, re.M).group(1)


def test_nothing_is_inherited_but_standard_descriptors(runtime, bundle):
    read_end, write_end = os.pipe()
    try:
        out = runtime.output(bundle.sh("ls /proc/self/fd | sort -n | tr '\\n' ' '"),
                             pass_fds=(read_end, write_end))
        assert out.split()[:3] == ["0", "1", "2"]
        assert len(out.split()) == 4  # and the directory that ls reads
    finally:
        os.close(read_end)
        os.close(write_end)


def test_preserve_fds(runtime, bundle, tmp_path):
    path = tmp_path / "passed"
    path.write_text("kept open\n")
    fd = os.open(path, os.O_RDONLY)
    try:
        bundle.sh("cat <&3").write()
        done = subprocess.run(
            ["bash", "-c", f'exec 3<&{fd} {fd}<&-; exec "$@"', "bash",
             *runtime.command("run", "--preserve-fds", "1", "--bundle", bundle.path,
                              runtime.new_id())],
            pass_fds=(fd,), capture_output=True, text=True, timeout=30)
        assert done.stdout == "kept open\n", done.stderr
    finally:
        os.close(fd)


def test_socket_activation_is_passed_on(runtime, bundle):
    listener = socket.socket(socket.AF_UNIX)
    bundle.sh("echo $LISTEN_FDS $LISTEN_PID $$; readlink /proc/self/fd/3").write()
    done = subprocess.run(
        ["bash", "-c", f'exec 3<&{listener.fileno()}; exec "$@"', "bash",
         *runtime.command("run", "--bundle", bundle.path, runtime.new_id())],
        pass_fds=(listener.fileno(),), env={**os.environ, "LISTEN_FDS": "1"},
        capture_output=True, text=True, timeout=30)
    lines = done.stdout.splitlines()
    assert lines[0] == "1 1 1" and lines[1].startswith("socket:")


def test_environment_is_the_specs_alone(runtime, bundle):
    bundle.config["process"]["env"] = ["PATH=/bin", "A=b=c", "EMPTY="]
    env = dict(line.split("=", 1) for line in
               runtime.output(bundle.set_args("env")).splitlines())
    assert env == {"PATH": "/bin", "A": "b=c", "EMPTY": "", "HOME": "/root"}


def test_home_comes_from_the_containers_passwd(runtime, bundle):
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert runtime.output(bundle.sh("echo $HOME")) == "/home/user\n"
    bundle.config["process"]["user"] = {"uid": 4711, "gid": 1}
    assert runtime.output(bundle.sh("echo $HOME")) == "/\n"
    bundle.config["process"]["env"].append("HOME=/given")
    assert runtime.output(bundle.sh("echo $HOME")) == "/given\n"


def test_user_groups_and_umask(runtime, bundle):
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6],
                                        "umask": 0o027}
    out = runtime.output(bundle.sh("cat /proc/self/status; umask"))
    assert status_field(out, "Uid").split() == ["1000"] * 4
    assert status_field(out, "Gid").split() == ["1001"] * 4
    assert status_field(out, "Groups").split() == ["5", "6"]
    assert out.splitlines()[-1] == "0027"


def test_default_umask(runtime, bundle):
    assert runtime.output(bundle.sh("umask")) == "0022\n"


def test_capabilities(runtime, bundle):
    bundle.config["process"]["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    out = runtime.output(bundle.sh("cat /proc/self/status"))
    assert int(status_field(out, "CapBnd"), 16) == 1 << 5 | 1 << 0
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status_field(out, name), 16) == 1 << 5


def test_no_capabilities_at_all(runtime, bundle):
    del bundle.config["process"]["capabilities"]
    out = runtime.output(bundle.sh("cat /proc/self/status"))
    for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status_field(out, name), 16) == 0


def test_a_capability_we_have_not_got_is_named(runtime, bundle, leaks):
    have = int(status_field(open("/proc/self/status").read(), "CapPrm"), 16)
    if have >> 24 & 1:
        pytest.skip("this machine grants CAP_SYS_RESOURCE")
    bundle.config["process"]["capabilities"] = {
        k: ["CAP_SYS_RESOURCE"] for k in ("bounding", "effective", "permitted")}
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "unable to apply caps" in error and "CAP_SYS_RESOURCE" in error
    leaks.check()


def test_unknown_capability_is_a_warning(runtime, bundle):
    """As the specification wants: newer specs run on older runtimes."""
    for kind in ("bounding", "permitted", "effective"):
        bundle.config["process"]["capabilities"][kind] = ["CAP_FLY", "CAP_KILL"]
    done = runtime.run(bundle.set_args("cat", "/proc/self/status"))
    assert done.stderr.count("CAP_FLY") == 1
    assert int(status_field(done.stdout, "CapEff"), 16) == 1 << 5


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(runtime, bundle, wanted):
    bundle.config["process"]["noNewPrivileges"] = wanted
    out = runtime.output(bundle.sh("cat /proc/self/status"))
    assert status_field(out, "NoNewPrivs") == str(int(wanted))


def test_rlimits(runtime, bundle):
    bundle.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    assert runtime.output(bundle.sh("ulimit -Sn; ulimit -Hn; ulimit -c")) == "100\n200\n0\n"


def test_raising_a_limit_without_the_right_is_explained(runtime, bundle, leaks):
    have = int(status_field(open("/proc/self/status").read(), "CapPrm"), 16)
    if have >> 24 & 1:
        pytest.skip("this machine grants CAP_SYS_RESOURCE")
    bundle.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "error setting rlimit RLIMIT_NOFILE" in error and "CAP_SYS_RESOURCE" in error
    leaks.check()


def test_unknown_rlimit(runtime, bundle):
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}]
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "RLIMIT_LUCK" in error


def test_oom_score(runtime, bundle):
    bundle.config["process"]["oomScoreAdj"] = 321
    assert runtime.output(bundle.sh("cat /proc/self/oom_score_adj")) == "321\n"


def test_signals_are_at_their_defaults(runtime, bundle):
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        out = runtime.output(bundle.set_args("cat", "/proc/self/status"))
        assert int(status_field(out, "SigIgn"), 16) == 0
        assert int(status_field(out, "SigBlk"), 16) == 0
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_session_of_its_own(runtime, bundle):
    assert runtime.output(bundle.sh("cut -d' ' -f6 /proc/self/stat")) == "1\n"


def test_session_keyring_is_new(runtime, bundle):
    bundle.config["linux"]["maskedPaths"].remove("/proc/keys")
    id = runtime.new_id()
    assert f"_ses.{id}" in runtime.output(bundle.sh("cat /proc/keys"), id=id)
    id = runtime.new_id()
    out = runtime.output(bundle.sh("cat /proc/keys"), "--no-new-keyring", id=id)
    assert f"_ses.{id}" not in out


def test_scheduler_and_io_priority(runtime, bundle):
    bundle.config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    bundle.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    out = runtime.output(bundle.sh("cut -d' ' -f19,41 /proc/self/stat; ionice -p $$"))
    assert out.splitlines()[0] == "5 3"
    assert "idle" in out


def test_personality(runtime, bundle):
    bundle.config["linux"]["personality"] = {"domain": "LINUX32"}
    assert runtime.output(bundle.set_args("uname", "-m")) == "i686\n"


def test_program_is_found_like_a_shell_does(runtime, bundle):
    script = bundle.rootfs / "bin" / "mine"
    script.write_text("#!/bin/sh\necho \"$0 $1\"\n")
    script.chmod(0o755)
    assert runtime.output(bundle.set_args("mine", "x")) == "/bin/mine x\n"
    assert runtime.output(bundle.set_args("/bin/mine", "y")) == "/bin/mine y\n"
    bundle.config["process"]["cwd"] = "/bin"
    assert runtime.output(bundle.set_args("./mine", "z")) == "./mine z\n"


@pytest.mark.parametrize("verb", ["run", "create"])
def test_missing_program(runtime, bundle, leaks, verb):
    bundle.set_args("nonexistent").write()
    error = runtime.fails(verb, "--bundle", bundle.path, runtime.new_id(), code=1)
    assert "executable file `nonexistent` not found in $PATH: No such file or directory" in error
    bundle.set_args("/no/such").write()
    error = runtime.fails(verb, "--bundle", bundle.path, runtime.new_id(), code=1)
    assert 'exec: "/no/such": No such file or directory' in error
    leaks.check()


def test_program_without_permission(runtime, bundle):
    (bundle.rootfs / "bin" / "plain").write_text("text")
    error = runtime.fails("run", "--bundle", bundle.set_args("/bin/plain").write().path,
                          runtime.new_id(), code=1)
    assert "Permission denied" in error
    error = runtime.fails("run", "--bundle", bundle.set_args("/tmp").write().path,
                          runtime.new_id(), code=1)
    assert "Is a directory" in error


def test_program_of_another_format(runtime, bundle, leaks):
    (bundle.rootfs / "bin" / "odd").write_bytes(b"\0\1\2\3")
    (bundle.rootfs / "bin" / "odd").chmod(0o755)
    bundle.set_args("odd").write()
    error = runtime.fails("run", "--bundle", bundle.path, runtime.new_id(), code=1)
    assert "exec /bin/odd: Exec format error" in error
    id = runtime.create(bundle)
    assert "exec /bin/odd: Exec format error" in runtime.fails("start", id, code=1)
    runtime.wait_status(id, "stopped")
    runtime.call("delete", id)
    leaks.check()


def test_seccomp_actions(runtime, bundle):
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["chmod", "fchmodat", "fchmod", "not_a_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        ]}
    out = runtime.output(bundle.sh("cat /proc/self/status; mkdir /tmp/x 2>&1; "
                                   "chmod 1 /tmp 2>&1; linux32 true 2>&1; hostname x; echo $?"))
    assert status_field(out, "Seccomp") == "2"
    assert "Function not implemented" in out
    assert "Operation not permitted" in out
    assert "I/O error" in out or "Input/output error" in out
    assert out.splitlines()[-1] == str(128 + signal.SIGSYS)


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
def test_seccomp_with_an_allow_list(runtime, bundle, no_new_privileges, uid):
    """A profile that allows only what a small program needs is loaded late enough not to
    hit the runtime itself."""
    names = ("execve exit exit_group read write writev openat open close fstat newfstatat stat "
             "mmap munmap mprotect brk arch_prctl set_tid_address set_robust_list rseq prlimit64 "
             "readlink getrandom getuid getgid geteuid getegid prctl capset ioctl uname").split()
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}
    bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    bundle.config["process"]["user"] = {"uid": uid, "gid": uid}
    assert runtime.output(bundle.set_args("echo", "works")) == "works\n"


def test_seccomp_notify_sends_the_listener(runtime, bundle, tmp_path):
    path = tmp_path / "listener"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path),
        "listenerMetadata": "for the agent",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    listener.settimeout(10)
    connection, _ = listener.accept()
    text, fds, _, _ = socket.recv_fds(connection, 65536, 4)
    message = json.loads(text)
    assert message["fds"] == ["seccompFd"]
    assert message["metadata"] == "for the agent"
    assert message["state"]["id"] == id
    assert message["pid"] == runtime.pid(id)
    assert len(fds) == 1
    assert "seccomp" in os.readlink(f"/proc/self/fd/{fds[0]}")
    os.close(fds[0])


def test_seccomp_agent_that_is_not_there(runtime, bundle, tmp_path):
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "nobody"),
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
    error = runtime.fails("run", "--bundle", bundle.set_args("true").write().path,
                          runtime.new_id(), code=1)
    assert "failed to connect with seccomp agent" in error and str(tmp_path / "nobody") in error


def test_seccomp_mistakes_are_named(runtime, bundle):
    def error():
        return runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                                         "architectures": ["SCMP_ARCH_PDP11"]}
    assert "SCMP_ARCH_PDP11" in error()
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
    assert "listenerPath" in error()
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                                         "flags": ["SECCOMP_FILTER_FLAG_MAGIC"]}
    assert "SECCOMP_FILTER_FLAG_MAGIC" in error()


def test_terminal_by_console_socket(runtime, bundle, tmp_path):
    console = ConsoleSocket(tmp_path / "console")
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["consoleSize"] = {"height": 33, "width": 99}
    bundle.sh("tty; stty size; ls -la /dev/console; read line; echo got $line; exit 3").write()
    id = runtime.new_id()
    process = runtime.popen("create", "--console-socket", console.path, "--bundle", bundle.path,
                            id)
    name, master = console.receive()
    assert process.wait(10) == 0
    runtime.call("start", id)
    out = read_terminal(master, "console")
    assert "/dev/pts/0" in out and "33 99" in out
    os.write(master, b"hello\n")
    assert "got hello" in read_terminal(master, "got hello")
    runtime.wait_status(id, "stopped")
    os.close(master)


def test_terminal_in_the_foreground(runtime, bundle):
    """The runtime itself stands between our terminal and the container's."""
    import pty
    bundle.config["process"]["terminal"] = True
    bundle.sh("tty; read line; echo got $line; stty size; exit 5").write()
    master, slave = pty.openpty()
    process = runtime.popen("run", "--bundle", bundle.path, runtime.new_id(), stdin=slave,
                            stdout=slave, stderr=slave)
    os.close(slave)
    read_terminal(master, "/dev/pts/0")
    os.write(master, b"there\r")
    assert "got there" in read_terminal(master, "got there")
    assert process.wait(10) == 5
    os.close(master)


def test_terminal_needs_somebody_to_take_it(runtime, bundle):
    bundle.config["process"]["terminal"] = True
    bundle.write()
    assert "without setting console socket" in runtime.fails(
        "create", "--bundle", bundle.path, runtime.new_id(), code=1)
    bundle.config["process"]["terminal"] = False
    bundle.write()
    assert "cannot use console socket" in runtime.fails(
        "create", "--console-socket", "/nowhere", "--bundle", bundle.path, runtime.new_id(), code=1)


def test_standard_descriptors_belong_to_the_user(runtime, bundle):
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert runtime.output(bundle.sh("echo reopened > /dev/stdout")) == "reopened\n"


def test_closed_standard_descriptors(runtime, bundle):
    """A caller without standard descriptors does not put ours in their place."""
    bundle.sh("ls /proc/self/fd | wc -l > /dev/shm/n; exit 4").write()
    code = subprocess.run(["sh", "-c", 'exec 0<&- 1>&- 2>&-; exec "$@"', "sh",
                           *runtime.command("run", "--bundle", bundle.path, runtime.new_id())],
                          timeout=30, check=False).returncode
    assert code == 4


def test_cwd_that_leads_outside_is_refused(runtime, bundle):
    """CVE-2024-21626: a descriptor of the host as working directory."""
    for fd in range(3, 12):
        bundle.config["process"]["cwd"] = f"/proc/self/fd/{fd}"
        done = runtime.run(bundle.sh("ls .. ; ls ../../../.."), check=False)
        assert "usr" not in done.stdout.split()
        if done.returncode:
            assert "cwd" in done.stderr or "outside" in done.stderr


def test_memory_policy_and_unknown_names(runtime, bundle):
    bundle.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    done = runtime.run(bundle.sh("cat /proc/self/numa_maps | head -1"), check=False)
    if "Function not implemented" in done.stderr:
        pytest.skip("the kernel has no NUMA")
    assert "bind:0" in done.stdout or done.stdout == ""
    bundle.config["linux"]["memoryPolicy"]["flags"] = ["MPOL_F_UNKNOWN"]
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "MPOL_F_UNKNOWN" in error


def test_zombies_are_not_left_by_a_detached_run(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("true"))
    runtime.wait_status(id, "stopped")
    wait_until(lambda: runtime.status(id) == "stopped", what="the end")


def test_working_directory_that_only_the_runtime_may_enter(runtime, bundle):
    """Root without capabilities is stopped by modes; the directory was entered before."""
    (bundle.rootfs / "closed").mkdir(mode=0o700)
    os.chown(bundle.rootfs / "closed", 1000, 1000)
    bundle.config["process"]["cwd"] = "/closed"
    bundle.config["process"]["capabilities"] = {}
    assert runtime.output(bundle.set_args("pwd")) == "/closed\n"
    bundle.config["process"]["cwd"] = "/"
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    assert runtime.call("exec", "--cwd", "/closed", id, "pwd").stdout == "/closed\n"


def test_output_of_a_terminal_has_plain_newlines(runtime, bundle):
    bundle.config["process"]["terminal"] = True
    for _ in range(20):  # from the very first byte
        assert runtime.output(bundle.sh("echo one; echo two")) == "one\ntwo\n"


def test_no_pivot_leaves_no_procfs_bare(runtime, bundle):
    """A new procfs would show what is masked in ours; the kernel refuses one unless it finds
    an instance that hides nothing, such as the host's."""
    bundle.config["process"]["capabilities"] = {
        k: ["CAP_SETFCAP", "CAP_SYS_ADMIN"] for k in ("bounding", "permitted", "effective")}
    bundle.sh("unshare -mrpf sh -c 'mount -t proc none /proc' && echo mounted")
    for flags in ((), ("--no-pivot",)):
        done = runtime.run(bundle, *flags, check=False)
        assert done.returncode != 0 and "mounted" not in done.stdout
        assert "permission denied" in (done.stdout + done.stderr).lower()
        assert runtime.output(bundle.set_args("ls", "/"), *flags)
        bundle.sh("unshare -mrpf sh -c 'mount -t proc none /proc' && echo mounted")


def test_flags_may_follow_the_id(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    runtime.call("update", id, "--pids-limit", "77")
    assert '"limit":77' in runtime.call("events", id, "--stats").stdout.replace(" ", "")
    runtime.call("delete", id, "--force")


def test_exec_environment_takes_the_place_of_the_containers(runtime, bundle):
    bundle.config["process"]["env"] = ["PATH=/bin", "A=old"]
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    out = runtime.call("exec", "-e", "A=new", "--env", "B=b", "-e", "A=newest", id, "env").stdout
    assert sorted(line for line in out.splitlines() if line[0] in "AB") == ["A=newest", "B=b"]


@pytest.mark.parametrize("settings, said", [
    ({"deadline": 20_000_000}, "requires `runtime`"),
    ({"runtime": 10_000_000}, "requires `deadline`"),
    ({"runtime": 0, "deadline": 20_000_000}, "runtime must be greater than 0"),
    ({"runtime": 1023, "deadline": 20_000_000}, "must be between 1024"),
    ({"runtime": 30_000_000, "deadline": 20_000_000}, "must be <= its deadline 20000000"),
    ({"runtime": 10_000_000, "deadline": 20_000_000, "period": 15_000_000},
     "must be <= its period 15000000"),
])
def test_deadline_scheduling_that_cannot_be(runtime, bundle, settings, said):
    bundle.config["process"]["scheduler"] = {"policy": "SCHED_DEADLINE", **settings}
    assert said in runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)


def test_listener_without_rules_is_sent_the_descriptor(runtime, bundle, tmp_path):
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW",
                                             "listenerPath": str(path)}
        assert runtime.output(bundle.set_args("echo", "ran")) == "ran\n"
        connection = listener.accept()[0]
        data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        assert len(fds) == 1 and b'"seccompFd"' in data
        os.close(fds[0])
        connection.close()
