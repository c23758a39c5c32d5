"""The gdb stub of isle-vmm: gdb itself, and what the protocol says beyond it."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.lib.rsp import Rsp
from tests.vm.test_control import Control

# Counts at `data`, by a function, and at `traps` in the handler of its own INT3.
KERNEL = """
        mov $0x200000, %esp
        mov $handler, %eax
        mov %ax, gate
        shr $16, %eax
        mov %ax, gate + 6
        mov %cs, gate + 2
        lidt idt
        mov $0x3f8, %edx
        mov $'u', %al
        outb %al, %dx
        mov $10, %al
        outb %al, %dx
again:  call change
        call trap
        jmp again
.globl change, trap, traps, data, again
change: incl data
        mov data, %ebx
        ret
trap:   int3
        ret
handler:
        incl traps
        iret
.balign 8
data:   .long 5, 0
traps:  .long 0
idt:    .word 4 * 8 - 1
        .long gates
.balign 8
gates:  .quad 0, 0, 0
gate:   .quad 0x8e0000000000
"""

# Two processors, each of which counts.
SMP_KERNEL = """
        mov $trampoline, %esi
        mov $0x8000, %edi
        mov $64, %ecx
        rep movsb
        mov $0xfee00300, %edx
        movl $0x000c4500, (%edx)    # INIT to all others
        movl $0x000c4608, (%edx)    # they start at 0x8000
1:      incl first
        jmp 1b
trampoline:
.code16
2:      incl %cs:0x800
        jmp 2b
.code32
.balign 4
.globl first
first:  .long 0
"""
SECOND = 0x8800

PROVIDERS = ["soft", pytest.param("kvm", marks=pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="this host has no /dev/kvm"))]
RIP, EBX = 16, 1


@pytest.fixture(scope="session", name="kernel")
def _kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("gdb") / "kernel", KERNEL)


@pytest.fixture(scope="session", name="smp_kernel")
def _smp_kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("gdb-smp") / "kernel", SMP_KERNEL)


def symbols(kernel):
    lines = subprocess.run(["nm", kernel], capture_output=True, text=True, check=True).stdout
    return {line.split()[2]: int(line.split()[0], 16) for line in lines.splitlines()}


def listens(path):
    """Whether who made this Unix socket has got so far that others can connect."""
    lines = pathlib.Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)


@contextlib.contextmanager
def machine(tmp_path, kernel, *args):
    """A machine with a stub at `gdb`, and its control socket."""
    command = [vm.VMM, "--kernel", kernel, "--api-socket", tmp_path / "api", "--gdb",
               f"unix:{tmp_path}/gdb", *args]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        try:
            until(lambda: listens(tmp_path / "gdb"), 30)
            yield process, Control(tmp_path / "api")
        finally:
            process.kill()


def gdb(*commands):
    """What gdb says to these."""
    arguments = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run(["gdb", "-nx", "-q", "-batch", "-ex", "set pagination off", "-ex",
                           "set confirm off", *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120, check=False)
    return done.stdout


def counter(control, address):
    return int.from_bytes(control.get(f"/vm/memory?address={address:#x}&size=4"), "little")


def advances(control, address):
    before = counter(control, address)
    until(lambda: counter(control, address) != before, 30)


@pytest.mark.parametrize("cpu", PROVIDERS)
def test_gdb_stops_looks_changes_steps_and_leaves(tmp_path, kernel, cpu):
    symbol = symbols(kernel)
    elf64 = tmp_path / "kernel64"  # the same for gdb, which takes the machine for 64-bit
    subprocess.run(["objcopy", "-I", "elf32-i386", "-O", "elf64-x86-64", kernel, elf64],
                   check=True)
    with machine(tmp_path, kernel, "--cpu", cpu, "--gdb-wait") as (process, control):
        out = gdb(f"file {elf64}", f"target remote {tmp_path}/gdb", "info threads",
                  "break change", "continue", "info symbol $pc", "stepi", "info symbol $pc",
                  "print *(int*)&data", "set var *(int*)&data = 100", "delete", "stepi",
                  "print $rbx", "set $rbx = 77", "print $rbx", "hbreak again", "continue",
                  "info symbol $pc", "info registers cr0 efer eflags mxcsr", "delete",
                  "break trap", "continue", "x/1xb $pc", "detach")
        assert "vCPU 0 [running]" in out
        assert "change in section .text" in out and "change + 6 in section .text" in out
        assert "$1 = 6" in out and "$2 = 100" in out and "$3 = 77" in out
        assert "again in section .text" in out
        assert re.search(r"cr0 +0x[0-9a-f]*1 ", out) and re.search(r"efer +0x0 ", out)
        assert re.search(r"mxcsr +0x1f80 ", out)
        assert re.search(r"<trap>:\s+0xcc", out)  # its own, under ours
        assert "detached" in out
        assert process.stdout.readline() == b"u\n"
        assert counter(control, symbol["data"]) > 100
        advances(control, symbol["traps"])


@pytest.mark.parametrize("cpu", PROVIDERS)
def test_the_guests_own_int3_is_its_own(tmp_path, kernel, cpu):
    symbol = symbols(kernel)
    with machine(tmp_path, kernel, "--cpu", cpu) as (process, control):
        assert process.stdout.readline() == b"u\n"
        client = Rsp(tmp_path / "gdb")
        assert client.ask("?") == "T05thread:1;"
        traps, data = client.memory(symbol["traps"]), client.memory(symbol["data"])
        assert client.ask(f"Z0,{symbol['change']:x},1") == "OK"
        for _ in range(5):
            assert client.ask("vCont;c") == "T05thread:1;swbreak:;"
            assert client.register(RIP) == symbol["change"]
            assert client.memory(symbol["change"], 1) == 0xff  # not our 0xcc
            assert client.ask(f"z0,{symbol['change']:x},1") == "OK"
            assert client.ask("vCont;s:1") == "T05thread:1;"
            assert client.ask(f"Z0,{symbol['change']:x},1") == "OK"
        assert client.memory(symbol["data"]) >= data + 5
        assert client.memory(symbol["traps"]) >= traps + 4
        assert counter(control, symbol["change"]) & 0xff == 0xcc
        client.close()
        advances(control, symbol["traps"])
        assert counter(control, symbol["change"]) & 0xff == 0xff


def test_watchpoints(tmp_path, kernel):
    symbol = symbols(kernel)
    with machine(tmp_path, kernel, "--cpu", "soft", "--gdb-wait"):
        client = Rsp(tmp_path / "gdb")
        # Two more bytes than a register watches.
        assert client.ask(f"Z2,{symbol['data'] - 2:x},8") == "OK"
        assert client.ask("c") == f"T05thread:1;watch:{symbol['data'] - 2:x};"
        assert client.memory(symbol["data"]) == 6
        assert client.register(RIP) == symbol["change"] + 6
        assert client.ask(f"z2,{symbol['data'] - 2:x},8") == "OK"
        assert client.ask(f"Z3,{symbol['data']:x},4") == "OK"
        assert client.ask("c") == f"T05thread:1;rwatch:{symbol['data']:x};"
        assert client.register(EBX) == 6
        assert client.ask(f"z3,{symbol['data']:x},4") == "OK"
        assert client.ask(f"Z4,{symbol['traps']:x},4") == "OK"
        assert client.ask("c") == f"T05thread:1;awatch:{symbol['traps']:x};"
        assert client.ask(f"z4,{symbol['traps']:x},4") == "OK"
        for number in range(4):
            assert client.ask(f"Z1,{0x1000 + number:x},1") == "OK"
        assert client.ask("Z1,2000,1") == "E1c"  # there are four
        assert client.ask("z1,2000,1") == "E02"
        assert client.ask("Z0,ffff0000,1") == "E0e"
        assert client.ask("Z2,1000,400") == "E16"
        assert client.ask("Z7,1000,1") == ""


@pytest.mark.parametrize("cpu", PROVIDERS)
def test_vcpus_are_threads(tmp_path, smp_kernel, cpu):
    first = symbols(smp_kernel)["first"]
    with machine(tmp_path, smp_kernel, "--cpu", cpu, "--cpus", "2") as (_, control):
        advances(control, SECOND)
        client = Rsp(tmp_path / "gdb")
        assert client.ask("qfThreadInfo") == "m1,2" and client.ask("qsThreadInfo") == "l"
        assert bytes.fromhex(client.ask("qThreadExtraInfo,2")) == b"vCPU 1 [running]"
        assert (client.ask("T2"), client.ask("T3")) == ("OK", "E03")
        assert client.ask("Hg2") == "OK"
        assert client.register(18) == 0x800  # CS of the one in real mode
        assert client.ask("Hg1") == "OK"
        before = [client.memory(first), client.memory(SECOND)]
        for _ in range(8):  # the other stands meanwhile
            assert client.ask("vCont;s:2") == "T05thread:2;"
        after = [client.memory(first), client.memory(SECOND)]
        assert after[0] == before[0] and after[1] in (before[1] + 4, before[1] + 3)
        client.send("vCont;s:1;c")
        assert client.receive() == "T05thread:1;"
        client.send("vCont;c:2")
        advances(control, SECOND)
        assert client.interrupt() in ("T02thread:1;", "T02thread:2;")
        assert client.memory(first) in (after[0], after[0] + 1)
        assert client.ask("vCont;c:1;t:2") == "E16"
        client.send("c")
        advances(control, first)
        advances(control, SECOND)
        # A request while it runs stops it first, which is told first.
        client.send("g")
        assert client.receive().startswith("T02")
        assert len(client.receive()) > 1000


def test_pause_of_two_masters(tmp_path, kernel):
    """Neither gdb nor the control socket lets a machine go that the other holds."""
    symbol = symbols(kernel)
    with machine(tmp_path, kernel, "--cpu", "soft") as (process, control):
        assert process.stdout.readline() == b"u\n"
        client = Rsp(tmp_path / "gdb")
        control.post("/vm/pause")
        control.post("/vm/resume")
        assert control.refused("POST", "/vm/resume")[0] == 409
        before = client.memory(symbol["data"])
        assert client.memory(symbol["data"]) == before
        control.post("/vm/pause")
        client.send("c")
        before = counter(control, symbol["data"])
        assert client.interrupt() == "T02thread:1;"
        assert client.memory(symbol["data"]) == before
        client.close()
        control.post("/vm/resume")
        advances(control, symbol["data"])


def test_ends(tmp_path, kernel):
    with machine(tmp_path, kernel, "--cpu", "soft") as (process, control):
        client = Rsp(tmp_path / "gdb")
        client.send("c")
        control.post("/vm/stop")
        assert client.receive() == "W00"
        assert process.wait(30) == 0
    assert not (tmp_path / "gdb").exists()
    with machine(tmp_path, kernel, "--cpu", "soft") as (process, control):
        assert Rsp(tmp_path / "gdb").ask("vKill;1") == "OK"
        assert process.wait(30) == 0
    with machine(tmp_path, kernel, "--cpu", "soft", "--gdb-wait") as (process, control):
        client = Rsp(tmp_path / "gdb")
        assert client.ask("D") == "OK"
        assert process.stdout.readline() == b"u\n"
        assert Rsp(tmp_path / "gdb").ask("?") == "T05thread:1;"  # the next one


def test_damaged_and_endless_packets(tmp_path, kernel):
    with machine(tmp_path, kernel, "--cpu", "soft", "--gdb-wait"):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(30)
        client.connect(str(tmp_path / "gdb"))
        client.sendall(b"$qC#00")
        assert client.recv(1) == b"-"
        client.sendall(b"$qC#b4")
        answer = b""
        while len(answer) < 8:
            answer += client.recv(8 - len(answer))
        assert answer == b"+$QC1#c5"
        client.sendall(b"-")
        assert client.recv(7) == b"$QC1#c5"
        client.sendall(b"$" + b"x" * 100000 + b"#%02x" % (ord("x") * 100000 & 0xff))
        assert client.recv(8) == b"+$E07#ac"
        client.close()
        assert Rsp(tmp_path / "gdb").ask("qC") == "QC1"


@pytest.mark.parametrize("cpu", PROVIDERS)
def test_system_registers_are_written_or_refused(tmp_path, kernel, cpu):
    symbol = symbols(kernel)
    with machine(tmp_path, kernel, "--cpu", cpu, "--gdb-wait") as (process, control):
        out = gdb(f"target remote {tmp_path}/gdb", f"hbreak *{symbol['again']}", "continue",
                  "set $cr3 = 0x5000", "set $cr4 = 0x10", "set $cr8 = 7", "set $efer = 0x100",
                  "set $cr0 = 0x40000011", "set $fs = $ds", "flushregs",
                  "print/x $cr3", "print/x $cr4", "print/x $cr8", "print/x $efer",
                  "print/x $cr0", "print $fs == $ds", "set $efer = 0",
                  "set $cr4 = 0x8000000000", "set $cr4 = 0x20010", "set $cr8 = 16",
                  "set $cs = 0", "set $gs = 0x7ff8", "set $cr0 = 0x80000010", "set $cr8 = 0",
                  "flushregs", "print/x $cr4", "print/x $cr8", "print/x $cr0")
        for n, value in enumerate(("0x5000", "0x10", "0x7", "0x100", "0x40000011", "1", "0x10",
                                   "0x0", "0x40000011")):
            assert f"${n + 1} = {value}\n" in out
        # The provider knows which bits there are.
        assert out.count('Could not write register "cr4"; remote failure reply \'E.') == 2
        for told in ("PCIDE wants long mode", "CR8 is 0 to 15", "CS cannot be null",
                     "selector 0x7ff8 is not in the GDT", "paging (PG) wants protected mode (PE)"):
            assert told in out
        assert process.stdout.readline() == b"u\n"
        advances(control, symbol["traps"])


def test_who_paused_the_machine_is_told(tmp_path, kernel):
    with machine(tmp_path, kernel, "--cpu", "soft", "--gdb-wait") as (process, control):
        def state():
            shown = control.get("/vm")
            return shown["state"], shown.get("paused_by")

        assert state() == ("paused", ["gdb"])
        told = control.refused("POST", "/vm/resume")
        assert told == (409, "gdb holds the VM, and lets it go on")
        control.post("/vm/pause")
        assert state() == ("paused", ["control", "gdb"])
        control.post("/vm/resume")
        assert state() == ("paused", ["gdb"])
        client = Rsp(tmp_path / "gdb")
        client.send("c")
        assert process.stdout.readline() == b"u\n"
        assert state() == ("running", None)
        assert client.interrupt() == "T02thread:1;"
        assert state() == ("paused", ["gdb"])
        client.close()
        until(lambda: state() == ("running", None))


def test_registers_that_are_wrong(tmp_path, kernel):
    with machine(tmp_path, kernel, "--cpu", "soft", "--gdb-wait"):
        client = Rsp(tmp_path / "gdb")
        registers = client.ask("g")
        assert client.ask("G" + registers) == "OK"
        assert client.ask("G" + registers[:-2]) == "E16"
        assert client.ask("P3=8877665544332211") == "OK"
        assert client.register(3) == 0x1122334455667788
        assert client.ask("Pffff=00") == "E16" and client.ask("pffff") == "E16"
        assert client.ask("g")[:48] == registers[:48]


# It tells an address, then makes the call each time that a line comes.
DEBIAN_INIT = """
/bin/busybox grep -E ' (__x64_sys_sync|linux_banner)$' /proc/kallsyms
while read -r line && [ "$line" != end ]; do /bin/busybox sync; echo synced $line; done
/bin/busybox poweroff -f
"""


def test_booted_debian_kernel(tmp_path):
    initrd = vm.initrd(tmp_path / "initrd.gz", DEBIAN_INIT)
    with subprocess.Popen(
            [vm.VMM, "--cpu", "soft", "--cpus", "2", "--kernel", vm.debian_kernel(), "--initrd",
             initrd, "--cmdline", vm.CMDLINE, "--gdb", f"unix:{tmp_path}/gdb"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            symbol = {}
            while len(symbol) < 2:
                words = process.stdout.readline().decode().split()
                assert words, "it has ended"
                if words[-1] in ("__x64_sys_sync", "linux_banner"):
                    symbol[words[-1]] = int(words[0], 16)
            client = Rsp(tmp_path / "gdb")
            banner = bytes.fromhex(client.ask(f"m{symbol['linux_banner']:x},20"))
            assert banner.startswith(b"Linux version 6.1.0-")
            for kind in (0, 1):
                assert client.ask(f"Z{kind},{symbol['__x64_sys_sync']:x},1") == "OK"
                client.send("vCont;c")
                process.stdin.write(b"%d\n" % kind)
                process.stdin.flush()
                why = client.receive()
                assert re.fullmatch(rf"T05thread:[12];{['sw', 'hw'][kind]}break:;", why)
                assert client.register(RIP) == symbol["__x64_sys_sync"]
                stack = client.memory(client.register(7), 8)  # who called it is kernel code
                assert stack >> 32 == 0xffffffff
                assert client.ask(f"z{kind},{symbol['__x64_sys_sync']:x},1") == "OK"
                for _ in range(3):
                    thread = why.split(":")[1].split(";")[0]
                    assert client.ask(f"vCont;s:{thread}") == f"T05thread:{thread};"
            assert client.ask("D") == "OK"
            process.stdin.write(b"end\n")
            process.stdin.flush()
            out = process.stdout.read().decode()
            assert "synced 0" in out and "synced 1" in out
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("args, story", [
    (("--gdb", "1234"), "--gdb '1234': write tcp:[HOST]:PORT, as tcp::1234, or unix:PATH"),
    (("--gdb", "tcp:1234"), "'1234' is not HOST:PORT"),
    (("--gdb", "tcp::http!"), "cannot resolve 'localhost:http!'"),
    (("--gdb", "unix:/nowhere/gdb"), "/nowhere/gdb"),
    (("--gdb-wait",), "nobody can start what waits for gdb; --gdb WHERE lets one come"),
])
def test_bad_input_is_one_clear_error(kernel, args, story):
    status, out, err = vm.run("--kernel", kernel, *args)
    assert (status, out) == (1, "")
    assert err.startswith("isle-vmm: ") and err.count("\n") == 1 and story in err


def test_tcp_is_of_this_host(tmp_path, kernel):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = vm.run("--kernel", kernel, "--gdb", f"tcp:127.0.0.1:{port}")
        assert status == 1 and f"listen on '127.0.0.1:{port}': Address already in use" in err
    with subprocess.Popen([vm.VMM, "--kernel", kernel, "--gdb", f"tcp::{port}"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"u\n"
            assert "thread 1" in gdb(f"target remote localhost:{port}", "thread", "kill").lower()
            assert process.wait(30) == 0
        finally:
            process.kill()
