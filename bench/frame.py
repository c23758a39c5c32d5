"""The frame of every bench: peers from Debian beside us, in one run, interleaved.

A bench script names one claim of docs/specification.md, prepares its candidates and calls

    frame.report("name", "what is measured", frame.interleave(candidates, rounds), goals)

where `candidates` maps a label to a function that does the work once and returns
its figure (seconds unless `unit` says otherwise); the first label is ours. The
candidates take turns (A B C, A B C, …) so that a drifting machine touches all alike;
medians are quoted. The result goes to the terminal and, as JSON, to build/bench/.
"""

import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))
RESULTS = TOP / "build" / "bench"


def install(*packages):
    """Installs peers from Debian; does nothing where they are there."""
    subprocess.run([TOP / "scripts" / "install-deps", *packages], check=True)


def built(name):
    """Path of one of our programs; `make` builds them."""
    path = TOP / "build" / "src" / "bin" / name
    if not path.exists():
        sys.exit(f"bench: {path} is not there; run `make build` first")
    return str(path)


def run_quietly(command, **kw):
    """Runs to its end; a failure stops the bench with the program's own words."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, **kw)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))}: exit status {done.returncode}\n"
                 f"{done.stdout}{done.stderr}")
    return done.stdout


def timed(command, before=None, after=None, **kw):
    """A candidate: the wall time of one run; `before` and `after` are not counted."""
    def once():
        if before:
            before()
        start = time.perf_counter()
        run_quietly(command, **kw)
        took = time.perf_counter() - start
        if after:
            after()
        return took
    return once


def interleave(candidates, rounds, warmup=1):
    """Figures of `rounds` turns of every candidate, after `warmup` turns that do not count."""
    figures = {label: [] for label in candidates}
    for turn in range(warmup + rounds):
        for label, once in candidates.items():
            figure = once()
            if turn >= warmup:
                figures[label].append(figure)
    return figures


UNITS = {"s": (1, "s"), "ms": (1e3, "ms"), "MiB": (1 / (1 << 20), "MiB"), "/s": (1, "/s")}


def report(name, claim, figures, unit="ms", goals=(), notes=()):
    """Prints median, range and the ratio to us; `goals` are (text, function of the medians)."""
    scale, suffix = UNITS[unit]
    medians = {label: statistics.median(values) for label, values in figures.items()}
    ours = next(iter(medians))
    print(f"\n{claim}")
    for label, values in figures.items():
        print(f"  {label:<34} {medians[label] * scale:9.2f} {suffix}"
              f"  ({min(values) * scale:.2f} to {max(values) * scale:.2f}, n={len(values)})"
              f"  {medians[label] / medians[ours]:6.2f} x")
    verdicts = {text: bool(check(medians)) for text, check in goals}
    for text, met in verdicts.items():
        print(f"  {'met   ' if met else 'NOT MET'} {text}")
    for note in notes:
        print(f"  note: {note}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({
        "name": name, "claim": claim, "unit": suffix, "scale": scale, "medians": medians,
        "figures": figures, "goals": verdicts, "notes": list(notes),
        "kernel": platform.release(), "cpus": os.cpu_count(), "at": time.time(),
    }, indent=1) + "\n")
    return all(verdicts.values())


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            sys.exit(f"bench: {program} is not installed and could not be installed from Debian")
