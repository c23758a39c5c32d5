#!/usr/bin/python3
"""Claim: 1,000 containers that come and go in every way leave nothing: no mount, cgroup, process,
frozen or not, keyring, state or socket. COUNT containers; each way is as often as any other."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import bench_runtime_start as base
import frame

COUNT = int(os.environ.get("COUNT", "1000"))
TAG = f"churn{os.getpid()}x"


class Churn:
    def __init__(self, home):
        self.program = [frame.built("isle-runtime"), "--root", f"{home}/state"]
        self.quick = base.bundle(f"{home}/quick", seccomp=True)
        self.slow = base.bundle(f"{home}/slow", ("sleep", "1000"), seccomp=True)
        self.failing = base.bundle(f"{home}/failing")
        config = json.loads((self.failing / "config.json").read_text())
        config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
        (self.failing / "config.json").write_text(json.dumps(config))

    def call(self, *arguments, status=0):
        done = subprocess.run([*self.program, *map(str, arguments)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              check=False)
        # A created container's program holds standard error until it ends, but not ours.
        if done.returncode != status:
            sys.exit(f"bench: {arguments} exited with {done.returncode}: {done.stderr}")

    def detached(self, verb, *arguments):
        subprocess.run([*self.program, verb, *map(str, arguments)], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def run(self, id):
        self.call("run", "-b", self.quick, id)

    def by_steps(self, id):
        self.detached("create", "-b", self.slow, id)
        self.call("start", id)
        self.call("exec", id, "true")
        self.call("kill", id, "KILL")
        self.call("delete", "--force", id)

    def frozen(self, id):
        self.detached("run", "-d", "-b", self.slow, id)
        self.call("pause", id)
        self.call("delete", "--force", id)

    def never_started(self, id):
        self.detached("create", "-b", self.slow, id)
        self.call("update", "--cpu-share", "512", id)
        self.call("delete", id)

    def not_made(self, id):
        self.call("run", "-b", self.failing, id, status=1)

    def ways(self):
        return [self.run, self.by_steps, self.frozen, self.never_started, self.not_made]


def cgroups_left():
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"cgroup {directory}/{name}" for name in names if TAG in name)


def processes_left(home):
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            if home in words or TAG in (process / "cgroup").read_text():
                yield f"process {process.name} {words}"


def left(home):
    """What is there of them, by name."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if home in line:
            yield f"mount {line}"
    for line in pathlib.Path("/proc/keys").read_text().splitlines():
        if TAG in line:
            yield f"keyring {line}"
    yield from cgroups_left()
    yield from processes_left(home)
    yield from (f"state {p}" for p in pathlib.Path(home, "state").iterdir()
                if p.name != ".seccomp")


def main():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        churn = Churn(home)
        ways = churn.ways()
        start = time.perf_counter()
        for number in range(COUNT):
            ways[number % len(ways)](f"{TAG}{number}")
        rate = COUNT / (time.perf_counter() - start)
        # Keyrings and zombies go when the kernel and whoever adopted them get round to it.
        deadline = time.monotonic() + 20
        while (things := list(left(home))) and time.monotonic() < deadline:
            time.sleep(0.1)
        for thing in things[:20]:
            print(f"  left: {thing}")
        return frame.report("runtime-churn", f"{COUNT} containers that come and go, in five ways",
                            {"isle-runtime": [rate]}, unit="/s",
                            goals=[("nothing is left", lambda m: not things)])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
