#!/usr/bin/python3
"""Claim: a machine that goes on from a snapshot has answered a line at its console in at most 0.25 of
the time in which the same machine boots to its first: Debian's cloud kernel, software CPU, 256 MiB."""

import os
import subprocess
import sys
import tempfile
import time

import frame
import peers

from tests.lib import vm  # noqa: E402
from tests.vm.test_control import Control  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "10"))
SCRIPT = "echo up\nwhile read line; do echo back; done\n"


def command(home, *more):
    return [vm.VMM, "--cpu", "soft", "--kernel", vm.debian_kernel(), "--initrd",
            os.path.join(home, "initrd.gz"), "--cmdline", vm.CMDLINE, *more]


def until_said(arguments, word):
    """A candidate: from the program's start until the guest has said this."""
    def once():
        start = time.perf_counter()
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdin.write(b"go\n")
            process.stdin.flush()
            said = any(line.split() == [word] for line in process.stdout)
            took = time.perf_counter() - start
            process.kill()
        if not said:
            sys.exit(f"bench: the guest ended before it said {word.decode()}")
        return took
    return once


def save(home):
    api, directory = os.path.join(home, "api"), os.path.join(home, "snapshot")
    with subprocess.Popen(command(home, "--api-socket", api), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        next(line for line in process.stdout if line.split() == [b"up"])
        peers.wait_for(lambda: Control(api).get("/vm/cpus/0/registers")["activity"] == "halted",
                       "a guest that waits for a line")
        Control(api).post("/vm/pause")
        subprocess.run([vm.VMM, "--api-socket", api, "--snapshot", directory], check=True)
        process.kill()
    return directory


def main():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        vm.initrd(os.path.join(home, "initrd.gz"), SCRIPT)
        directory = save(home)
        figures = frame.interleave({
            "restored": until_said(command(home, "--restore", directory), b"back"),
            "booted": until_said(command(home), b"up"),
        }, ROUNDS, warmup=1)
    return frame.report(
        "vm-restore", "process start to an answer of the guest's shell, or to its first word (wall time)", figures,
        goals=[("restored <= 0.25 x booted", lambda m: m["restored"] <= 0.25 * m["booted"])],
        notes=["the snapshot's memory is in the page cache"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
