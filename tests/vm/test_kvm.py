"""The provider on the host's KVM: small kernels; the host's speed at ring 0 may be anything."""

import os
import select
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
