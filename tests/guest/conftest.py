"""Every case runs twice: as a container, and as one in a virtual machine. Those that are about
files run in a third way, too: in a machine that makes its root of layers."""
import subprocess

import pytest

from tests.lib import runtime as lib
from tests.lib import vm

# What lies in the root, what is made there and what is mounted over it.
ABOUT_FILES = {
    "test_process_is_what_the_spec_says", "test_created_started_killed_deleted",
    "test_program_that_is_not_there", "test_root_file_system_is_the_bundles",
    "test_read_only_root", "test_read_only_root_gets_mount_points",
    "test_volumes_are_live_both_ways", "test_exec",
    "test_hooks_run_outside_but_for_the_last", "test_run", "test_inspect_says_which", "test_life",
    "test_restart_keeps_what_was_written", "test_read_only",
    "test_files_go_to_what_the_instance_sees", "test_archives_go_in_whole_or_are_told",
}


def way_of(item):
    return getattr(item, "callspec", None) and item.callspec.params.get("kind")


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items
                if way_of(item) != "erofs" or item.function.__name__ in ABOUT_FILES]


class VmRuntime(lib.Runtime):
    """The same program with --vm, and Debian's kernel for the guest."""

    def command(self, *args):
        return [self.program, "--vm", "--root", str(self.root), *map(str, args)]


class LayeredBundle(lib.Bundle):
    """Its root is an overlay of a directory and nothing."""

    def __init__(self, path, lower):
        layer = path.parent / "layer"
        for directory in (path / "rootfs", layer / "upper", layer / "work"):
            directory.mkdir(parents=True)
        self.upper = layer / "upper"
        options = f"lowerdir={lower},upperdir={self.upper},workdir={layer / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, path / "rootfs"],
                       check=True)
        super().__init__(path)


@pytest.fixture(scope="session")
def rootfs_template(tmp_path_factory):
    return lib.make_rootfs(tmp_path_factory.mktemp("template") / "rootfs")


@pytest.fixture(params=["container", "vm", "erofs"])
def kind(request):
    return "container" if request.param == "container" else "vm"


@pytest.fixture
def layered(request):
    return way_of(request.node) == "erofs"


@pytest.fixture
def runtime(tmp_path, kind, layered, monkeypatch):
    monkeypatch.setenv("ISLE_VM_KERNEL", str(vm.debian_kernel()))
    monkeypatch.setenv("ISLE_VM_ROOTFS", "erofs" if layered else "")
    make = VmRuntime if kind == "vm" else lib.Runtime
    instance = make(tmp_path / "state", lib.find_program())
    leaks = lib.Leaks(instance)
    yield instance
    instance.cleanup()
    leaks.check()


@pytest.fixture
def bundle(tmp_path, rootfs_template, layered):
    if not layered:
        yield lib.Bundle(tmp_path / "bundle", rootfs_template)
        return
    made = LayeredBundle(tmp_path / "bundle", rootfs_template)
    yield made
    subprocess.run(["umount", made.rootfs], check=True)


@pytest.fixture
def running(runtime, bundle):
    bundle.config["root"]["readonly"] = False
    return runtime.start_detached(bundle.set_args("sleep", "1000"))
