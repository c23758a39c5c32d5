"""The provider on the host's KVM: small kernels; the host's speed at ring 0 may be anything."""

import fcntl
import os
import re
import select
import struct
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_boot import TEST_KERNEL
from tests.vm.test_control import KERNEL, machine

pytestmark = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK),
                                reason="this host has no /dev/kvm")


def test_kernel_speaks_and_leaves(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", TEST_KERNEL.replace("CHECK", ""))
    status, out, err = vm.run("--cpu", "kvm", "--kernel", kernel, "--test-devices")
    assert (status, out, err) == (43, "hello from ring 0\n", "")


def test_triple_fault_is_told(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", TEST_KERNEL.replace(
        "CHECK", "lidt nothing\n ud2\n nothing: .word 0\n .long 0\n"))
    status, _, err = vm.run("--cpu", "kvm", "--kernel", kernel, "--test-devices")
    assert status == 4 and "triple fault" in err


def test_state_and_pause_over_the_control_socket(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", KERNEL)
    with machine(tmp_path / "api", "--cpu", "kvm", "--kernel", kernel, "--cpus", "2") as (
            process, control):
        assert process.stdout.readline() == b"u\n"
        assert control.get("/vm")["cpu_provider"] == "kvm"
        control.post("/vm/pause")
        registers = control.get("/vm/cpus/0/registers")
        assert registers["rbx"] == "0x12345678"
        assert int(registers["cr0"], 16) & 0x80000001 == 1  # protected, not paged
        before = control.get("/vm/memory?address=0x200000&size=4")
        assert control.get("/vm/cpus/0/registers") == registers
        assert control.get("/vm/memory?address=0x200000&size=4") == before
        assert control.get("/vm/cpus/1/registers")["activity"] == "wait-for-sipi"
        control.post("/vm/resume")
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 0x1e << 1 | 1


def test_software_executes_what_kvm_cannot(tmp_path):
    """PVM's emulator knows no SSE at ring 0; elsewhere the hardware does it all."""
    kernel = vm.assemble(tmp_path / "kernel", KERNEL.replace("mov $0x12345678, %ebx", """
        mov %cr0, %eax
        and $~4, %eax
        or $2, %eax
        mov %eax, %cr0
        mov %cr4, %eax
        or $0x600, %eax
        mov %eax, %cr4
        mov $0x01020304, %eax
        movd %eax, %xmm3
        pshufd $0, %xmm3, %xmm3
        paddd %xmm3, %xmm3
        movd %xmm3, %ebx
        mov $7, %ecx
        stc
"""))
    with machine(tmp_path / "api", "--cpu", "kvm", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        until(lambda: control.get("/vm/memory?address=0x200000&size=4") != bytes(4), 60)
        registers = control.get("/vm/cpus/0/registers")
        assert (registers["rbx"], registers["rcx"]) == ("0x2040608", "0x7")
        assert registers["ymm"][3] == "0x" + 32 * "0" + 4 * "02040608"
        if os.path.exists("/sys/module/kvm_pvm"):
            assert control.get("/vm/cpus")[0]["emulated_by_software"] >= 2
        control.post("/vm/send-key", {"keys": "b"})
        assert process.wait(60) == 0x30 << 1 | 1


# Switches on whatever XCR0 the processor's own CPUID tells, or notes the fault; then XGETBV and
# SSE, which PVM's emulator does not know.
COMPONENTS = """
        mov $0x400000, %esp
        mov $gates + 8 * 13, %edi
        mov $on_fault, %eax
        mov %ax, (%edi)
        mov %cs, 2(%edi)
        movw $0x8e00, 4(%edi)
        shr $16, %eax
        mov %ax, 6(%edi)
        lidt idt
        mov %cr0, %eax
        and $~4, %eax
        or $2, %eax
        mov %eax, %cr0
        mov %cr4, %eax
        or $0x40600, %eax
        mov %eax, %cr4
        mov $7, %eax
        xor %ecx, %ecx
        xor %edx, %edx
        xsetbv
        mov $0xe7, %eax
        xsetbv
switched:
        xor %ecx, %ecx
        xgetbv
        mov %eax, %edi
        mov $0x01020304, %eax
        movd %eax, %xmm3
        jmp on
on_fault:
        mov $0xfa, %esi
        movl $switched, 4(%esp)
        add $4, %esp
        iret
.balign 8
idt:    .word 8 * 14 - 1
        .long gates
.balign 8
gates:  .fill 8 * 14, 1, 0
on:
"""


@pytest.mark.parametrize("cpu", ["kvm", "kvm-split"])
def test_registers_that_cannot_be_saved_end_no_machine(tmp_path, cpu):
    """Hardware refuses XCR0 that CPUID does not offer; PVM takes what the host has."""
    kernel = vm.assemble(tmp_path / "kernel", COMPONENTS + KERNEL)
    with machine(tmp_path / "api", "--cpu", cpu, "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        registers = control.get("/vm/cpus/0/registers")
        faulted = registers["rsi"] == "0xfa"
        assert registers["rdi"] == ("0x7" if faulted else "0xe7")
        assert registers["ymm"][3] == "0x" + 56 * "0" + "01020304"
        control.post("/vm/pause")
        result = subprocess.run([vm.VMM, "--api-socket", tmp_path / "api", "--snapshot",
                                 tmp_path / "snapshot"], capture_output=True, text=True, check=False)
        if faulted:
            assert (result.returncode, result.stderr) == (0, "")
        else:
            assert result.returncode == 1 and result.stderr.count("\n") == 1
            assert "registers that a snapshot has no place for (XCR0 0xe7)" in result.stderr
            assert not list(tmp_path.glob("snapshot*"))
        control.post("/vm/resume")
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 0x1e << 1 | 1
        told = process.stderr.read().decode()
        assert told.count("switched on registers (XCR0 0xe7)") == (0 if faulted else 1)


def test_debian_kernel_to_its_banner():
    """Half a minute where ring 0 is emulated by the host's KVM, no time elsewhere."""
    with subprocess.Popen([vm.VMM, "--cpu", "kvm", "--kernel", vm.debian_kernel(), "--cmdline",
                           "earlyprintk=ttyS0,115200 console=ttyS0 panic=-1"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            readable, _, _ = select.select([process.stdout], [], [], 170)
            assert readable, "no banner"
            assert b"Linux version 6.1.0-" in process.stdout.readline()
            assert b"Command line: earlyprintk=" in process.stdout.readline()
        finally:
            process.kill()


# Ticks by the PIC, ticks by the IOAPIC, then a level line twice: the second time only when the
# end of the first was heard of.
INTERRUPTS = """
        mov $0x200000, %esp
        mov $gates + 8 * 0x20, %edi
        mov $on_pic, %eax
        call set_gate
        mov $gates + 8 * 0x30, %edi
        mov $on_ioapic, %eax
        call set_gate
        mov $gates + 8 * 0x31, %edi
        mov $on_level, %eax
        call set_gate
        lidt idt
        mov $0xfee000f0, %eax
        movl $0x1ff, (%eax)         # the local APIC is on
        mov $0xfee00350, %eax
        movl $0x700, (%eax)         # LINT0 is the PIC's
        mov $0x11, %al
        out %al, $0x20
        mov $0x20, %al
        out %al, $0x21
        mov $4, %al
        out %al, $0x21
        mov $1, %al
        out %al, $0x21
        mov $0x34, %al              # a tick each millisecond
        out %al, $0x43
        mov $0xa9, %al
        out %al, $0x40
        mov $4, %al
        out %al, $0x40
        mov $0xfe, %al
        out %al, $0x21
        sti
1:      hlt
        cmpl $3, pic_ticks
        jb 1b
        cli
        mov $0xff, %al
        out %al, $0x21
        mov $0x14, %ecx             # pin 2, where the PIT arrives
        mov $0x30, %edx
        call set_pin
        sti
2:      hlt
        cmpl $3, ioapic_ticks
        jb 2b
        cli
        mov $0x14, %ecx
        mov $0x10030, %edx
        call set_pin
        mov $0x1a, %ecx             # pin 5: level
        mov $0x8031, %edx
        call set_pin
        sti
        movl $0x2005, %edx
3:      mov levels, %ebx
        mov $1, %al
        out %al, %dx
4:      cmp levels, %ebx
        je 4b
        cmp $1, %ebx
        jb 3b
        mov levels, %eax            # the status says how many: 2 * (19 + levels) + 1
        add $19, %eax
        mov $0xf4, %edx
        out %al, %dx
        hlt
set_gate:
        mov %ax, (%edi)
        mov %cs, 2(%edi)
        movw $0x8e00, 4(%edi)
        shr $16, %eax
        mov %ax, 6(%edi)
        ret
set_pin:
        mov $0xfec00000, %eax
        mov %ecx, (%eax)
        mov %edx, 0x10(%eax)
        inc %ecx
        mov %ecx, (%eax)
        movl $0, 0x10(%eax)
        ret
on_pic: push %eax
        incl pic_ticks
        mov $0x20, %al
        out %al, $0x20
        pop %eax
        iret
on_ioapic:
        incl ioapic_ticks
        movl $0, 0xfee000b0
        iret
on_level:
        push %eax
        xor %al, %al
        out %al, %dx
        incl levels
        movl $0, 0xfee000b0
        pop %eax
        iret
.balign 8
idt:    .word 8 * 0x32 - 1
        .long gates
pic_ticks: .long 0
ioapic_ticks: .long 0
levels: .long 0
.balign 8
gates:  .fill 8 * 0x32, 1, 0
"""


@pytest.mark.parametrize("cpu", ["soft", "kvm", "kvm-split"])
def test_interrupts_by_every_chip(tmp_path, cpu):
    kernel = vm.assemble(tmp_path / "kernel", INTERRUPTS)
    status, _, err = vm.run("--cpu", cpu, "--kernel", kernel, "--test-devices", timeout=60)
    assert err.replace("info: vCPU 0: KVM cannot emulate an instruction; "
                       "the software CPU does\n", "") == ""
    # The level is raised twice. PVM ends an interrupt at its local APIC while it delivers it, before
    # the handler's first instruction (tracepoints kvm_eoi, kvm_emulate_insn), so its own IOAPIC
    # finds the line still up and delivers again. Split, the machine hears of that end with the
    # vCPU's next exit: mostly the one that lowers the line, but a tick of the host may come before.
    twice = cpu != "soft" and os.path.exists("/sys/module/kvm_pvm")
    assert status in ((43, 47) if twice else (43,))


def messages(control, how):
    return int(re.search(rf'^isle_vmm_pci_messages{how}_total{{index="0"}} (\d+)$',
                         control.get("/metrics").decode(), re.MULTILINE)[1])


@pytest.mark.parametrize("cpu", ["soft", "kvm", "kvm-split"])
def test_messages_of_a_device_go_by_descriptors(tmp_path, cpu):
    """The counters say by what they went; the guest says whether they came, and when."""
    source = subprocess.run(["gcc", "-m32", "-O1", "-ffreestanding", "-fno-pic", "-mno-sse",
                             "-fno-stack-protector", "-S", "-o", "-",
                             vm.TOP / "tests" / "vm" / "guest" / "msix.c"],
                            capture_output=True, text=True, check=True).stdout
    kernel = vm.assemble(tmp_path / "kernel", "mov $0x400000, %esp\n call run\n" + source)
    (tmp_path / "disk").write_bytes(b"x" * 4096)
    with machine(tmp_path / "api", "--cpu", cpu, "--kernel", kernel, "--disk",
                 tmp_path / "disk") as (process, control):
        assert process.stdout.readline() == b"u\n"
        assert messages(control, "") == 5
        assert messages(control, "_by_descriptor") == (0 if cpu == "soft" else 5)
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 21 << 1 | 1


MODELS = {"x86-64": 1, "x86-64-v2": 2, "x86-64-v3": 3}


def offered_by_kvm():
    """ECX of leaf 1: KVM_GET_SUPPORTED_CPUID."""
    room = bytearray(struct.pack("=II", 256, 0) + bytes(256 * 40))
    with open("/dev/kvm", "rb") as kvm:
        fcntl.ioctl(kvm, 0xc008ae05, room)
    entries = struct.iter_unpack("=10I", room[8:8 + 40 * struct.unpack_from("=I", room)[0]])
    return next(entry[5] for entry in entries if entry[0] == 1)


def is_refused(cpu, level):
    popcnt, avx = 1 << 23, 1 << 28
    return cpu == "kvm" and (level > 1 and not offered_by_kvm() & popcnt
                             or level > 2 and not offered_by_kvm() & avx)


@pytest.mark.parametrize("cpu", ["soft", "kvm"])
@pytest.mark.parametrize("model", MODELS)
def test_models_show_their_level_and_no_more(tmp_path, cpu, model):
    """Leaf 1's ECX, leaf 7's EBX, leaf 0xd's EAX, as a guest reads them."""
    kernel = vm.assemble(tmp_path / "kernel", """
        mov $1, %eax
        cpuid
        mov %ecx, %esi
        mov $7, %eax
        xor %ecx, %ecx
        cpuid
        mov %ebx, %edi
        mov $0xd, %eax
        xor %ecx, %ecx
        cpuid
        mov %eax, %ebp
""" + KERNEL)
    level = MODELS[model]
    if is_refused(cpu, level):
        status, _, err = vm.run("--cpu", cpu, "--cpu-model", model, "--kernel", kernel)
        assert status == 1 and err.count("\n") == 1
        assert f"--cpu-model '{model}': this host's processor lacks " in err
        assert "it can be 'x86-64" in err
        return
    with machine(tmp_path / "api", "--cpu", cpu, "--cpu-model", model, "--kernel", kernel) as (
            process, control):
        assert process.stdout.readline() == b"u\n"
        registers = control.get("/vm/cpus/0/registers")
        if cpu == "kvm" and os.path.exists("/sys/module/kvm_pvm"):
            # There CPUID is the processor's own: it runs where it does not trap.
            return
        features = int(registers["rsi"], 16) & ~0x81200000  # x2APIC, TSC deadline, hypervisor
        assert features == {1: 0, 2: 0x982201, 3: 0x34d83201}[level]
        assert int(registers["rdi"], 16) == (0x1a9 if level == 3 else 0)
        assert int(registers["rbp"], 16) == (7 if level == 3 else 0)
