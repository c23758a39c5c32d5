"""Fixtures of the command line's tests."""

import os
import subprocess

import pytest

from tests.cli.fake import Fake
from tests.cli.terminal import Terminal
from tests.lib.daemon import Daemon, program


class Isle:
    """The program, against one daemon."""

    def __init__(self, host, home):
        self.host = host
        self.home = home
        self.env = {**os.environ, "HOME": str(home), "TZ": "UTC", "ISLE_HOST": host}
        for name in ("DOCKER_HOST", "DOCKER_CONFIG", "ISLE_CONFIG"):
            self.env.pop(name, None)

    def command(self, *args):
        return [program("isle"), *map(str, args)]

    def __call__(self, *args, check=False, input=None, timeout=30, env=None, cwd=None):
        """Runs it; text unless the input is bytes."""
        done = subprocess.run(self.command(*args), capture_output=True, timeout=timeout,
                              text=not isinstance(input, bytes), cwd=cwd, input=input,
                              stdin=subprocess.DEVNULL if input is None else None,
                              env={**self.env, **(env or {})})
        if check:
            assert done.returncode == 0, f"isle {args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def out(self, *args, **kw):
        return self(*args, check=True, **kw).stdout.rstrip("\n")

    def popen(self, *args, **kw):
        return subprocess.Popen(self.command(*args), env=self.env, **kw)

    def terminal(self, *args, **kw):
        return Terminal(self.command(*args), env=self.env, **kw)


@pytest.fixture
def fake():
    with Fake() as f:
        yield f


@pytest.fixture
def isle(fake, tmp_path):
    """isle against the fake daemon."""
    return Isle(fake.host, tmp_path)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """One isled for a test module, with the image `busybox` in it."""
    if os.geteuid() != 0:
        pytest.skip("containers need root (namespaces, mounts, cgroups)")
    with Daemon(tmp_path_factory.mktemp("isled")) as d:
        d.load_busybox()
        yield d


@pytest.fixture
def real(daemon, tmp_path):
    """isle against a real daemon; containers left behind fail the test."""
    yield Isle(daemon.host, tmp_path)
    left = daemon.get("/containers/json?all=1").json
    for c in left:
        daemon.delete(f"/containers/{c['Id']}?force=1&v=1")
    assert not left, f"containers left behind: {[c['Names'] for c in left]}"
