"""Every case runs twice: as a container, and as one in a virtual machine."""
import pytest

from tests.lib import runtime as lib
from tests.lib import vm


class VmRuntime(lib.Runtime):
    """The same program with --vm, and Debian's kernel for the guest."""

    def command(self, *args):
        return [self.program, "--vm", "--root", str(self.root), *map(str, args)]


@pytest.fixture(scope="session")
def rootfs_template(tmp_path_factory):
    return lib.make_rootfs(tmp_path_factory.mktemp("template") / "rootfs")


@pytest.fixture(params=["container", "vm"])
def kind(request):
    return request.param


@pytest.fixture
def runtime(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("ISLE_VM_KERNEL", str(vm.debian_kernel()))
    make = VmRuntime if kind == "vm" else lib.Runtime
    instance = make(tmp_path / "state", lib.find_program())
    leaks = lib.Leaks(instance)
    yield instance
    instance.cleanup()
    leaks.check()


@pytest.fixture
def bundle(tmp_path, rootfs_template):
    return lib.Bundle(tmp_path / "bundle", rootfs_template)


@pytest.fixture
def running(runtime, bundle):
    bundle.config["root"]["readonly"] = False
    return runtime.start_detached(bundle.set_args("sleep", "1000"))
