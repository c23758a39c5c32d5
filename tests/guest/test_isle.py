"""`isle run --vm`: the engine's verbs on an instance of either kind."""
import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest

from tests.lib import vm
from tests.lib.daemon import Daemon, program, until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("isled"),
                env={"ISLE_VM_KERNEL": str(vm.debian_kernel())}) as d:
        d.load_busybox()
        yield d


@pytest.fixture
def isle(daemon, kind, layered):
    def call(*args, check=True, input=None):
        flags = ["--vm"] if kind == "vm" and args[0] in ("run", "create") else []
        if flags and layered:
            flags.append("--vm-rootfs=erofs")
        done = subprocess.run([program("isle"), "-H", daemon.host, args[0], *flags, *args[1:]],
                              input=input, capture_output=True, text=True, timeout=60, check=False,
                              stdin=subprocess.DEVNULL if input is None else None)
        assert not check or done.returncode == 0, (args, done)
        return done
    yield call
    for c in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{c['Id']}?force=1&v=1")


def test_run(isle):
    done = isle("run", "--rm", "-i", "-e", "A=1", "-w", "/tmp", "-u", "7", "busybox", "sh", "-c",
                "cat; echo $A; pwd; id -u; echo err >&2; exit 5", input="in\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "in\n1\n/tmp\n7\n", "err\n")


def test_inspect_says_which(isle, kind, layered):
    isle("create", "--name", "which", "busybox")
    shown = json.loads(isle("inspect", "which").stdout)[0]
    assert shown["State"].get("Rootfs") == (("erofs" if layered else "fs") if kind == "vm" else
                                            None)
    host = shown["HostConfig"]
    assert (host["Isolation"], host["Runtime"]) == (("vm", "isle-vm") if kind == "vm" else
                                                    ("", "isle-runtime"))


def test_life(isle):
    isle("run", "-d", "--name", "life", "-v", "kept:/data", "busybox", "sh", "-c",
         "echo up; trap 'echo down; exit 0' TERM; while :; do sleep 0.01; done")
    until(lambda: isle("logs", "life").stdout == "up\n", 20, lambda: "its first line")
    assert isle("exec", "-i", "life", "sh", "-c", "cat > /data/f; cat /data/f",
                input="held").stdout == "held"
    assert isle("exec", "life", "sh", "-c", "exit 4", check=False).returncode == 4
    isle("pause", "life")
    isle("unpause", "life")
    isle("stop", "-t", "20", "life")
    assert isle("logs", "life").stdout == "up\ndown\n"
    assert isle("inspect", "-f", "{{.State.ExitCode}}", "life").stdout == "0\n"
    assert isle("run", "--rm", "-v", "kept:/data", "busybox", "cat", "/data/f").stdout == "held"


def test_files_go_in_and_out(isle, tmp_path):
    (tmp_path / "in").write_text("copied")
    isle("run", "-d", "--name", "files", "busybox", "sleep", "1000")
    isle("cp", str(tmp_path / "in"), "files:/root/in")
    isle("exec", "files", "sh", "-c", "cp /root/in /root/out")
    isle("cp", "files:/root/out", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "copied"
    assert "A /root/out" in isle("diff", "files").stdout


def test_files_go_to_what_the_instance_sees(isle, tmp_path):
    """By links, into volumes and memory, and only where there may be files."""
    (tmp_path / "in").write_text("copied")
    os.chown(tmp_path / "in", 1234, 5678)
    isle("run", "-d", "--name", "places", "-v", "kept:/kept", "-v", "bare:/bare:ro", "--tmpfs",
         "/memory", "-u", "app", "busybox", "sleep", "1000")
    isle("exec", "-u", "0", "places", "sh", "-c", "mkdir -p /root/real/d /kept/below; "
         "ln -s /root/real /root/link; ln -s ../../../../kept/below /root/out; true")
    for place in ("/root/link/in", "/root/link/d/in", "/root/out/in", "/kept/below/two",
                  "/memory/in"):
        isle("cp", str(tmp_path / "in"), f"places:{place}")
    isle("cp", "-a", str(tmp_path / "in"), "places:/root/f")
    shown = isle("exec", "-u", "0", "places", "sh", "-c", "cat /root/real/in /root/real/d/in "
                 "/kept/below/in /kept/below/two /memory/in; stat -c ' %u:%g' /root/real/in "
                 "/kept/below/two /root/f").stdout
    assert shown == "copied" * 5 + " 1234:5678\n 1234:5678\n 1000:1001\n"
    for place, story in (("/bare/in", "container rootfs or volume is marked read-only"),
                         ("/none/in", "Could not find the file /none in")):
        error = isle("cp", str(tmp_path / "in"), f"places:{place}", check=False)
        assert error.returncode == 1 and story in error.stderr, (place, error)


def test_files_come_from_what_the_instance_sees(isle, daemon, tmp_path):
    """By links, out of volumes and memory, as it has them."""
    isle("run", "-d", "--name", "seen", "-v", "kept:/kept", "--tmpfs", "/memory", "busybox", "sh", "-c",
         "mkdir -p /kept/below /memory/d /root/real; echo volume > /kept/below/f; "
         "echo memory > /memory/d/f; ln -s ../root/real/g /memory/link; echo real > /root/real/g; "
         "ln -s /kept/below /root/out; ln /memory/d/f /memory/d/same; touch -d @77 /memory/d/f; chown 12:34 "
         "/memory/d/f; chmod 4751 /memory/d/f; ln -sfn /memory /kept/there; echo up; exec sleep 1000")
    until(lambda: isle("logs", "seen").stdout == "up\n", 30, lambda: "its files")
    for path, text in (("/kept/below/f", "volume\n"), ("/root/out/f", "volume\n"),
                       ("/memory/d/f", "memory\n"), ("/kept/there/d/same", "memory\n")):
        isle("cp", f"seen:{path}", str(tmp_path / "got"))
        assert (tmp_path / "got").read_text() == text, path
    isle("cp", "-L", "seen:/memory/link", str(tmp_path / "led"))
    assert (tmp_path / "led").read_text() == "real\n"
    isle("cp", "seen:/memory/link", str(tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == "../root/real/g"
    isle("cp", "seen:/memory/d", str(tmp_path / "tree"))
    st = (tmp_path / "tree" / "f").stat()
    assert (st.st_mtime, st.st_mode & 0o7777, st.st_nlink) == (77, 0o4751, 2)
    done = subprocess.run([program("isle"), "-H", daemon.host, "cp", "seen:/memory/d", "-"],
                          stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert {(m.uid, m.gid) for m in tar if m.isfile()} == {(12, 34)}
    (tmp_path / "all").mkdir()
    isle("cp", "seen:/memory/.", str(tmp_path / "all"))
    assert sorted(os.listdir(tmp_path / "all")) == ["d", "link"]
    for path, story in (("/memory/none", "Could not find the file /memory/none in container seen"),
                        ("/memory/d/f/", "not a directory")):
        error = isle("cp", f"seen:{path}", str(tmp_path / "no"), check=False)
        assert error.returncode == 1 and story in error.stderr, (path, error)
    assert not (tmp_path / "no").exists()


def test_large_files_come_whole_and_a_reader_may_go(isle, daemon, tmp_path):
    isle("run", "-d", "--name", "large", "--tmpfs", "/memory", "busybox", "sh", "-c",
         "dd if=/dev/urandom of=/memory/f bs=1M count=9; echo up; exec sleep 1000")
    until(lambda: "up\n" in isle("logs", "large").stdout, 30, lambda: "its file")
    isle("cp", "large:/memory/f", str(tmp_path / "f"))
    there = isle("exec", "large", "sha256sum", "/memory/f").stdout.split()[0]
    assert hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest() == there
    process = subprocess.Popen([program("isle"), "-H", daemon.host, "cp", "large:/memory/f", "-"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.read(1000)
    process.kill()
    process.communicate()
    until(lambda: not running("archive", "large"), 30, lambda: "the end of the archive")


def running(verb, name):
    """Programs of the runtime that do this for an instance."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if verb in words and name in words:
            found.append(pid)
    return found


def tar_of(path, *infos, compress=""):
    with tarfile.open(path, f"w:{compress}") as tar:
        for info, content in infos:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path.read_bytes()


def test_archives_go_in_whole_or_are_told(isle, daemon, tmp_path):
    isle("run", "-d", "--name", "whole", "busybox", "sleep", "1000")
    put = "/containers/whole/archive?noOverwriteDirNonDir=1&path="
    big = os.urandom(5 << 20)
    one = tarfile.TarInfo("big")
    body = tar_of(tmp_path / "tar", (one, big), compress="gz")
    assert daemon.request("PUT", put + "/root", body=body).status == 200
    assert isle("exec", "whole", "sha256sum", "/root/big").stdout.split()[0] == \
        hashlib.sha256(big).hexdigest()
    out = tarfile.TarInfo("../out")
    whole = tar_of(tmp_path / "tar", (one, big))
    plain = tar_of(tmp_path / "tar", (out, b"x"), (one, big))
    directory = tarfile.TarInfo("big")
    directory.type = tarfile.DIRTYPE
    for body, path, status, story in (
            (plain, "/root", 400, "invalid name '../out' in the archive"),
            (big, "/root", 400, "Damaged tar archive"),
            (whole[:len(whole) // 2], "/root", 400, "Truncated tar archive"),
            (tar_of(tmp_path / "tar", (directory, b"")), "/root", 400,
             'cannot overwrite non-directory "/root" with directory "big"'),
            (body, "/none", 404, "Could not find the file /none in container whole"),
            (body, "/etc/passwd", 400, "extraction point is not a directory")):
        answer = daemon.request("PUT", put + path, body=body)
        assert answer.status == status and story in answer.json["message"], (path, answer.json)


def test_restart_keeps_what_was_written(isle):
    isle("run", "-d", "--name", "again", "busybox", "sh", "-c", "echo x >> /n; cat /n; sleep 1000")
    until(lambda: isle("logs", "again").stdout == "x\n", 20, lambda: "its first run")
    isle("restart", "-t", "0", "again")
    until(lambda: isle("logs", "again").stdout == "x\nx\nx\n", 20, lambda: "its second run")


def test_program_that_is_not_there(isle):
    done = isle("run", "--rm", "busybox", "nonexistent", check=False)
    assert done.returncode == 127
    assert "executable file not found in $PATH" in done.stderr


def test_out_of_memory_is_told(isle):
    isle("run", "--name", "hungry", "-m", "32m", "busybox", "tail", "/dev/zero", check=False)
    assert isle("inspect", "-f", "{{.State.ExitCode}}", "hungry").stdout == "137\n"


@pytest.mark.parametrize("flags, text", [
    (["--network", "host"], "network mode 'host' needs the kernel of the host"),
    (["--pid", "host"], "PID mode 'host' needs the kernel of the host"),
    (["--privileged"], "--privileged is not supported in a virtual machine yet"),
])
def test_what_a_machine_cannot_share(daemon, flags, text):
    done = subprocess.run([program("isle"), "-H", daemon.host, "run", "--rm", "--vm", *flags,
                           "busybox"], capture_output=True, text=True, check=False)
    assert done.returncode == 125 and text in done.stderr


def test_machines_by_default(tmp_path):
    """isled --default-runtime isle-vm; a container then asks for being one."""
    kernel = vm.debian_kernel()
    release = kernel.name.removeprefix("vmlinuz-")
    with Daemon(tmp_path, ["--default-runtime", "isle-vm", "--vm-rootfs", "erofs", "--vm-cpu-model",
                           "x86-64"],
                env={"ISLE_VM_KERNEL": str(kernel)}) as d:
        d.load_busybox()
        d.out("create", "--name", "layered", "busybox")
        subprocess.run([program("isle"), "-H", d.host, "create", "--name", "shared", "--vm-rootfs",
                        "fs", "busybox"], check=True, capture_output=True)
        assert [d.inspect(name)["State"].get("Rootfs") for name in ("layered", "shared")] == [
            "erofs", "fs"]
        assert d.inspect("shared")["State"].get("CpuModel") == "x86-64"
        flags = d.out("run", "--rm", "busybox", "grep", "-m1", "flags", "/proc/cpuinfo")
        assert "pni" not in flags.split()
        assert d.out("run", "--rm", "busybox", "uname", "-r") == release
        assert d.out("run", "--rm", "--runtime", "isle-runtime", "busybox", "uname",
                     "-r") == os.uname().release
        assert d.get("/info").json["DefaultRuntime"] == "isle-vm"
        done = subprocess.run([program("isle"), "-H", d.host, "run", "--rm", "--network", "host",
                               "busybox"], capture_output=True, text=True, check=False)
        assert done.returncode == 125 and "--runtime isle-runtime" in done.stderr
        d.out("run", "-d", "--name", "plain", "--network", "host", "--runtime", "isle-runtime",
              "busybox", "sleep", "1000")
        assert d.inspect("plain")["HostConfig"]["Runtime"] == "isle-runtime"
        assert "isle.vm.rootfs" not in (d.inspect("plain")["HostConfig"].get("Annotations", {}))
        d.out("rm", "-f", "plain")


@pytest.mark.parametrize("option, value", [("--default-runtime", "kata"), ("--vm-rootfs", "ext4"),
                                           ("--vm-cpu-model", "i486")])
def test_default_that_is_not_known(tmp_path, option, value):
    done = subprocess.run([program("isled"), "--root", tmp_path / "root", "--run", tmp_path / "run",
                           option, value], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert f"{option} '{value}' is not known" in done.stderr


def test_docker_asks_by_runtime(daemon):
    out = daemon.docker("run", "--rm", "--runtime", "isle-vm", "busybox", "uname", "-r").stdout
    assert out.strip() == vm.debian_kernel().name.removeprefix("vmlinuz-")


def test_cpu_model_is_chosen_and_shown(isle, kind):
    if kind == "container":
        error = isle("create", "--cpu-model", "x86-64", "busybox", check=False).stderr
        assert "(--cpu-model) is for virtual machines; add --vm" in error
        return
    error = isle("create", "--cpu-model", "i486", "busybox", check=False).stderr
    assert error.count("\n") == 1
    assert "(--cpu-model) 'i486': there are host, x86-64, x86-64-v2 and x86-64-v3" in error
    isle("create", "--name", "any", "busybox")
    assert json.loads(isle("inspect", "any").stdout)[0]["State"].get("CpuModel") is None
    for model, has in (("x86-64", False), ("x86-64-v2", True)):
        done = isle("run", "--name", model, "--cpu", "soft", "--cpu-model", model, "busybox", "grep", "-m1",
                    "flags", "/proc/cpuinfo")
        assert ("sse4_2" in done.stdout.split()) is has and "avx" not in done.stdout.split()
        assert isle("inspect", "-f", "{{.State.CpuModel}}", model).stdout == model + "\n"


def test_cpu_is_chosen_and_shown(isle, kind):
    if kind == "container":
        error = isle("create", "--cpu", "soft", "busybox", check=False).stderr
        assert "(--cpu) is for virtual machines" in error and "--vm" in error
        isle("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
        assert isle("ps", "--format", "[{{.Cpu}}]").stdout == "[]\n"
        return
    assert "'abacus': there are auto, kvm and soft" in isle("create", "--cpu", "abacus", "busybox",
                                                            check=False).stderr
    isle("run", "-d", "--name", "asked", "--cpu", "soft", "busybox", "sleep", "1000")
    assert isle("inspect", "-f", "{{.State.Cpu}}", "asked").stdout == "soft\n"
    isle("run", "-d", "--name", "chosen", "busybox", "sleep", "1000")
    shown = isle("ps", "--format", "{{.Names}} {{.Cpu}}").stdout.splitlines()
    well = os.access("/dev/kvm", os.R_OK | os.W_OK) and (os.path.exists("/sys/module/kvm_intel") or
                                                         os.path.exists("/sys/module/kvm_amd"))
    assert shown == ["chosen " + ("kvm" if well else "soft"), "asked soft"]
    isle("kill", "asked")
    until(lambda: isle("inspect", "-f", "{{.State.Running}}", "asked").stdout == "false\n", 20,
          lambda: "its end")
    assert "Cpu" not in json.loads(isle("inspect", "asked").stdout)[0]["State"]


def test_read_only(isle):
    done = isle("run", "--rm", "--read-only", "-v", "rov:/new", "--tmpfs", "/scratch", "busybox", "sh",
                "-c", "touch /new/a /scratch/b && ls /new; touch /c", check=False)
    assert done.stdout == "a\n" and "/c: Read-only file system" in done.stderr


def test_update(isle, kind):
    """Limits change while it runs, and are those of its next start."""
    isle("run", "-d", "--name", "sized", "-m", "256m", "--cpus", "1", "--annotation",
         "isle.vm.cpus-max=2", "busybox", "sleep", "1000") if kind == "vm" else isle(
        "run", "-d", "--name", "sized", "-m", "256m", "--cpus", "1", "busybox", "sleep", "1000")
    assert isle("update", "-m", "128m", "--memory-swap", "-1", "--cpus", "2", "sized").stdout == "sized\n"
    shown = isle("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "sized").stdout
    assert shown == f"{128 << 20} 2000000000\n"
    if kind == "vm":
        assert isle("exec", "sized", "nproc").stdout == "2\n"
        assert isle("exec", "sized", "cat", "/sys/fs/cgroup/memory.max").stdout == f"{128 << 20}\n"
        error = isle("update", "-m", "2g", "--memory-swap", "-1", "sized", check=False).stderr
        assert "Cannot update container" in error and "isle.vm.memory-max" in error
        assert isle("inspect", "-f", "{{.HostConfig.Memory}}", "sized").stdout == f"{128 << 20}\n"


def test_top(isle):
    isle("run", "-d", "--name", "busy", "busybox", "sh", "-c", "sleep 1001 & exec sleep 1000")

    def commands():
        return sorted(line.split(None, 7)[7] for line in isle("top", "busy").stdout.splitlines())

    until(lambda: commands() == ["CMD", "sleep 1000", "sleep 1001"], 20, lambda: commands())
    assert isle("top", "busy").stdout.splitlines()[0].split() == ["UID", "PID", "PPID", "C", "STIME",
                                                                  "TTY", "TIME", "CMD"]
    lines = isle("top", "busy", "-eo", "pid,comm").stdout.splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert [line.split()[1] for line in lines[1:]] == ["sleep", "sleep"]
    assert "PID" in isle("top", "busy", "-eo", "comm", check=False).stderr
