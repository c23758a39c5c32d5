#!/usr/bin/python3
"""Claims about the other verbs of isle-runtime, beside crun and runc: a run behind docker's
seccomp policy, create + start + delete, exec, eight at a time, peak memory."""

import os
import subprocess
import sys
import tempfile
import time

import bench_runtime_start as base
import frame
import peers

peers.enter_private_cgroups()

ROUNDS = int(os.environ.get("ROUNDS", "30"))
PARALLEL, BATCH = 8, 40


def runtimes(home):
    programs = {"isle-runtime": frame.built("isle-runtime"), "crun": "crun", "runc": "runc"}
    return {label: [program, "--root", f"{home}/state-{label}"]
            for label, program in programs.items()}


def quiet(*command):
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lifecycle(command, where):
    """Created, started, at its end, deleted: the three calls are counted, not the program."""
    def once():
        total = 0
        for step in (("create", "-b", where, "bench"), ("start", "bench"), ("delete", "-f", "bench")):
            begin = time.perf_counter()
            quiet(*command, *step)
            total += time.perf_counter() - begin
        return total
    return once


def peak(command, where):
    """As GNU time sees it: a child of ours would begin with our own size."""
    def once():
        done = subprocess.run(["/usr/bin/time", "-f", "%M", *command, "run", "-b", str(where),
                               "bench-peak"], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=True)
        return int(done.stderr.split()[-1]) * 1024
    return once


def rate(command, where):
    """Containers a second with eight at a time."""
    def once():
        begin, running, started = time.perf_counter(), set(), 0
        while running or started < BATCH:
            while len(running) < PARALLEL and started < BATCH:
                running.add(subprocess.Popen([*command, "run", "-b", str(where), f"many-{started}"],
                                             stdin=subprocess.DEVNULL))
                started += 1
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            running = {p for p in running if p.poll() is None}
        return BATCH / (time.perf_counter() - begin)
    return once


def main():
    frame.install("time")
    good = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        plain = base.bundle(os.path.join(home, "plain"))
        filtered = base.bundle(os.path.join(home, "filtered"), seccomp=True)
        lasting = base.bundle(os.path.join(home, "lasting"), ("sleep", "1000"))
        commands = runtimes(home)

        def measure(name, claim, make, rounds=ROUNDS, warmup=2, **how):
            figures = frame.interleave({label: make(command) for label, command in commands.items()},
                                       rounds, warmup)
            good.append(frame.report(name, claim, figures, **how))

        measure("runtime-seccomp", "run behind docker's seccomp policy (wall time)",
                lambda c: frame.timed([*c, "run", "-b", filtered, "bench"]),
                goals=[("<= 0.25 x crun", lambda m: m["isle-runtime"] <= 0.25 * m["crun"])])
        measure("runtime-lifecycle", "create + start + delete --force (wall time)",
                lambda c: lifecycle(c, lasting),
                goals=[("<= 0.5 x crun", lambda m: m["isle-runtime"] <= 0.5 * m["crun"])])
        for command in commands.values():
            quiet(*command, "run", "-d", "-b", lasting, f"lasting-{os.path.basename(command[0])}")
        try:
            measure("runtime-exec", "exec of true (wall time)",
                    lambda c: frame.timed([*c, "exec", f"lasting-{os.path.basename(c[0])}", "true"]),
                    goals=[("<= 3 ms", lambda m: m["isle-runtime"] <= 0.003)])
        finally:
            for command in commands.values():
                quiet(*command, "delete", "-f", f"lasting-{os.path.basename(command[0])}")
        measure("runtime-rate", "containers a second, eight at a time", lambda c: rate(c, plain),
                rounds=5, warmup=1, unit="/s",
                goals=[(">= 1.7 x crun", lambda m: m["isle-runtime"] >= 1.7 * m["crun"])])
        measure("runtime-memory", "peak resident memory of run", lambda c: peak(c, plain), rounds=5,
                unit="MiB", goals=[("<= 2 MB", lambda m: m["isle-runtime"] <= 2e6)])
    return all(good)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
