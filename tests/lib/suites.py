"""Other people's test programs, built for a root directory that a guest and its host run alike.

Each suite yields programs of the tree `root`; what cannot be built is told apart."""

import concurrent.futures
import dataclasses
import os
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


# ---- LTP ----

LTP = """#!/bin/busybox sh
# One program of LTP; of its output what does not name the kernel, times or places.
export PATH=/suites/ltp/bin:/bin LTPROOT=/suites/ltp TMPDIR=$PWD LTP_TIMEOUT_MUL=5
chmod 777 .
"$@" > whole 2>&1
status=$?
# tst_fd.c tells which kinds of descriptors this kernel has not.
grep -v tst_fd.c whole > output
for result in TPASS TFAIL TBROK TWARN TCONF; do
    echo "$result: $(grep -c $result output)"
done
grep -E 'TFAIL|TBROK|TWARN|TCONF' output
exit $status
"""

# By the program's text: wants devices, modules, kernel options or control groups; attacks what
# the kernel here may not have fixed; or races and measures times, which takes minutes and counts
# the host's load.
LTP_WANTS = re.compile(
    r"needs_cgroup|tst_cg_|needs_device|mount_device|all_filesystems|format_device|"
    r"tst_acquire_device|hugepages|fzsync|fuzzy_sync|needs_drivers|tst_module|needs_kconfigs|"
    r"restore_wallclock|tst_timer_test|SAFE_MODPROBE|\"CVE\"|CVE[- ]?\d{4}")

# By directory: would change the host's clock, modules, swap, log or terminals; or fills it.
LTP_HOST = frozenset((
    "acct adjtimex clock_adjtime clock_settime delete_module fanotify finit_module init_module "
    "ioctl kexec quotactl reboot settimeofday stime swapoff swapon syslog vhangup").split())
LTP_HEAVY = frozenset(("fork13", "fork14", "msgstress01", "sendfile09", "sendfile09_64"))


# 10,000 times two processes would be more than the time that a program has.
LTP_LESS = {"fcntl14": ["-n", "200"], "fcntl14_64": ["-n", "200"]}


def _ltp_source(binary):
    """The text of a program whose name may have a variant's suffix."""
    stem = re.sub(r"_(16|64|time64)$", "", binary.name)
    source = binary.with_name(f"{stem}.c")
    return source.read_text(errors="replace") if source.exists() else ""


def ltp(checkout, root):
    """The system calls' programs of a tree built with LDFLAGS=-static: runtest/syscalls."""
    target = root / "suites" / "ltp"
    shutil.rmtree(target, ignore_errors=True)
    (target / "bin").mkdir(parents=True)
    (target / "run").write_text(LTP)
    calls = checkout / "testcases" / "kernel" / "syscalls"
    binaries = {path.name: path for path in calls.glob("*/*")
                if path.suffix == "" and path.is_file() and os.access(path, os.X_OK)}
    for name, path in binaries.items():
        shutil.copy2(path, target / "bin" / name)
    for line in (checkout / "runtest" / "syscalls").read_text().splitlines():
        words = line.split()
        if len(words) < 2 or words[1] not in binaries or re.search(r"[$;|<>&\"']", line):
            continue
        binary = binaries[words[1]]
        if binary.parent.name in LTP_HOST or words[1] in LTP_HEAVY:
            continue
        if not LTP_WANTS.search(_ltp_source(binary)):
            command = " ".join([*words[1:], *LTP_LESS.get(words[1], ())])
            yield Program(f"ltp.{words[0]}", f"{SHELL} /suites/ltp/run {command}", 150)


# ---- glibc ----

GLIBC_FLAGS = ("-std=gnu11", "-frounding-math", "-D_GNU_SOURCE", "-D_ISOMAC",
               "-DMODULE_NAME=testsuite", "-Dlibc_hidden_proto(x)=")
GLIBC_RUN = """#!/bin/busybox sh
# One program of glibc, whose own limit is for a processor that is not translated.
export TIMEOUTFACTOR=20
exec "$@"
"""
# As math/Makefile has them for the tests that call functions, not builtins.
GLIBC_MATH = ("-O1", "-fno-inline", "-ffloat-store", "-fno-builtin", "-fsignaling-nans")
GLIBC_TYPES = ("float", "double", "ldouble")


def _glibc_flags(checkout):
    """The host's headers and, for what those have not, the tree's, which is of the same version."""
    made = (checkout / "build" / "config.make").read_text()
    places = re.search(r"^config-sysdirs = (.*)$", made, re.M).group(1)
    after = [checkout / "build", *(checkout / name for name in places.split()),
             *(checkout / name for name in ("include", "support", "string", "math", "nptl", "."))]
    return [*GLIBC_FLAGS, *(f"-idirafter{path}" for path in after)]


def _glibc_support(checkout, flags):
    """Builds libsupport, which the tests share, but for what needs glibc's inner headers; the
    tests that want that do not link. Returns its path."""
    directory = checkout / "build" / "support"
    library = directory / "libsupport.a"
    if library.exists():
        return library
    directory.mkdir(exist_ok=True)
    listed = re.search(r"^libsupport-routines = ((?:.*\\\n)*)", (checkout / "support" / "Makefile")
                       .read_text(), re.M).group(1)
    places = [f'-D{name}_PATH="/"' for name in (
        "SRCDIR OBJDIR OBJDIR_ELF_LDSO INSTDIR LIBDIR BINDIR SBINDIR SLIBDIR ROOTSBINDIR "
        "COMPLOCALEDIR").split()]
    objects = []
    for name in listed.replace("\\", " ").split():
        made = directory / f"{name}.o"
        command = ["cc", "-c", "-O2", "-w", "-includelimits.h", "-DTIMEOUTFACTOR=1", *flags,
                   *places, checkout / "support" / f"{name}.c", "-o", made]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            objects.append(made)
    subprocess.run(["ar", "rcs", library, *objects], check=True)
    return library


def _glibc_functions(checkout):
    """Generates the programs of libm's functions; yields name and sources."""
    math, built = checkout / "math", checkout / "build" / "math"
    built.mkdir(exist_ok=True)
    generate = ["python3", math / "gen-libm-test.py"]
    subprocess.run([*generate, "-u", checkout / "sysdeps" / "x86_64" / "fpu" / "libm-test-ulps",
                    "-H", built / "libm-test-ulps.h"], check=True)
    for kind in GLIBC_TYPES:
        (built / f"libm-test-support-{kind}.c").write_text(
            f"#include <test-{kind}.h>\n#include <libm-test-support.c>\n")
    for source in sorted(math.glob("libm-test-*.inc")):
        function = source.stem.removeprefix("libm-test-")
        if function.startswith(("narrow-", "compat_")) or function == "driver":
            continue
        auto, generated = math / f"auto-libm-test-out-{function}", built / f"libm-test-{function}.c"
        if not generated.exists():
            subprocess.run([*generate, "-c", source, "-a", auto if auto.exists() else "/dev/null",
                            "-C", generated], check=True)
        for kind in GLIBC_TYPES:
            program = built / f"test-{kind}-{function}.c"
            program.write_text("".join(f"#include <{name}>\n" for name in (
                f"test-{kind}.h", "test-math-exceptions.h", "test-math-errno.h",
                "test-math-scalar.h", f"libm-test-{function}.c")))
            yield program.stem, [program, built / f"libm-test-support-{kind}.c"]


def glibc(checkout, root):
    """A tree of the host's glibc, configured in its `build`: tests of string, stdlib, threads and
    math, with the host's static libraries. Those of <tgmath.h> are the compiler's,
    and large copies take minutes and gigabytes."""
    target = root / "suites" / "glibc"
    target.mkdir(parents=True, exist_ok=True)
    (target / "run").write_text(GLIBC_RUN)
    flags = _glibc_flags(checkout)
    support = _glibc_support(checkout, flags)

    def one(part, name, sources, *more):
        program = _program("glibc", f"{part}.{name}", sources, *flags, *more, limit_s=600)
        program.build += (str(support), "-lm")
        program.command = f"{SHELL} /suites/glibc/run {program.command}"
        return program

    for part, directory in (("string", "string"), ("stdlib", "stdlib"), ("math", "math"),
                            ("nptl", "nptl"), ("nptl", "sysdeps/pthread")):
        for source in sorted((checkout / directory).glob("*.c")):
            if re.match(r"(?!test-tgmath|test-mem.*-large)(tst|test|bug)|tester$", source.stem):
                yield one(part, source.stem, [source], "-O2", "-fno-builtin", "-pthread")
    for name, sources in _glibc_functions(checkout):
        yield one("libm", name, sources, *GLIBC_MATH, f"-idirafter{checkout / 'build' / 'math'}")


# ---- building ----

def build(programs, root, jobs=2):
    """Returns what was built, and a message for each that was not."""
    def one(program):
        if not program.build:
            return program, ""
        target = root / program.build[program.build.index("-o") + 1].lstrip("/")
        if target.exists():
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
    for name in ("bin", "dev", "proc", "sys", "tmp", "suites", "results", "etc", "boot"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2("/bin/busybox", root / "bin" / "busybox")
    shutil.copy2(suite_program, root / "bin" / "suite")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for name in applets.stdout.split():
        link = root / "bin" / name
        if not link.exists():
            link.symlink_to("busybox")
    users = (("root", 0), ("daemon", 1), ("bin", 2), ("nobody", 65534))
    passwd = "".join(f"{name}:x:{number}:{number}:{name}:/:/bin/sh\n" for name, number in users)
    group = "".join(f"{name}:x:{number}:\n" for name, number in users)
    for name, text in (("passwd", passwd), ("group", group)):
        (pathlib.Path(root) / "etc" / name).write_text(text)
