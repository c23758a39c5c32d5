"""Running a program to its n-th system call and no further, by ptrace."""
import ctypes
import os
import signal

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 0x100000
SYSCALL_STOP = signal.SIGTRAP | 0x80

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def kill_at(command, stops):
    """Starts the command and kills it (alone, not its children) at its stops-th entry to or
    return from a system call. True when it got that far, False when it ended before."""
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            ptrace(PTRACE_TRACEME, 0)
            os.execv(command[0], command)
        finally:
            os._exit(127)
    os.waitpid(pid, 0)
    ptrace(PTRACE_SETOPTIONS, pid, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
    pending = 0
    while stops > 0:
        ptrace(PTRACE_SYSCALL, pid, pending)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return False
        pending = os.WSTOPSIG(status)
        if pending == SYSCALL_STOP:
            pending = 0
            stops -= 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True
