"""Fixtures of the API tests."""

import os
import shutil
import subprocess

import pytest

from tests.lib.daemon import Daemon
from tests.lib.registry import Registry


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        skip = pytest.mark.skip(reason="containers need root (namespaces, mounts, cgroups)")
        for item in items:
            item.add_marker(skip)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """One isled for a test module, with the image `busybox` in it."""
    if not shutil.which("docker"):
        pytest.skip("the docker CLI is not installed")
    with Daemon(tmp_path_factory.mktemp("isled")) as d:
        d.load_busybox()
        yield d
        assert leftover_mounts(d) == "", "mounts left behind"


@pytest.fixture
def fresh(tmp_path):
    """An isled of this test alone, without images."""
    with Daemon(tmp_path) as d:
        yield d


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    with Registry(tmp_path_factory.mktemp("registry")) as r:
        yield r


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Every test removes its containers; what it forgot is removed and fails it."""
    yield
    if "daemon" in request.fixturenames:
        d = request.getfixturevalue("daemon")
        left = d.get("/containers/json?all=1").json
        for c in left:
            d.delete(f"/containers/{c['Id']}?force=1&v=1")
        assert not left, f"containers left behind: {[c['Names'] for c in left]}"


def leftover_mounts(d):
    out = subprocess.run(["grep", "-F", str(d.root), "/proc/self/mounts"], capture_output=True,
                         text=True)
    return out.stdout
