"""What the process that runs the machine is left with, and what it is not."""

import contextlib
import ctypes
import os
import pathlib
import re
import resource
import signal
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import until

# Writes "up", then does nothing until a key arrives.
KERNEL = """
        mov $0x3f8, %edx
        mov $'u', %al
        outb %al, %dx
        mov $10, %al
        outb %al, %dx
1:      jmp 1b
"""

FILE_CAPS = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 31
NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


@pytest.fixture(scope="session", name="kernel")
def _kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("jail") / "kernel", KERNEL)


@contextlib.contextmanager
def machine(kernel, *args, **kwargs):
    with subprocess.Popen([vm.VMM, "--kernel", kernel, *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs) as process:
        try:
            assert process.stdout.readline() == b"u\n"
            proc = pathlib.Path("/proc") / str(vm.machine_pid(process))
            # The guest runs before the last device's thread has come so far.
            until(lambda: "off" in args or all(status_of(task)["Seccomp"] == "2"
                                               for task in threads(proc)))
            yield process, proc
        finally:
            process.kill()


def status_of(task):
    return dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())


def threads(proc):
    return {task: (task / "comm").read_text().strip() for task in (proc / "task").iterdir()}


def namespace(proc, name):
    return os.readlink(proc / "ns" / name)


def test_namespaces_root_limits_and_rights(kernel):
    with machine(kernel) as (_, proc):
        for name in NAMESPACES:
            assert namespace(proc, name) != namespace(pathlib.Path("/proc/self"), name), name
        status = status_of(proc)
        assert status["NSpid"].split()[-1] == "1"
        # One mount, read-only, and nothing on it.
        mounts = (proc / "mountinfo").read_text().splitlines()
        assert len(mounts) == 1 and " - tmpfs " in mounts[0]
        assert mounts[0].split()[5].startswith("ro,nosuid,nodev,noexec")
        assert os.listdir(proc / "root") == []
        assert os.readlink(proc / "cwd") == "/"
        limits = (proc / "limits").read_text()
        for name in ("core file size", "processes", "locked memory", "msgqueue size",
                     "nice priority", "realtime priority"):
            assert re.search(rf"Max {name} +0 +0 ", limits), name
        assert re.search(r"Max open files +4096 +4096 ", limits)
        network = (proc / "net" / "dev").read_text()
        assert [line.split(":")[0].strip() for line in network.splitlines()[2:]] == ["lo"]
        for task in threads(proc):
            status = status_of(task)
            assert status["NoNewPrivs"] == "1"
            for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
                assert int(status[f"Cap{kind}"], 16) == 0, kind


def test_only_the_share_reaches_files_and_dots_end_at_it(kernel, tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "secret").touch()
    with machine(kernel, "--fs", f"s={tmp_path}/share", "--vsock", f"path={tmp_path}/vsock") as (
            _, proc):
        for task, name in threads(proc).items():
            wanted = FILE_CAPS if name == "virtio-fs" else 0
            assert int(status_of(task)["CapPrm"], 16) == wanted, name
        # The directory of vsock's sockets, our descriptors, and nothing else.
        points = [line.split()[4] for line in (proc / "mountinfo").read_text().splitlines()]
        assert sorted(points) == ["/", "/proc/self/fd", "/vsock"]
        shares = [fd for fd in (proc / "fd").iterdir() if os.path.isdir(fd)]
        assert shares
        for fd in shares:
            above = os.open(f"{fd}/..", os.O_PATH)
            assert os.path.samestat(os.fstat(above), os.stat(fd))
            os.close(above)


def test_another_user_is_locked_up_too(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", KERNEL)
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to("/tmp") and path != pathlib.Path("/tmp"):
            path.chmod(0o755)
    with machine(kernel, user=1234, group=1234, extra_groups=[]) as (_, proc):
        assert namespace(proc, "user") != namespace(pathlib.Path("/proc/self"), "user")
        status = status_of(proc)
        assert status["Uid"].split() == ["1234"] * 4
        assert int(status["CapBnd"], 16) == 0


def test_sandbox_off_is_said_and_does_nothing(kernel, tmp_path):
    with machine(kernel, "--sandbox", "off") as (process, proc):
        for name in NAMESPACES:
            assert namespace(proc, name) == namespace(pathlib.Path("/proc/self"), name), name
        process.terminate()
        assert process.wait(30) == 0
        assert b"--sandbox off: a guest that breaks out has all rights" in process.stderr.read()
    code, _, err = vm.run("--kernel", tmp_path, "--sandbox", "maybe")
    assert code == 2 and "--sandbox 'maybe': there are off, on" in err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_machine_goes_with_its_program(kernel, how):
    with machine(kernel) as (process, proc):
        process.send_signal(how)
        assert process.wait(30) == (0 if how == signal.SIGTERM else -how)
        until(lambda: not proc.exists() or status_of(proc)["State"].startswith("Z"))


def test_killed_machine_is_told(kernel):
    with machine(kernel) as (process, proc):
        os.kill(int(proc.name), signal.SIGKILL)
        assert process.wait(30) == 128 + signal.SIGKILL
        assert b"machine's process was killed by signal 9" in process.stderr.read()


def test_lower_limits_stay(kernel):
    with machine(kernel, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE,
                                                               (200, 200))) as (_, proc):
        assert re.search(r"Max open files +200 +200 ", (proc / "limits").read_text())


def test_every_thread_is_filtered(kernel, tmp_path):
    (tmp_path / "disk").write_bytes(bytes(4096))
    with machine(kernel, "--fs", f"s={tmp_path}", "--vsock", f"path={tmp_path}/vsock", "--disk",
                 tmp_path / "disk", "--cpus", "2") as (_, proc):
        names = threads(proc)
        assert {"virtio-fs", "virtio-blk", "virtio-vsock", "virtio-balloon"} <= set(names.values())
        for task, name in names.items():
            assert status_of(task)["Seccomp"] == "2", name


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
        "fs_base gs_base ds es fs gs").split()]


(PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SEIZE, PTRACE_INTERRUPT,
 PTRACE_DETACH) = (9, 12, 13, 0x4206, 0x4207, 17)
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def trace(request, tid, data=None):
    assert LIBC.ptrace(request, tid, None, data) >= 0, os.strerror(ctypes.get_errno())


def syscall_address(proc):
    """Of a syscall instruction in the C library of the process."""
    for line in (proc / "maps").read_text().splitlines():
        if "r-xp" in line and "libc.so" in line:
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            with open(proc / "mem", "rb") as memory:
                memory.seek(low)
                return low + memory.read(high - low).index(b"\x0f\x05")
    raise AssertionError("no C library")


def make_call(proc, task, number, *arguments, come_back=False):
    """Lets a thread make a system call, as code of an intruder in it would. One that is allowed
    may come back: its result, or None where the thread is no more."""
    tid = int(task.name)
    trace(PTRACE_SEIZE, tid)
    trace(PTRACE_INTERRUPT, tid)
    os.waitpid(tid, 0x40000000)  # __WALL
    registers = Registers()
    trace(PTRACE_GETREGS, tid, ctypes.addressof(registers))
    before = Registers.from_buffer_copy(registers)
    registers.rip, registers.rax = syscall_address(proc), number
    registers.orig_rax = 2**64 - 1  # no interrupted call to restart
    for name, value in zip(("rdi", "rsi", "rdx", "r10"), arguments):
        setattr(registers, name, value)
    trace(PTRACE_SETREGS, tid, ctypes.addressof(registers))
    if come_back:
        trace(PTRACE_SINGLESTEP, tid)
        _, status = os.waitpid(tid, 0x40000000)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
            return None
        trace(PTRACE_GETREGS, tid, ctypes.addressof(registers))
        result = ctypes.c_longlong(registers.rax).value
        trace(PTRACE_SETREGS, tid, ctypes.addressof(before))
    trace(PTRACE_DETACH, tid)
    return result if come_back else None


CALLS = {"open": 2, "socket": 41, "connect": 42, "clone": 56, "execve": 59, "ptrace": 101,
         "mount": 165, "openat": 257, "unshare": 272, "bpf": 321, "io_uring_setup": 425}


@pytest.mark.parametrize("name", CALLS)
def test_intruder_in_a_device_thread_is_stopped(kernel, tmp_path, name):
    (tmp_path / "disk").write_bytes(bytes(4096))
    with machine(kernel, "--disk", tmp_path / "disk") as (process, proc):
        task = next(task for task, comm in threads(proc).items() if comm == "virtio-blk")
        make_call(proc, task, CALLS[name], 2, 1, 0)
        assert process.wait(30) == 159
        assert (f"a thread of kind 'disk' made system call {CALLS[name]}, which it may not"
                in process.stderr.read().decode())


@pytest.mark.parametrize("comm, kind, number, arguments", [
    ("isle-vmm", "main", 257, (2**64 - 100, 0, 0)),    # openat
    ("virtio-fs", "files", 41, (2, 1, 0)),             # socket(AF_INET)
    ("virtio-vsock", "vsock", 41, (2, 1, 0)),
    ("virtio-vsock", "vsock", 257, (2**64 - 100, 0, 0)),
    ("virtio-balloon", "balloon", 10, (0, 4096, 7)),   # mprotect(PROT_EXEC)
    ("virtio-balloon", "balloon", 9, (0, 4096, 5, 0x22)),  # mmap(PROT_EXEC)
    ("gdb", "gdb", 257, (2**64 - 100, 0, 0)),
    ("gdb", "gdb", 41, (1, 1, 0)),
])
def test_intruder_in_another_thread_is_stopped(kernel, tmp_path, comm, kind, number, arguments):
    with machine(kernel, "--fs", f"s={tmp_path}", "--vsock", f"path={tmp_path}/vsock", "--gdb",
                 f"unix:{tmp_path}/gdb") as (process, proc):
        task = next(task for task, name in threads(proc).items()
                    if name == comm and (comm != "isle-vmm" or task.name == proc.name))
        make_call(proc, task, number, *arguments)
        assert process.wait(30) == 159
        assert f"of kind '{kind}' made system call {number}," in process.stderr.read().decode()


# Of KVM: SIGNAL_MSI and IRQ_LINE.
@pytest.mark.parametrize("request_number", [0x4020aea5, 0x4008ae61])
def test_devices_threads_raise_interrupts(kernel, tmp_path, request_number):
    (tmp_path / "disk").write_bytes(bytes(4096))
    with machine(kernel, "--fs", f"s={tmp_path}", "--vsock", f"path={tmp_path}/vsock", "--disk",
                 tmp_path / "disk") as (process, proc):
        for task, name in threads(proc).items():
            if name.startswith("virtio-"):
                # ioctl, of no descriptor: -EBADF
                assert make_call(proc, task, 16, 2**32 - 1, request_number, 0,
                                 come_back=True) == -9, name
        process.terminate()
        assert process.wait(30) == 0, process.stderr.read()
