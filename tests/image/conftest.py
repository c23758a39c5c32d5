"""Fixtures of the image tests."""

import os

import pytest

from tests.lib.daemon import Daemon
from tests.lib.fake_registry import FakeRegistry, Network


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="layers need root (device nodes, owners)"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One isled for a test module."""
    with Daemon(tmp_path_factory.mktemp("isled")) as d:
        yield d


@pytest.fixture
def isled(shared):
    """Without images before and after the test."""
    yield shared
    for image in shared.get("/images/json?all=1").json:
        shared.delete(f"/images/{image['Id']}?force=1")
    shared.post("/images/prune")


@pytest.fixture
def fresh(tmp_path):
    """An isled of this test alone."""
    with Daemon(tmp_path) as d:
        yield d


@pytest.fixture
def fake():
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture(scope="module")
def network():
    with Network() as n:
        yield n
