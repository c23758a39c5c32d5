"""A machine whose program sleeps leaves the host's processors alone, and most of its memory."""

import hashlib
import os
import pathlib
import shutil
import time

import pytest

from tests.lib import vm
from tests.lib.daemon import until

WINDOW_S = 4
WAKEUPS = 8  # 7 each second, of the kernel as it is
FREED_KIB = 88 << 10  # 93 MiB, when what the guest's start leaves free stays with it
OWN_KIB = 40 << 10  # 84 MiB, when nothing is shared
CACHE = pathlib.Path("/var/cache/isle")
WEEK_S = 7 * 24 * 3600


def machine(first):
    """The process that runs the machine, of those of the container's first."""
    below = [first]
    for pid in below:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        below += map(int, children)
    return max(below, key=lambda pid: len(list(pathlib.Path(f"/proc/{pid}/task").iterdir())))


def held_kib(pid, kind):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0])


def turns(pid):
    """How often its threads have been put on a processor."""
    return sum(int(path.read_text().split()[2])
               for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_a_guest_without_work_hardly_wakes(runtime, running):
    pid = machine(runtime.pid(running))

    def woken():
        before = turns(pid)
        time.sleep(WINDOW_S)  # the time in which is counted
        return turns(pid) - before

    until(lambda: woken() < WAKEUPS, 90, "few wakeups")


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_what_a_guest_has_free_goes_back(runtime, running):
    pid = machine(runtime.pid(running))

    until(lambda: held_kib(pid, "RssShmem") < FREED_KIB, 60, "free memory given back")


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_what_machines_have_in_common_is_held_once(runtime, bundle):
    bundle.set_args("sleep", "1000")
    pids = [machine(runtime.pid(runtime.start_detached(bundle))) for _ in range(2)]
    templates = {str(path.stat().st_ino) for path in CACHE.glob("*.template")}
    for pid in pids:
        until(lambda pid=pid: held_kib(pid, "RssShmem") < OWN_KIB, 60, "memory shared")
        maps = [line.split() for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()]
        rights = [fields[1] for fields in maps if fields[4] in templates]
        assert len(rights) > 1 and set(rights) == {"rw-p"}


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_a_guest_works_on_shared_memory(runtime, bundle, tmp_path):
    """The program stays quiet until its memory is shared, then fills some and adds it up."""
    (tmp_path / "bell").mkdir()
    bundle.config["root"]["readonly"] = False
    bundle.mount("/bell", str(tmp_path / "bell"), "bind", ["bind"])
    bundle.sh("until [ -e /bell/rung ]; do sleep 4; done; head -c 20000000 /dev/zero | tr '\\0' x"
              " | md5sum | cut -d' ' -f1 > /bell/sum; sleep 1000")
    pid = machine(runtime.pid(runtime.start_detached(bundle)))
    until(lambda: held_kib(pid, "RssShmem") < OWN_KIB, 60, "memory shared")
    (tmp_path / "bell" / "rung").touch()
    told = tmp_path / "bell" / "sum"
    until(lambda: told.exists() and told.read_text(), 30, "the program's answer")
    assert told.read_text().strip() == hashlib.md5(b"x" * 20000000).hexdigest()


@pytest.fixture
def own_kernel(tmp_path, monkeypatch):
    """A kernel at a path of its own, which nothing has been made for yet."""
    debian = vm.debian_kernel()
    (tmp_path / "own" / "boot").mkdir(parents=True)
    (tmp_path / "own" / "lib").symlink_to(debian.parents[1] / "lib")
    kernel = tmp_path / "own" / "boot" / debian.name
    shutil.copy(debian, kernel)
    before = set(CACHE.iterdir())
    monkeypatch.setenv("ISLE_VM_KERNEL", str(kernel))
    yield kernel
    for path in set(CACHE.iterdir()) - before:
        path.unlink()


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_a_kernel_gets_a_template_once(runtime, bundle, own_kernel):
    old, recent = CACHE / "old.template", CACHE / "recent.template"
    before = set(CACHE.glob("*.template"))
    old.touch()
    recent.touch()
    os.utime(old, (time.time() - WEEK_S - 60, time.time()))
    runtime.run(bundle.set_args("true"))
    made = set(CACHE.glob("*.template")) - before - {recent}
    assert not old.exists() and recent.exists()
    [template] = made
    # The memory of a whole kernel, and no more than that.
    assert template.stat().st_size == 1 << 30
    assert 40 << 20 < template.stat().st_blocks * 512 < 200 << 20
    number = template.stat().st_ino
    runtime.run(bundle.set_args("true"))
    assert template.stat().st_ino == number


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_a_kernel_without_a_template_does_without(runtime, bundle, own_kernel):
    runtime.run(bundle.set_args("true"))
    [template] = [path for path in CACHE.glob("*.template")
                  if path.stat().st_mtime >= own_kernel.stat().st_ctime]
    template.unlink()
    template.touch()
    assert runtime.run(bundle.set_args("echo", "up")).stdout == "up\n"
    assert template.stat().st_size == 0
