"""A real systemd on a machine that another init runs: a user's manager for ourselves.

It lives in a mount namespace of its own, in a group of its own and with no units but ours. The
system's is spoken to in the same way; tests/vm has that one, on cgroup version 2.
"""
import os
import subprocess
import tempfile
from pathlib import Path

from tests.lib.runtime import wait_until

PROGRAM = "/lib/systemd/systemd"
TREES = [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]
START = """
for tree in {trees}; do mkdir $tree/{name} && echo $$ > $tree/{name}/cgroup.procs || exit; done
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec {program} --user
"""


class Systemd:
    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="isle-systemd-"))
        self.name = self.home.name
        for unit in ("basic.target", "default.target", "shutdown.target", "exit.target"):
            (self.home / unit).write_text("[Unit]\nDefaultDependencies=no\n")
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(self.home), "HOME": str(self.home),
                    "SYSTEMD_UNIT_PATH": str(self.home), "SYSTEMD_LOG_TARGET": "console"}
        self.socket = self.home / "systemd" / "private"
        self.address = f"unix:path={self.socket}"
        script = START.format(trees=" ".join(map(str, TREES)), name=self.name, program=PROGRAM)
        with open(self.home / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", script], env=self.env,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.process.poll() is not None or self.is_up(), what="systemd")
        assert self.process.poll() is None, (self.home / "log").read_text()

    def ctl(self, *args):
        return subprocess.run(["systemctl", "--user", *args], env=self.env, capture_output=True,
                              text=True, timeout=20)

    def is_up(self):
        return self.socket.exists() and self.ctl("is-active", "default.target").returncode == 0

    def show(self, unit):
        """{property: value}; of a list the last."""
        lines = self.ctl("show", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def scopes(self):
        listed = self.ctl("list-units", "--all", "--plain", "--no-legend", "--type=scope").stdout
        return {line.split()[0] for line in listed.splitlines()} - {"init.scope"}

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        for tree in TREES:
            for directory, _, _ in os.walk(tree / self.name, topdown=False):
                os.rmdir(directory)
        for tree in Path("/sys/fs/cgroup").iterdir():  # slices that only we have used
            for directory, _, _ in os.walk(tree / self.name, topdown=False):
                os.rmdir(directory)
        subprocess.run(["rm", "-r", self.home], check=True)
