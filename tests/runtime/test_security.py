"""Attacks known from other runtimes. Each fails here; without the defence it would not."""
import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.lib.runtime import ConsoleSocket, wait_until

SYS_MOUNT_SETATTR, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOEXEC = 442, 1, 8
ATTACK_CAPS = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SETUID"]


@pytest.fixture
def private_binary(runtime, tmp_path):
    """The attacks go against a copy of the program."""
    copy = tmp_path / "isle-runtime"
    subprocess.run(["cp", runtime.program, copy], check=True)
    runtime.program = str(copy)
    return copy


@pytest.fixture
def strong(bundle):
    """Root in the container, allowed to look at any process it can see."""
    bundle.config["process"]["capabilities"] = {
        k: ATTACK_CAPS for k in ("bounding", "effective", "permitted")}
    bundle.config["root"]["readonly"] = False
    return bundle


def held_executables(pid):
    """A descriptor of every file that procfs says a process executes or maps."""
    ways = [Path(f"/proc/{pid}/exe"), *Path(f"/proc/{pid}/map_files").iterdir()]
    return [f"/proc/self/fd/{os.open(way, os.O_PATH)}" for way in ways]


def test_waiting_process_has_no_way_to_the_binary(runtime, bundle, private_binary):
    """CVE-2019-5736: the first process, before it executes the program. Not even root of
    the host gets through it what an attacker in the container needs."""
    id = runtime.create(bundle.set_args("true"))
    pid = runtime.pid(id)
    binary = os.stat(private_binary)
    for fd in os.listdir(f"/proc/{pid}/fd"):
        link = os.stat(f"/proc/{pid}/fd/{fd}")
        assert (link.st_dev, link.st_ino) != (binary.st_dev, binary.st_ino)
    with pytest.raises(OSError, match="Text file busy"):
        os.open(private_binary, os.O_RDWR)
    held = held_executables(pid)
    with pytest.raises(PermissionError):
        subprocess.run([f"/proc/{pid}/exe", "--version"], check=True, capture_output=True)
    runtime.call("delete", "--force", id)  # from here on it is no busy text
    for way in held:
        assert mount_writable(way) == errno.EINVAL
        for flags in os.O_RDWR, os.O_WRONLY | os.O_TRUNC:
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(way, flags)
        with pytest.raises(OSError, match="Read-only file system"):
            os.chmod(way, 0o777)
        os.close(int(Path(way).name))


def mount_writable(path):
    """Error of mount_setattr(2) that takes read-only and noexec away from a mount."""
    class Attributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]
    wanted = Attributes(clear=MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(SYS_MOUNT_SETATTR, -100, os.fsencode(path), 0, ctypes.byref(wanted),
                        ctypes.sizeof(wanted))
    return ctypes.get_errno() if done < 0 else 0


@pytest.mark.parametrize("script", [False, True])
def test_executing_proc_self_exe_gets_nothing(runtime, strong, private_binary, script):
    if script:
        (strong.rootfs / "bin" / "trap").write_text("#!/proc/self/exe\n")
        (strong.rootfs / "bin" / "trap").chmod(0o755)
        strong.set_args("/bin/trap")
    else:
        strong.set_args("/proc/self/exe", "--version")
    done = runtime.run(strong, check=False)
    assert done.returncode == 1
    assert "isle-runtime version" not in done.stdout
    assert "Exec format error" in done.stderr or "Permission denied" in done.stderr


def test_entering_processes_cannot_be_used_to_overwrite_the_binary(runtime, strong,
                                                                   private_binary):
    """CVE-2019-5736 by exec: a process inside waits for one that enters, opens its
    /proc/PID/exe and writes through it."""
    before = private_binary.read_bytes()
    (strong.rootfs / "attack").write_text(
        "#!/bin/sh\ntouch /ready\nwhile :; do\n  for p in /proc/[0-9]*; do\n"
        "    case $p in /proc/1|/proc/$$) continue;; esac\n"
        "    l=$(readlink $p/exe 2>/dev/null) || continue\n"
        "    case $l in *busybox*) continue;; esac\n"
        "    echo \"$l\" >> /seen\n    echo overwritten > $p/exe 2>/dev/null\n  done\ndone\n")
    (strong.rootfs / "attack").chmod(0o755)
    id = runtime.start_detached(strong.set_args("/attack"))
    wait_until((strong.rootfs / "ready").exists, what="the attacker")
    for _ in range(40):
        runtime.call("exec", id, "true")
    assert private_binary.read_bytes() == before
    seen = strong.rootfs / "seen"
    if seen.exists():
        assert "isle-runtime" not in seen.read_text()


def test_null_of_the_image_is_not_used_for_masking(runtime, bundle):
    """CVE-2025-31133: /dev/null in the image is a link to what the attacker wants bound."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"]
                               if not m["destination"].startswith("/dev")]
    (bundle.rootfs / "wanted").write_text("from /dev/null's link\n")
    (bundle.rootfs / "masked").write_text("secret\n")
    (bundle.rootfs / "dev" / "null").symlink_to("/wanted")
    bundle.config["linux"]["maskedPaths"] = ["/masked"]
    assert runtime.output(bundle.set_args("cat", "/masked")) == ""


def test_masked_path_that_is_a_link_is_followed_inside(runtime, bundle, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("host\n")
    (bundle.rootfs / "inside").write_text("secret\n")
    (bundle.rootfs / "to-inside").symlink_to("/inside")
    (bundle.rootfs / "to-outside").symlink_to(outside)
    bundle.config["linux"]["maskedPaths"] = ["/to-inside", "/to-outside"]
    assert runtime.output(bundle.set_args("cat", "/inside")) == ""
    assert outside.read_text() == "host\n"


def test_console_of_the_image_is_not_followed_outside(runtime, bundle, tmp_path):
    """CVE-2025-52565: /dev/console is a link when the terminal is bound over it."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] not in
                               ("/dev", "/dev/shm", "/dev/mqueue")]
    (bundle.rootfs / "dev" / "pts").mkdir()
    outside = tmp_path / "outside"
    outside.write_text("host\n")
    (bundle.rootfs / "dev" / "console").symlink_to(outside)
    bundle.config["process"]["terminal"] = True
    console = ConsoleSocket(tmp_path / "socket")
    # The link leads to a file that the tree has not got: an error, or a file inside.
    runtime.call("run", "--detach", "--console-socket", console.path, "--bundle",
                 bundle.set_args("true").write().path, runtime.new_id(), check=False)
    assert not os.path.ismount(outside)
    assert outside.read_text() == "host\n"


def test_writes_to_procfs_go_to_the_real_one(runtime, bundle, tmp_path):
    """CVE-2025-52881: the container's /proc is not what it seems; the sysctl must take
    effect anyway and the decoy stay untouched."""
    decoy = tmp_path / "decoy"
    (decoy / "sys" / "net" / "ipv4").mkdir(parents=True)
    (decoy / "sys" / "net" / "ipv4" / "ip_forward").write_text("decoy\n")
    bundle.config["mounts"][0] = {"destination": "/proc", "source": str(decoy),
                                  "options": ["bind"]}
    bundle.mount("/real", "proc", "proc")
    bundle.config["linux"]["maskedPaths"] = []
    bundle.config["linux"]["readonlyPaths"] = []
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    (bundle.rootfs / "real").mkdir()
    out = runtime.output(bundle.sh("cat /real/sys/net/ipv4/ip_forward"))
    assert out == "1\n"
    assert (decoy / "sys" / "net" / "ipv4" / "ip_forward").read_text() == "decoy\n"


def test_mount_point_that_is_swapped_while_mounting(runtime, bundle, tmp_path):
    """CVE-2021-30465: a shared directory in which a link comes and goes. Whatever happens,
    nothing is mounted outside the tree."""
    outside = tmp_path / "outside"
    outside.mkdir()
    shared = tmp_path / "shared"
    (shared / "real").mkdir(parents=True)
    source = tmp_path / "source"
    source.mkdir()
    swapper = subprocess.Popen(
        ["python3", "-c", "import os,sys\n"
         f"os.chdir({str(shared)!r})\n"
         f"os.symlink({str(outside)!r}, 'link')\n"
         "libc=__import__('ctypes').CDLL(None)\n"
         "while True: libc.renameat2(-100, b'link', -100, b'real', 2)\n"])
    try:
        bundle.mount("/shared", shared, options=["rbind"])
        bundle.mount("/shared/real/deep", source, options=["bind"])
        for _ in range(15):
            runtime.run(bundle.sh("cat /proc/self/mountinfo"), check=False)
            assert not os.path.exists(outside / "deep")
            assert str(outside) not in open("/proc/self/mountinfo").read()
    finally:
        swapper.kill()
        swapper.wait()


def test_runtime_process_cannot_be_traced_from_a_shared_pid_namespace(runtime, bundle):
    """A process that joins a pid namespace is not dumpable before its program runs."""
    first = runtime.start_detached(bundle.set_args("sleep", "1000"))
    bundle.namespace("pid", path=f"/proc/{runtime.pid(first)}/ns/pid")
    second = runtime.create(bundle.set_args("true"))
    status = Path(f"/proc/{runtime.pid(second)}/status").read_text()
    inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
    assert runtime.call("exec", first, "readlink", "/proc/1/exe").stdout == "/bin/busybox\n"
    runtime.fails("exec", first, "readlink", f"/proc/{inside}/exe", code=1)
