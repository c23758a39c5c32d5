"""Other people's test programs, built for a root directory that a guest and its host run alike.

Each suite yields programs of the tree `root`; what cannot be built is told apart."""

import concurrent.futures
import dataclasses
import pathlib
import re
import shutil
import subprocess

SHELL = "/bin/busybox sh"


@dataclasses.dataclass
class Program:
    """One line for tests/vm/guest/suite.c."""
    name: str
    command: str
    limit_s: int = 60
    build: tuple = ()  # cc's arguments; nothing where it is there already


def _program(suite, name, sources, *flags, limit_s=60, suffix=""):
    inside = f"/suites/{suite}/{name}{suffix}"
    if "-m32" in flags:  # whose <asm/...> are those of 64 bits
        flags += ("-idirafter", "/usr/include/x86_64-linux-gnu")
    return Program(f"{suite}.{name}{suffix}", inside, limit_s,
                   ("-static", "-w", *flags, *map(str, sources), "-o", inside, "-lm"))


# ---- gcc ----

def _dejagnu_options(source):
    """What a test wants of the compiler on every target."""
    text = source.read_text(errors="replace")
    found = re.findall(r'dg-(?:additional-)?options\s+"([^"]*)"\s*}', text)
    return [word for options in found for word in options.split()]


def torture(checkout, variants=("-O2", "-m32 -O2")):
    directory = checkout / "gcc" / "testsuite" / "gcc.c-torture" / "execute"
    builtins = directory / "builtins"
    programs = {"-".join(source.relative_to(directory).with_suffix("").parts): [source]
                for source in sorted(directory.rglob("*.c")) if builtins not in source.parents}
    # These have their libraries, and a main() in common, beside them.
    for library in sorted(builtins.glob("*-lib.c")):
        name = library.name.removesuffix("-lib.c")
        programs[f"builtins-{name}"] = [builtins / f"{name}.c", library,
                                        builtins / "lib" / "main.c"]
    for variant in variants:
        for name, sources in programs.items():
            yield _program("torture", name, sources, "-std=gnu17", *variant.split(),
                           *_dejagnu_options(sources[0]), suffix=variant.replace(" ", ""))


# ---- QEMU ----

def qemu(checkout):
    """As tests/tcg's makefiles build them for x86_64 and i386."""
    tcg = checkout / "tests" / "tcg"
    multiarch, i386, x86_64 = tcg / "multiarch", tcg / "i386", tcg / "x86_64"
    common = ["-O0", "-fno-strict-aliasing", "-pthread", "-I", multiarch / "libs"]
    flags = {"test-i386-sse-exceptions": ["-msse4.1", "-mfpmath=sse"],
             "test-i386-pcmpistri": ["-msse4.2"], "test-i386-bmi2": ["-O2"],
             "sha512-sse": ["-msse4.1", "-O3"], "test-avx": ["-mavx", "-masm=intel", "-O"],
             "test-mmx": ["-masm=intel", "-O"],
             "hello-i386": ["-ffreestanding", "-nostdlib"]}

    def one(name, sources, bits):
        return _program("qemu", name, sources, f"-m{bits}", *map(str, common),
                        *flags.get(name, ()), "-I", str(checkout), limit_s=300, suffix=f".{bits}")

    for bits in (64, 32):
        for source in sorted([*multiarch.glob("*.c"), *multiarch.glob("linux/*.c")]):
            helpers = ([multiarch / "libs" / "float_helpers.c"]
                       if source.stem.startswith("float_") else [])
            yield one(source.stem, [source, *helpers], bits)
        yield one("sha512-sse", [multiarch / "sha512.c"], bits)
    # QEMU's makefile leaves the first out, too: it takes 12 s natively.
    elsewhere = {"test-i386-fprem", "test-i386-ssse3"}
    for source in sorted(i386.glob("test-i386-*.c")):
        if source.stem not in elsewhere:
            yield one(source.stem, [source], 32)
    for name in ("test-i386-bmi2", "test-i386-ssse3", "test-avx", "test-mmx"):
        yield one(name, [i386 / f"{name}.c"], 64)
    yield one("hello-i386", [i386 / "hello-i386.c"], 32)
    flags["test-i386"] = ["-fno-pie", "-no-pie"]
    yield one("test-i386", [i386 / f"test-i386{end}" for end in
                            (".c", "-code16.S", "-vm86.S")], 32)
    flags["test-i386.flat"] = flags["test-i386"]
    yield one("test-i386.flat", [i386 / f"test-i386{end}" for end in
                                 (".flat.c", "-code16.S", "-vm86.S")], 32)
    yield one("test-x86_64", [i386 / "test-i386.c"], 64)
    for source in sorted(x86_64.glob("*.c")):
        yield one(source.stem, [source], 64)


def qemu_headers(checkout):
    """What QEMU's makefiles generate beside test-avx.c and test-mmx.c, but for VAES of 256 bits,
    which the programs use unasked and CPUID here hides."""
    i386 = checkout / "tests" / "tcg" / "i386"
    # What follows the 16-bit code that Debian's cloud kernel does not allow.
    whole = (i386 / "test-i386.c").read_text()
    (i386 / "test-i386.flat.c").write_text(whole.replace("    test_code16();\n", ""))
    script = i386 / "test-avx.py"
    script.write_text(script.read_text().replace('"VAES+AVX",', ""))
    for script, header, sets in (("test-avx.py", "test-avx.h", ()),
                                 ("test-mmx.py", "test-mmx.h",
                                  ("MMX", "SSE", "SSE2", "SSE3", "SSSE3"))):
        subprocess.run(["python3", i386 / script, i386 / "x86.csv", i386 / header, *sets],
                       check=True)


# ---- the kernel's selftests ----

def selftests(checkout):
    """tools/testing/selftests/x86, as its makefile has it but linked statically."""
    directory = checkout / "tools" / "testing" / "selftests" / "x86"
    lists = {name: words.replace("\\\n", " ").split() for name, words in re.findall(
        r"^(TARGETS_C_\w+) := ((?:.*\\\n)*.*)$", (directory / "Makefile").read_text(), re.M)}
    both = lists["TARGETS_C_BOTHBITS"] + lists["TARGETS_C_32BIT_NEEDED"]
    more = {"sysret_ss_attrs.64": "thunks.S", "ptrace_syscall.32": "raw_syscall_helper_32.S",
            "test_syscall_vdso.32": "thunks_32.S"}
    for bits in (64, 32):
        for name in both + lists[f"TARGETS_C_{bits}BIT_ONLY"]:
            sources = [directory / f"{name}.c"]
            if helper := more.get(f"{name}.{bits}"):
                sources.append(directory / helper)
            entry = ["-Wl,-ereal_start"] if name == "check_initial_reg_state" else []
            yield _program("selftests", name, sources, f"-m{bits}", "-O2", "-std=gnu99", "-pthread",
                           "-no-pie", "-DCAN_BUILD_32", "-DCAN_BUILD_64", *entry,
                           limit_s=900 if name == "syscall_numbering" else 60,
                           suffix=f".{bits}")


# ---- busybox ----

BUSYBOX = """#!/bin/busybox sh
# The test suite of one applet, on a copy of its own.
mkdir copy copy/testsuite
cp -a /suites/busybox/testsuite/. copy/testsuite
ln -s /suites/busybox/busybox /suites/busybox/.config copy
cd copy/testsuite
export ECHO="/bin/busybox echo" TZ=UTC0
./runtest -v "$1"
"""


def busybox(checkout, root):
    """A built (static) tree's testsuite, one program per applet."""
    target = root / "suites" / "busybox"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(checkout / "testsuite", target / "testsuite", symlinks=True)
    shutil.copy2(checkout / "busybox", target / "busybox")
    shutil.copy2(checkout / ".config", target / ".config")
    (target / "run").write_text(BUSYBOX)
    tests = checkout / "testsuite"
    names = {path.stem for path in tests.glob("*.tests")} | {
        path.name for path in tests.iterdir() if path.is_dir()}
    for name in sorted(names - {"all_sourcecode"}):
        yield Program(f"busybox.{name}", f"{SHELL} /suites/busybox/run {name}", 1800)


# ---- building ----

def build(programs, root, jobs=2):
    """Returns what was built, and a message for each that was not."""
    def one(program):
        target = root / program.command.split()[0].lstrip("/")
        if not program.build or target.exists():
            return program, ""
        target.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(root) + a if a.startswith("/suites/") else a for a in program.build]
        done = subprocess.run(["cc", *arguments], capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if re.search("error|undefined", line)]
        return program, "" if done.returncode == 0 else (lines or ["cc failed"])[0]

    built, failed = [], {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for program, message in pool.map(one, programs):
            if message:
                failed[program.name] = message
            else:
                built.append(program)
    return built, failed


def make_root(root, suite_program):
    """Directories, busybox and its applets; /suites and /results get filled."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "suites", "results", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2("/bin/busybox", root / "bin" / "busybox")
    shutil.copy2(suite_program, root / "bin" / "suite")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for name in applets.stdout.split():
        link = root / "bin" / name
        if not link.exists():
            link.symlink_to("busybox")
    for name, text in (("passwd", "root:x:0:0:root:/:/bin/sh\n"), ("group", "root:x:0:\n")):
        (pathlib.Path(root) / "etc" / name).write_text(text)
