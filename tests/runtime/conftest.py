import os

import pytest

from tests.lib import runtime as lib


@pytest.fixture(scope="session")
def rootfs_template(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("containers without a user namespace need root")
    if not os.path.exists(lib.BUSYBOX):
        pytest.skip("needs Debian's busybox-static")
    return lib.make_rootfs(tmp_path_factory.mktemp("template") / "rootfs")


@pytest.fixture
def runtime(tmp_path):
    program = lib.find_program()
    if not program:
        pytest.fail("isle-runtime is not built")
    instance = lib.Runtime(tmp_path / "state", program)
    yield instance
    instance.cleanup()


@pytest.fixture
def bundle(tmp_path, rootfs_template):
    return lib.Bundle(tmp_path / "bundle", rootfs_template)


@pytest.fixture
def leaks(runtime):
    return lib.Leaks(runtime)
