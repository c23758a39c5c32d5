"""isle-vmm on the software CPU: kernels it boots, how it ends, what it refuses."""

import ctypes
import fcntl
import gzip
import json
import os
import signal
import struct
import subprocess
import termios

import pytest

from tests.lib import vm


# Writes to COM1, then leaves by the debug port with the code in bx.
TEST_KERNEL = """
        mov $message, %esi
        mov $0x3f8, %edx
1:      lodsb
        test %al, %al
        jz 2f
        outb %al, %dx
        jmp 1b
2:      CHECK
        mov $0xf4, %edx
        mov $21, %eax
        outb %al, %dx
        hlt
message: .asciz "hello from ring 0\\n"
"""


@pytest.fixture(scope="session", name="kernel")
def _kernel():
    return vm.debian_kernel()


def waiting_bytes(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


def boot(kernel, tmp_path, script, *args):
    initrd = vm.initrd(tmp_path / "initrd.gz", script)
    return vm.run("--cpu", "soft", "--kernel", kernel, "--initrd", initrd, "--cmdline", vm.CMDLINE,
                  *args)


def test_image_is_unpacked_or_unpacks_itself(kernel, tmp_path):
    script = "busybox grep 'Kernel code' /proc/iomem; busybox poweroff -f\n"
    _, out, err = boot(kernel, tmp_path, script)
    assert out.strip().startswith("01000000-"), (out, err)  # where it is linked
    status, out, err = boot(kernel, tmp_path, script, "--no-unpack")
    assert status == 0 and "Kernel code" in out, (out, err)


LZ4_BLOCK = 8 << 20


def lz4_pack(elf, lz4):
    """The legacy frame that kernels use."""
    packed = struct.pack("<I", 0x184c2102)
    for at in range(0, len(elf), LZ4_BLOCK):
        block = elf[at:at + LZ4_BLOCK]
        room = ctypes.create_string_buffer(lz4.LZ4_compressBound(len(block)))
        size = lz4.LZ4_compress_default(block, room, len(block), len(room))
        packed += struct.pack("<I", size) + room.raw[:size]
    return packed + struct.pack("<I", len(elf))


def payload_of(image):
    """Where it begins, and its bytes."""
    offset = (image[0x1f1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
    return offset, bytes(image[offset:offset + struct.unpack_from("<I", image, 0x24c)[0]])


def lz4_unpack(payload, lz4):
    elf, at = b"", 4
    while at < len(payload) - 4:
        size, = struct.unpack_from("<I", payload, at)
        block = ctypes.create_string_buffer(LZ4_BLOCK)
        filled = lz4.LZ4_decompress_safe(payload[at + 4:at + 4 + size], block, size, LZ4_BLOCK)
        elf += block.raw[:filled]
        at += 4 + size
    return elf


KERNEL_CODE = "busybox grep 'Kernel code' /proc/iomem; busybox poweroff -f\n"


@pytest.mark.parametrize("packing", ["gzip", "lz4"])
def test_image_in_another_packing(kernel, tmp_path, packing):
    """Nothing but the payload is right: its own code, behind that, is gone."""
    lz4 = ctypes.CDLL("liblz4.so.1")
    image = bytearray(kernel.read_bytes())
    offset, payload = payload_of(image)
    elf = lz4_unpack(payload, lz4)
    packed = gzip.compress(elf, 1) if packing == "gzip" else lz4_pack(elf, lz4)
    struct.pack_into("<I", image, 0x24c, len(packed))
    (tmp_path / "image").write_bytes(image[:offset] + packed)
    status, out, err = boot(tmp_path / "image", tmp_path, KERNEL_CODE)
    assert status == 0 and out.strip().startswith("01000000-"), (out, err)


def test_image_that_cannot_be_entered_unpacks_itself(kernel, tmp_path):
    """Its PVH note has another name, which is known when most of it is in its place."""
    image = kernel.read_bytes()
    offset, payload = payload_of(image)
    changed = payload.replace(b"Xen", b"Xem")
    assert changed != payload
    (tmp_path / "image").write_bytes(image[:offset] + changed + image[offset + len(payload):])
    status, out, err = boot(tmp_path / "image", tmp_path, KERNEL_CODE)
    assert status == 0 and "Kernel code" in out, (out, err)
    assert not out.strip().startswith("01000000-"), out


@pytest.mark.parametrize("cpus", [1, 2])
def test_debian_kernel_to_init_and_off(kernel, tmp_path, cpus):
    status, out, err = boot(kernel, tmp_path, "echo cpus: $(busybox grep -c ^processor "
                            "/proc/cpuinfo)\necho cmdline: $(busybox cat /proc/cmdline)\n"
                            "busybox poweroff -f\n".replace("busybox", "/bin/busybox"),
                            "--cpus", cpus)
    assert (status, err) == (0, "")
    assert f"cpus: {cpus}\r\n" in out
    assert f"cmdline: {vm.CMDLINE}" in out


def test_memory_is_what_was_asked_for(kernel, tmp_path):
    _, out, _ = boot(kernel, tmp_path, "/bin/busybox grep MemTotal /proc/meminfo\n"
                     "/bin/busybox poweroff -f\n", "--memory", "512m")
    kib = int(out.split("MemTotal:")[1].split()[0])
    assert 440 << 10 < kib < 512 << 10


def test_stolen_time_is_told(kernel, tmp_path):
    """The machine has half of a processor: the other half goes to a busy loop."""
    initrd = vm.initrd(tmp_path / "initrd.gz", "stat() { busybox grep '^cpu ' /proc/stat; }\n"
                       "stat\nn=0; while [ $n -lt 300000 ]; do n=$((n+1)); done\nstat\n"
                       "busybox poweroff -f\n".replace("busybox", "/bin/busybox"))
    pin = lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # noqa: E731
    with subprocess.Popen(["sh", "-c", "while :; do :; done"], preexec_fn=pin) as busy:
        try:
            _, out, _ = vm.run("--cpu", "soft", "--kernel", kernel, "--initrd", initrd,
                               "--cmdline", vm.CMDLINE, preexec_fn=pin)
        finally:
            busy.kill()
    before, after = ([int(word) for word in line.split()[1:]] for line in out.splitlines()
                     if line.startswith("cpu "))
    passed, stolen = sum(after) - sum(before), after[7] - before[7]
    assert passed > 20 and stolen > passed / 4, (before, after)


def test_kernel_needs_no_work_arounds_for_silicon(kernel, tmp_path):
    """Page tables are not switched at system calls: ARCH_CAPABILITIES says so."""
    _, out, _ = boot(kernel, tmp_path, "/bin/busybox mount -t sysfs sys /sys\n"
                     "cd /sys/devices/system/cpu/vulnerabilities\n"
                     "/bin/busybox grep . meltdown mds l1tf\n/bin/busybox poweroff -f\n")
    for name in ("meltdown", "mds", "l1tf"):
        assert f"{name}:Not affected" in out


def test_reset_starts_again_or_ends(kernel, tmp_path):
    initrd = vm.initrd(tmp_path / "initrd.gz", "echo init is up\n/bin/busybox reboot -f\n")
    command = [vm.VMM, "--cpu", "soft", "--kernel", kernel, "--initrd", initrd, "--cmdline",
               vm.CMDLINE]
    status, out, _ = vm.run(*command[1:], "--no-reboot")
    assert status == 0 and out.count("init is up") == 1
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        seen = 0
        for line in process.stdout:
            seen += b"init is up" in line
            if seen == 2:
                process.send_signal(signal.SIGTERM)
                break
        assert process.wait(60) == 0
    assert seen == 2


def test_multiboot_kernel_leaves_by_the_debug_port(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel",
                         TEST_KERNEL.replace("CHECK", "cmp $0x2badb002, %eax"))
    status, out, err = vm.run("--kernel", kernel, "--test-devices")
    assert (status, out, err) == (21 << 1 | 1, "hello from ring 0\n", "")


def test_small_kernel_lies_below_1_mib(tmp_path):
    source = TEST_KERNEL.replace("CHECK", "nop")
    status, out, _ = vm.run("--kernel", vm.assemble(tmp_path / "low", source, 0x8000),
                            "--test-devices")
    assert (status, out) == (43, "hello from ring 0\n")
    for address in (0x7000, 0x1fff0):  # what the loader hands over is there
        status, _, err = vm.run("--kernel", vm.assemble(tmp_path / "on", source, address))
        assert status == 1 and "not memory of this machine" in err


# Each ends at 9: with another code where the machine is not as it should be.
@pytest.mark.parametrize("check", [
    """
        mov $0x12345678, %eax       # the register reads back
        out %eax, $0xe0
        xor %eax, %eax
        in $0xe0, %eax
        cmp $0x12345678, %eax
        jne 9f
        movl $0x5a5a5a5a, 0xff000ffe # so does memory behind MMIO
        cmpl $0x5a5a5a5a, 0xff000ffe
        jne 9f
        mov $0x2005, %edx           # line 5 reaches the interrupt controller
        mov $1, %al
        out %al, %dx
        mov $0x0a, %al
        out %al, $0x20
        in $0x20, %al
        test $0x20, %al
    """,
    """
        mov $0x1b, %ecx             # CPUID follows the APIC's global enable bit
        rdmsr
        and $~0x800, %eax
        wrmsr
        mov $1, %eax
        cpuid
        not %edx
        test $0x200, %edx
    """,
    """
        mov $99, %eax               # no such hypercall, by either vendor's opcode
        vmmcall
        cmp $-1000, %eax
        jne 9f
        mov $99, %eax
        vmcall
        cmp $-1000, %eax
        jne 9f
        mov $10, %eax               # interrupts for processors 0 to 63, of which there is one
        mov $-1, %ebx
        xor %ecx, %ecx
        xor %edx, %edx
        mov $0x41, %esi
        vmcall
        test %eax, %eax
    """], ids=["devices", "apic", "hypercalls"])
def test_what_test_kernels_find(tmp_path, check):
    kernel = vm.assemble(tmp_path / "kernel", TEST_KERNEL.replace("CHECK", check + """
        jnz 8f
9:      mov $0xf4, %edx
        mov $1, %eax
        outb %al, %dx
8:      nop"""))
    status, _, _ = vm.run("--cpu", "soft", "--kernel", kernel, "--test-devices")
    assert status == 21 << 1 | 1


def test_triple_fault_is_told(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", TEST_KERNEL.replace("CHECK", "ud2"))
    status, out, err = vm.run("--kernel", kernel)
    assert (status, out) == (4, "hello from ring 0\n")
    assert err == "isle-vmm: the guest crashed (triple fault)\n"


def test_output_goes_to_a_slow_reader_whole(tmp_path):
    """Far more than pipe and buffer hold, and nobody reads before the pipe stays as it is."""
    lines = 400000
    kernel = vm.assemble(tmp_path / "kernel", TEST_KERNEL.replace("CHECK", f"""
        mov ${lines}, %ecx
3:      mov $0x3fd, %edx
4:      inb %dx, %al
        test $0x20, %al
        jz 4b
        mov $0x3f8, %edx
        mov $'x', %al
        outb %al, %dx
        loop 3b"""))
    with subprocess.Popen([vm.VMM, "--kernel", kernel, "--test-devices"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        before, unchanged = 0, 0
        while not before or unchanged < 20000:
            now = waiting_bytes(process.stdout)
            unchanged = unchanged + 1 if now == before else 0
            before = now
        out = process.stdout.read()
        assert process.wait(60) == 43
    assert out.count(b"x") == lines


def test_configuration_file(tmp_path):
    kernel = vm.assemble(tmp_path / "kernel", TEST_KERNEL.replace("CHECK", "nop"))
    config = tmp_path / "vm.json"
    config.write_text(json.dumps({"kernel": str(kernel), "cpu": "soft", "memory_mib": 64,
                                  "test_devices": True}), encoding="ascii")
    status, out, _ = vm.run("--config", config)
    assert (status, out) == (43, "hello from ring 0\n")


@pytest.mark.parametrize("args, story", [
    ((), "no kernel is named; --kernel FILE does"),
    (("--kernel", "/nowhere"), "kernel '/nowhere': No such file or directory"),
    (("--kernel", "/etc/passwd"), "not a kernel: neither a bzImage, nor ELF with a PVH note, nor"
     " multiboot"),
    (("--kernel", "/bin/true"), "ELF without a PVH entry note"),
    (("--kernel", "/etc"), "kernel '/etc' is not a file"),
    (("--kernel", "K", "--memory", "1000g"), "this host has only"),
    (("--kernel", "K", "--memory", "17m"), "MiB of memory, the machine has 17"),
    (("--kernel", "K", "--cpus", "0"), "0 vCPUs: 1 to 64 are possible"),
    (("--kernel", "K", "--cpus", "65"), "65 vCPUs: 1 to 64 are possible"),
    (("--kernel", "K", "--initrd", "/nowhere"), "initrd '/nowhere': No such file or directory"),
    (("--kernel", "K", "--cmdline", "x" * 3000), "command line of 3000 bytes: this kernel takes"),
])
def test_bad_input_is_one_clear_error(kernel, args, story):
    status, out, err = vm.run(*[kernel if arg == "K" else arg for arg in args])
    assert (status, out) == (1, "")
    assert err.startswith("isle-vmm: ") and err.count("\n") == 1
    assert story in err


@pytest.mark.parametrize("args, story", [
    (("--cpu", "fast"), "--cpu 'fast': there are auto, kvm, soft, kvm-split"),
    (("--cpu-model", "i486"), "--cpu-model 'i486': there are host, x86-64, x86-64-v2, x86-64-v3"),
    (("--memory", "much"), "--memory 'much': a size such as 512m is needed"),
    (("--cpus", "two"), "--cpus 'two': not a number"),
    (("vmlinuz",), "'vmlinuz' is no option; a kernel is named by --kernel"),
    (("--config", "/nowhere"), "configuration '/nowhere': "),
])
def test_usage_errors(args, story):
    status, _, err = vm.run(*args)
    assert status == 2 and story in err


def test_truncated_kernel_and_huge_initrd(kernel, tmp_path):
    short = tmp_path / "short"
    short.write_bytes(kernel.read_bytes()[:2000])
    status, _, err = vm.run("--kernel", short)
    assert status == 1 and "truncated: 2000 bytes" in err
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(300 << 20)
    status, _, err = vm.run("--kernel", kernel, "--initrd", huge)
    assert status == 1 and "initrd of 314572800 bytes does not fit" in err


@pytest.mark.parametrize("model, shown, hidden", [
    ("x86-64-v2", "sse4_2 popcnt rdtscp cx16", "avx xsave aes bmi1 smep fsgsbase arch_capabilities"),
    ("x86-64-v3", "avx2 bmi2 fma xsave smep", "aes avx512f pku smap rdrand erms xsavec"),
])
def test_a_model_is_what_the_guest_s_kernel_uses(kernel, tmp_path, model, shown, hidden):
    status, out, err = boot(kernel, tmp_path, "busybox grep -m1 ^flags /proc/cpuinfo\n"
                            "busybox poweroff -f\n", "--cpu-model", model)
    flags = next(line.split() for line in out.splitlines() if line.startswith("flags"))
    assert status == 0, err
    assert set(shown.split()) <= set(flags)
    assert not set(hidden.split()) & set(flags)
