"""Memory in common with a template, on every processor there is."""

import os

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_control import machine

FILL = b"\x5a\x5a\x5a\x5a"
AT, SIZE = 0x400000, 256 << 10

# Fills, sleeps until there is a key, writes to one page and adds all up.
KERNEL = f"""
        mov $0x200000, %esp
        mov $on_key, %eax
        mov %ax, gates + 8 * 0x21
        mov %cs, gates + 8 * 0x21 + 2
        movw $0x8e00, gates + 8 * 0x21 + 4
        shr $16, %eax
        mov %ax, gates + 8 * 0x21 + 6
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
        mov $0x60, %al              # the keyboard interrupts
        out %al, $0x64
        mov $1, %al
        out %al, $0x60
        mov $0xfd, %al
        out %al, $0x21
        mov ${AT}, %edi
        mov ${SIZE // 4}, %ecx
        mov ${int.from_bytes(FILL, "little")}, %eax
        cld
        rep stosl
        mov $0x3f8, %edx
        mov $'u', %al
        out %al, %dx
        mov $10, %al
        out %al, %dx
        sti
1:      hlt
        in $0x64, %al
        test $1, %al
        jz 1b
        cli
        movl $7, {AT + 0x10000}
        mov ${AT}, %esi
        mov ${SIZE // 4}, %ecx
        xor %ebx, %ebx
2:      lodsl
        add %eax, %ebx
        loop 2b
        xor %eax, %eax
        cmp ${((SIZE // 4 - 1) * int.from_bytes(FILL, "little") + 7) & 0xffffffff}, %ebx
        setne %al
        add $21, %al                # the status says whether: 2 * 21 + 1
        mov $0xf4, %edx
        out %al, %dx
3:      hlt
        jmp 3b
on_key:
        push %eax
        mov $0x20, %al
        out %al, $0x20
        pop %eax
        iret
.balign 8
idt:    .word 8 * 0x22 - 1
        .long gates
.balign 8
gates:  .fill 8 * 0x22, 1, 0
"""


def counter(control, name):
    lines = control.get("/metrics").decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines if name in line and line[0] != "#")


@pytest.mark.parametrize("cpu", ["soft", "kvm"])
def test_an_idle_guest_shares_and_does_not_notice(tmp_path, cpu):
    if cpu == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("this host has no /dev/kvm")
    kernel = vm.assemble(tmp_path / "kernel", KERNEL)
    template = tmp_path / "template"
    with open(template, "wb") as file:
        file.seek(AT)
        file.write(FILL * (SIZE // 4))
    with machine(tmp_path / "api", "--cpu", cpu, "--kernel", kernel, "--memory-template",
                 template) as (process, control):
        assert process.stdout.readline() == b"u\n"
        until(lambda: counter(control, "shared_bytes") == SIZE, 60, lambda: control.get("/metrics"))
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 43
    assert template.read_bytes()[AT:] == FILL * (SIZE // 4)
