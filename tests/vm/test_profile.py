"""isle-vmm --profile: what guest code runs, with its instructions, and a map for the host's perf."""

import re

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_control import machine

LOOPS = 1_000_000
HOT, COLD = 0x180000, 0x190000

# To 64-bit code with the first 2 MiB mapped as they are. There a function that is called often,
# on a page of its own; then a key is waited for.
KERNEL = f"""
        movl $0x202003, 0x201000
        movl $0x203003, 0x202000
        movl $0x83, 0x203000
        movl $0x200083, 0x203008
        mov $0x201000, %eax
        mov %eax, %cr3
        mov $0x620, %eax
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        mov $0x100, %eax
        xor %edx, %edx
        wrmsr
        mov $0x80000001, %eax
        mov %eax, %cr0
        lgdt gdt_pointer
        ljmp $8, $long_mode
gdt:    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdt_pointer: .word 23
        .long gdt
.code64
long_mode:
        mov $0x300000, %esp
        mov $16, %eax
        mov %eax, %ss
        mov %eax, %ds
        mov ${LOOPS}, %ebp
1:      mov ${HOT:#x}, %eax
        call *%rax
        cld
        dec %ebp
        jnz 1b
        mov ${COLD:#x}, %eax
        call *%rax
        mov $0x3f8, %edx
        mov $'u', %al
        outb %al, %dx
        mov $10, %al
        outb %al, %dx
2:      inb $0x64, %al
        test $1, %al
        jz 2b
        mov $0xf4, %edx
        outb %al, %dx
3:      hlt
        jmp 3b
.org {HOT - 0x100000:#x}
        imul $3, (%rsp), %rax
        bswap %rax
        lea 5(%rax,%rax,8), %rcx
        xor %rcx, %rax
        add %rax, 0x210000
        add %rax, 0x211000
        ror $7, %rax
        ret
.org {COLD - 0x100000:#x}
        mov %rbp, %rax
        ret
"""
HOT_TEXT = ["imul rax, [rsp], 0x03", "bswap rax", "lea rcx, [rax+rax*8+0x05]", "xor rax, rcx",
            "add [0x0000000000210000], rax", "add [0x0000000000211000], rax", "ror rax, 0x07", "ret"]


@pytest.fixture(scope="session", name="kernel")
def _kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("profile") / "kernel", KERNEL)


def number(report, name):
    return int(re.search(rf"^ *{name} +(\d+)", report, re.MULTILINE)[1])


def blocks(report):
    """The hottest code, in order: address -> (percent, runs, percent translated, mode,
    instructions)."""
    found = {}
    for part in report.split("\n\n"):
        head = re.match(r" *\d+ +([0-9.]+) % +(\d+) runs, ([0-9.]+) % translated +0x([0-9a-f]+)"
                        r"  (\w+), 64 bits", part)
        if head:
            lines = [line[22:] for line in part.splitlines()[1:]]
            text = [(line[:30].split(), line[30:].strip()) for line in lines]
            found[int(head[4], 16)] = (float(head[1]), int(head[2]), float(head[3]), head[5], text)
    return found


@pytest.fixture(name="perf_map")
def _perf_map():
    """Gives the map of a machine's process, and takes it away."""
    paths = []

    def path_of(process):
        paths.append(vm.pathlib.Path(f"/tmp/perf-{vm.machine_pid(process)}.map"))
        return paths[-1]

    yield path_of
    for path in paths:
        path.unlink(missing_ok=True)


def test_hot_loop_is_first_with_its_instructions(tmp_path, kernel, perf_map):
    with machine(tmp_path / "api", "--cpu", "soft", "--kernel", kernel, "--profile",
                 tmp_path / "report") as (process, control):
        assert process.stdout.readline() == b"u\n"
        names = perf_map(process)
        meanwhile = control.get("/vm/profile").decode()
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) & 1, process.stderr.read()
    report = (tmp_path / "report").read_text()
    for text in (meanwhile, report):
        hottest = blocks(text)
        address = next(iter(hottest))
        percent, runs, translated, mode, code = hottest[address]
        assert address == HOT and mode == "kernel"
        # Eight instructions of thirteen of each turn, but for what waits for the key.
        assert LOOPS - 20 <= runs <= LOOPS and translated > 99.9
        assert [text for _, text in code] == HOT_TEXT
        assert code[1][0] == ["48", "0f", "c8"]
        assert number(text, "instructions executed") >= 13 * LOOPS - 100
        # The return address twice, and both counters.
        assert 4 * LOOPS <= number(text, "TLB looks, translated") <= 7 * LOOPS
        assert number(text, "indirect jumps") >= 2 * LOOPS - 100
        assert number(text, "TLB misses") < 1000
        helped = re.search(r"^ +(\d+) +[0-9.]+ %  cld$", text, re.MULTILINE)
        assert LOOPS - 20 <= int(helped[1]) <= LOOPS
    check_map(names)


def check_map(path):
    hot = []
    for line in path.read_text().splitlines():
        start, size, name = re.fullmatch(
            r"([0-9a-f]+) ([0-9a-f]+) (guest-\w+-0x[0-9a-f]+(?:-stubs)?)", line).groups()
        assert int(start, 16) > 1 << 32 and 0 < int(size, 16) < 1 << 16
        hot += [name] if name == f"guest-kernel-{HOT:#x}" else []
    assert len(hot) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_reports_are_appended(tmp_path, kernel, perf_map):
    for _ in range(2):
        with machine(tmp_path / "api", "--cpu", "soft", "--kernel", kernel, "--profile",
                     tmp_path / "report") as (process, control):
            assert process.stdout.readline() == b"u\n"
            perf_map(process)
            control.post("/vm/send-key", {"keys": "a"})
            assert process.wait(60) & 1, process.stderr.read()
    assert (tmp_path / "report").read_text().count("profile of 1 vCPU\n") == 2


def test_without_it_there_is_none(tmp_path, kernel):
    with machine(tmp_path / "api", "--cpu", "soft", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        assert control.refused("GET", "/vm/profile") == (
            409, "the VM is not profiled; --profile FILE asks for it")
        metrics = control.get("/metrics").decode()
        assert not vm.pathlib.Path(f"/tmp/perf-{vm.machine_pid(process)}.map").exists()
    assert re.search(r"^isle_vmm_vcpu_blocks_searched_total\{index=\"0\"\} [1-9]", metrics,
                     re.MULTILINE)
    assert re.search(r"^isle_vmm_vcpu_port_accesses_total\{index=\"0\"\} [1-9]", metrics,
                     re.MULTILINE)


def test_a_report_that_cannot_be_written_is_refused(tmp_path, kernel):
    status, _, told = vm.run("--cpu", "soft", "--kernel", kernel, "--profile",
                             tmp_path / "nowhere" / "report")
    assert status == 1
    assert f"--profile: open '{tmp_path}/nowhere/report': No such file" in told


def test_two_processors_are_one_report(tmp_path, kernel, perf_map):
    with machine(tmp_path / "api", "--cpu", "soft", "--cpus", "2", "--kernel", kernel, "--profile",
                 tmp_path / "report") as (process, control):
        assert process.stdout.readline() == b"u\n"
        perf_map(process)
        until(lambda: "profile of 2 vCPUs" in control.get("/vm/profile").decode())
