#!/usr/bin/python3
"""Claim: an idle isled holds less than 10 MB of resident memory."""

import sys
import tempfile

import frame
import peers

peers.enter_private_cgroups()

from tests.lib.daemon import Daemon  # noqa: E402


def main():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home, Daemon(home) as isled, \
            peers.dockerd() as dockerd:
        # One image and one finished container each would be fairer to nobody: idle is idle.
        figures = frame.interleave({
            "isled": lambda: peers.resident_bytes(isled.process.pid),
            "dockerd + containerd": lambda: sum(map(peers.resident_bytes, dockerd.pids())),
        }, rounds=3)
    return frame.report("idle-memory", "resident memory of the idle daemon", figures, unit="MiB",
                        goals=[("isled < 10 MB", lambda m: m["isled"] < 10e6)])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
