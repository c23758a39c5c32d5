#!/usr/bin/python3
"""Claim: a mixed job (a configure-like shell loop, gcc -O2 of units of our own, link, tar and gzip -9,
xz, a Python script, sort and awk, SHA-256) takes at most 0.35 of QEMU TCG's processor time on our
software CPU.

The host's own programs and libraries are put into a tree. Natively the job runs in it by chroot, in a
guest from a disk with it: same programs, files and results, which must be equal. Isle and QEMU (q35,
-cpu max) have the same kernel, initial ramdisk, disk and memory and take turns; the least of all rounds
counts. Processor time is the machine's process's whole, its devices' too; natively the job's own.
ROUNDS, and ENGINES (of native, isle, qemu, apart by commas) are taken from the environment.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import frame
import peers

from tests.lib import vm  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "3"))
ENGINES = os.environ.get("ENGINES", "native,isle,qemu").split(",")
MEMORY_MIB = 1024
GOAL = 0.35
TICKS = os.sysconf("SC_CLK_TCK")

JOB = frame.TOP / "bench" / "job"
UNITS = ("src/cpu/decode.c", "src/cpu/run.c", "src/cpu/exec_system.c", "src/cpu/exec_integer.c",
         "src/cpu/translate_run.c", "src/cpu/exec_string.c")
PROGRAMS = ("bash", "cat", "sed", "grep", "expr", "rm", "tr", "sort", "uniq", "awk", "sha256sum", "tar",
            "gzip", "xz", "strip", "as", "ld", "gcc", "python3")
OF_GCC = ("cc1", "collect2", "lto-wrapper", "liblto_plugin.so")
LINKED = ("crti.o", "crtn.o", "crtbeginS.o", "crtendS.o", "libgcc.a", "libgcc_s.so", "libc.so",
          "libc_nonshared.a")
SCRIPT = """
/bin/busybox mount -t ext4 -o ro /dev/vda /mnt
/bin/busybox mount -t devtmpfs none /mnt/dev
/bin/busybox mount -t proc none /mnt/proc
/bin/busybox mount -t tmpfs none /mnt/work
/bin/busybox chroot /mnt /in/job.sh
/bin/busybox poweroff -f
"""


@dataclasses.dataclass
class Figure:
    wall: float
    busy: float  # seconds of processor time
    result: str


# ---- the tree ----

def said_by(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def put(tree, path):
    """A copy of a file of the host's, under its own name in its real directory."""
    path = pathlib.Path(path)
    target = tree / path.parent.resolve().relative_to("/") / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def put_program(tree, path):
    put(tree, path)
    found = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(/\S+) \(0x", found):
        put(tree, library)


def put_units(tree):
    database = frame.TOP / "build"
    entries = json.loads((database / "compile_commands.json").read_text())
    for unit in UNITS:
        entry = next(e for e in entries if e["file"].endswith(unit))
        flags = [word for word in shlex.split(entry["command"]) if word.startswith(("-I", "-D"))]
        name = unit.replace("/", "_")[:-2] + ".i"
        subprocess.run(["gcc", "-E", "-O2", "-std=gnu17", *flags, "-o", tree / "in" / name, entry["file"]],
                       cwd=entry["directory"], check=True)


def make_tree(tree):
    for name in ("usr/bin", "usr/lib", "usr/lib64", "in", "work", "dev", "proc", "tmp"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for name in PROGRAMS:
        put_program(tree, f"/usr/bin/{name}")
    for name in OF_GCC:
        put_program(tree, said_by("gcc", f"-print-prog-name={name}").strip()
                    if ".so" not in name else said_by("gcc", f"-print-file-name={name}").strip())
    for name in LINKED:
        put(tree, os.path.normpath(said_by("gcc", f"-print-file-name={name}").strip()))
    put(tree, "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1")
    library = said_by("/usr/bin/python3", "-ISc", "import os; print(os.__file__)").strip()
    library = pathlib.Path(library).parent
    shutil.copytree(library, tree / library.relative_to("/"), ignore=shutil.ignore_patterns(
        "test", "dist-packages", "idlelib", "config-*", "lib2to3", "ensurepip"))
    for extension in (library / "lib-dynload").glob("*.so"):
        put_program(tree, extension)
    put_units(tree)
    for path in JOB.iterdir():
        shutil.copy2(path, tree / "in")
    (tree / "in" / "job.sh").chmod(0o755)


def make_disk(tree, path):
    frame.run_quietly(["truncate", "-s", "512M", path])
    frame.run_quietly(["mkfs.ext4", "-q", "-d", tree, path])


# ---- running ----

def processor_time(pid):
    """Seconds that a process and all those under it have taken."""
    try:
        words = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(words[11]) + int(words[12])) / TICKS + sum(map(processor_time, children))


def run(engine, command):
    """part -> Figure of one run."""
    figures, begun, log = {}, None, ""
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, errors="replace") as process:
        for line in process.stdout:
            now, busy = time.perf_counter(), processor_time(process.pid)
            log += line
            if re.search(r"part \w+ begin", line):
                begun = now, busy
            elif found := re.search(r"part (\w+) end 0 ([0-9.]+) ([0-9.]+) (\w{64})", line):
                used = float(found[2]) + float(found[3]) if engine == "native" else busy - begun[1]
                figures[found[1]] = Figure(now - begun[0], used, found[4])
    if process.returncode != 0 or log.count(" begin") != log.count(" end 0 ") or not figures:
        sys.exit(f"bench: the job failed under {engine}, exit status {process.returncode}:\n{log}")
    return figures


def commands(home):
    tree, disk = home / "tree", home / "disk"
    make_tree(tree)
    make_disk(tree, disk)
    kernel = str(vm.debian_kernel())
    initrd = str(vm.initrd(home / "initrd.gz", SCRIPT, ("virtio_pci", "virtio_blk", "ext4")))
    return {
        "native": ["unshare", "--mount", "sh", "-c",
                   f"mount -t tmpfs none {tree}/work && mount --bind /dev {tree}/dev &&"
                   f" exec taskset -c 0 chroot {tree} /in/job.sh"],
        "isle": [vm.VMM, "--cpu", "soft", "--memory", f"{MEMORY_MIB}m", "--kernel", kernel, "--initrd",
                 initrd, "--cmdline", vm.CMDLINE, "--disk", f"{disk},ro,format=raw"],
        "qemu": peers.qemu_tcg(kernel, initrd, vm.CMDLINE, MEMORY_MIB, *peers.qemu_disk(disk)),
    }


def least(figures, key):
    return {part: min(getattr(run[part], key) for run in figures) for part in figures[0]}


def measure(home):
    machines = {engine: words for engine, words in commands(home).items() if engine in ENGINES}
    found = {engine: [] for engine in machines}
    for _ in range(ROUNDS):
        for engine, command in machines.items():
            found[engine].append(run(engine, command))
    results = {tuple((part, f.result) for part, f in run.items())
               for runs in found.values() for run in runs}
    if len(results) != 1:
        sys.exit(f"bench: results differ: {results}")
    return {key: {engine: least(runs, key) for engine, runs in found.items()}
            for key in ("wall", "busy")}


# ---- the report ----

RATIOS = (("isle", "native"), ("qemu", "native"), ("isle", "qemu"))


def print_table(what, times):
    print(f"\n{what}, s, least of {ROUNDS}; i/n: isle-vmm soft to native, q/n: QEMU TCG to native, "
          "i/q: us to QEMU TCG")
    print(f"  {'':12}" + "".join(f"{engine:>10}" for engine in times)
          + "".join(f"{a[0]}/{b[0]}".rjust(8) for a, b in RATIOS))
    for part in next(iter(times.values())):
        cells = "".join(f"{rows[part]:10.2f}" for rows in times.values())
        ratios = "".join(f"{times[a][part] / times[b][part]:8.2f}" if a in times and b in times else
                         f"{'':8}" for a, b in RATIOS)
        print(f"  {part:<12}{cells}{ratios}")


def main():
    if "qemu" in ENGINES:
        peers.install_qemu()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        figures = measure(pathlib.Path(home))
    for times in figures.values():
        for rows in times.values():
            rows["all"] = sum(rows.values())
    print_table("wall time", figures["wall"])
    print_table("processor time", figures["busy"])
    busy, met = figures["busy"], True
    if {"isle", "qemu"} <= set(busy):
        met = busy["isle"]["all"] <= GOAL * busy["qemu"]["all"]
        print(f"  {'met   ' if met else 'NOT MET'} processor time <= {GOAL} x QEMU TCG")
    frame.RESULTS.mkdir(parents=True, exist_ok=True)
    (frame.RESULTS / "vm-job.json").write_text(json.dumps(
        {"name": "vm-job", "figures": figures, "met": met, "at": time.time()}, indent=1) + "\n")
    return met


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
