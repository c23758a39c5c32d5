"""`make demo`, the first thing a newcomer types: it works, says what it does, leaves nothing."""

import os
import pathlib
import signal
import subprocess

from tests.lib.daemon import TREE, until


def leftovers(marker):
    """Processes whose command line has the text."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if marker in words and "pytest" not in words:
            found.append(words)
    return found


def start(tmp_path):
    # /tmp of pytest is too deep for the path of a socket.
    run = pathlib.Path(f"/tmp/isle-demo-run-{os.getpid()}")
    env = {**os.environ, "ISLE_ROOT": str(tmp_path / "root"), "ISLE_RUN": str(run)}
    return run, subprocess.Popen([TREE / "scripts/demo"], env=env, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)


def assert_gone(tmp_path, run):
    assert leftovers(str(run)) == []
    assert not (tmp_path / "root").exists() and not run.exists()
    assert str(tmp_path) not in pathlib.Path("/proc/mounts").read_text()


def test_demo(tmp_path):
    run, demo = start(tmp_path)
    out = demo.communicate(timeout=300)[0]
    assert demo.returncode == 0, out
    for shown in ("hello from busybox", "Debian GNU/Linux 12", "hello through docker",
                  "out of memory: true", "Status: Downloaded newer image", "Up "):
        assert shown in out
    assert_gone(tmp_path, run)


def test_demo_interrupted(tmp_path):
    run, demo = start(tmp_path)
    until((run / "docker.sock").exists, 200, "the demo's isled")
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert_gone(tmp_path, run)
