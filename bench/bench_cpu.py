#!/usr/bin/python3
"""Claim: programs run several times faster on our software CPU than under QEMU TCG, near their
native speed.

The programs of bench/cpu run natively, in a guest of isle-vmm --cpu soft and in one of QEMU TCG
(q35, -cpu max) with the same Debian kernel and initial ramdisk, in turns; the best of all rounds
counts, and ratios are put together as geometric means per group. Arguments name works (`sieve fork`);
ROUNDS, and ENGINES (of native, isle, qemu, apart by commas) are taken from the environment.
"""

import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import frame
import peers

from tests.lib import vm  # noqa: E402

SOURCES = frame.TOP / "bench" / "cpu"
ROUNDS = int(os.environ.get("ROUNDS", "3"))
ENGINES = os.environ.get("ENGINES", "native,isle,qemu").split(",")
WORKS = sys.argv[1:]
MEMORY_MIB = 512
TIMEOUT_S = 900

# From the goal of the software CPU: group -> (geometric mean, each) times native.
GOALS = {"integer": (2.5, 5), "float": (3, 5), "simd": (3, 5), "memory": (2.5, None),
         "jit": (20, None)}
# The same against QEMU TCG, for what the guest's kernel does.
TCG_GOALS = {"syscall": 0.5, "virtual": 0.5}
CLOCKS_DIFFER = 0.02


def compile_all(home):
    programs = []
    for source in sorted(SOURCES.glob("*.c")):
        programs.append(home / source.stem)
        subprocess.run(["gcc", "-static", "-O2", "-Wall", "-Werror", "-o", programs[-1], source,
                        "-lm", "-pthread"], check=True)
    return programs


def read_figures(pipe, figures):
    """Takes the programs' lines; the guest's clock must agree with ours."""
    clocks = []
    for line in pipe:
        now = time.monotonic_ns()
        if found := re.search(r"cpu (\S+) (\S+) ([0-9.]+)", line):
            key, ns = (found[1], found[2]), float(found[3])
            figures[key] = min(ns, figures.get(key, ns))
        elif found := re.search(r"clock (\d+)", line):
            clocks.append((int(found[1]), now))
            if len(clocks) % 2 == 0:
                theirs, ours = (clocks[-1][i] - clocks[-2][i] for i in (0, 1))
                if abs(theirs - ours) > CLOCKS_DIFFER * ours + 5e6:
                    print(f"  note: a guest's clock counted {theirs / 1e9:.3f} s in "
                          f"{ours / 1e9:.3f} s", file=sys.stderr)


def run(command, figures):
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, errors="replace") as process:
        read_figures(process.stdout, figures)
        if process.wait(TIMEOUT_S) != 0:
            sys.exit(f"bench: {command[0]}: exit status {process.returncode}")


def native(programs, figures, cpus):
    # One processor, as a guest has one: or a ping-pong would wake the other.
    pin = ["taskset", "-c", "0"] if cpus == 1 else []
    for program in programs:
        run([*pin, program, *WORKS], figures)


def guest_command(engine, home, programs, cpus):
    kernel = vm.debian_kernel()
    script = "".join(f"/bin/{program.name} {' '.join(WORKS)}\n" for program in programs)
    initrd = vm.initrd(home / f"initrd{cpus}.gz", script + "/bin/busybox poweroff -f\n", (),
                       programs)
    if engine == "isle":
        return [vm.VMM, "--cpu", "soft", "--cpus", cpus, "--memory", f"{MEMORY_MIB}m", "--kernel",
                kernel, "--initrd", initrd, "--cmdline", vm.CMDLINE]
    return peers.qemu_tcg(kernel, initrd, vm.CMDLINE, MEMORY_MIB, "-smp", cpus)


def rounds(home):
    programs = compile_all(home)
    figures = {engine: {} for engine in ENGINES}
    machines = [(1, [p for p in programs if p.name != "threads"]),
                (2, [p for p in programs if p.name == "threads"])]
    for _ in range(ROUNDS):
        for cpus, chosen in machines:
            if WORKS and not any(f'"{work}"' in (SOURCES / f"{p.name}.c").read_text()
                                 for p in chosen for work in WORKS):
                continue
            for engine in ENGINES:
                if engine == "native":
                    native(chosen, figures[engine], cpus)
                else:
                    run(guest_command(engine, home, chosen, cpus), figures[engine])
    return figures


def mean(values):
    values = [value for value in values if not math.isnan(value)]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def ratio(figures, key, ours, theirs):
    if key in figures.get(ours, {}) and key in figures.get(theirs, {}):
        return figures[ours][key] / figures[theirs][key]
    return math.nan


def print_row(label, values, ratios):
    cells = "".join(f"{value:15.2f}" for value in values)
    print(f"  {label:<24}{cells}" + "".join(f"{value:9.2f}" for value in ratios))


RATIOS = (("isle", "native"), ("qemu", "native"), ("isle", "qemu"))


def report(figures):
    keys = list(dict.fromkeys(key for engine in figures for key in figures[engine]))
    means = {}
    print("\nns per operation, best of all rounds; i/n: isle-vmm soft to native, q/n: QEMU TCG to "
          "native, i/q: us to QEMU TCG")
    print(f"  {'':24}" + "".join(f"{engine:>15}" for engine in figures)
          + "".join(f"{name:>9}" for name in ("i/n", "q/n", "i/q")))
    for group in dict.fromkeys(key[0] for key in keys):
        rows = {key: [ratio(figures, key, *pair) for pair in RATIOS]
                for key in keys if key[0] == group}
        for key, ratios in rows.items():
            print_row("/".join(key), [figures[e].get(key, math.nan) for e in figures], ratios)
        means[group] = [mean([row[i] for row in rows.values()]) for i in range(3)]
        means[group].append(max((row[0] for row in rows.values() if not math.isnan(row[0])),
                                default=math.nan))
        print_row(f"{group}: geometric mean", [math.nan] * len(figures), means[group][:3])
    return means


def verdicts(means):
    found = {}
    for group, (geometric, each) in GOALS.items():
        if group in means:
            found[f"{group}: mean <= {geometric} x native"] = means[group][0] <= geometric
            if each:
                found[f"{group}: none above {each} x native"] = means[group][3] <= each
    for group, limit in TCG_GOALS.items():
        if group in means:
            found[f"{group}: mean <= {limit} x QEMU TCG"] = means[group][2] <= limit
    return found


def main():
    if "qemu" in ENGINES:
        peers.install_qemu()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        figures = rounds(pathlib.Path(home))
    means = report(figures)
    goals = verdicts(means) if not WORKS else {}
    for text, met in goals.items():
        print(f"  {'met   ' if met else 'NOT MET'} {text}")
    frame.RESULTS.mkdir(parents=True, exist_ok=True)
    (frame.RESULTS / "cpu.json").write_text(json.dumps({
        "name": "cpu", "goals": goals, "means": means, "at": time.time(),
        "figures": {engine: {"/".join(key): ns for key, ns in found.items()}
                    for engine, found in figures.items()}}, indent=1) + "\n")
    return all(goals.values())


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
