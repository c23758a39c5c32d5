"""A machine whose program sleeps leaves the host's processors alone, and most of its memory."""

import pathlib
import time

import pytest

from tests.lib.daemon import until

WINDOW_S = 4
WAKEUPS = 8  # 7 each second, of the kernel as it is
MEMORY_KIB = 88 << 10  # 93 MiB, when what the guest's start leaves free stays with it


def machine(first):
    """The process that runs the machine, of those of the container's first."""
    below = [first]
    for pid in below:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        below += map(int, children)
    return max(below, key=lambda pid: len(list(pathlib.Path(f"/proc/{pid}/task").iterdir())))


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

    def memory_kib():
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(status.split("RssShmem:")[1].split()[0])

    until(lambda: memory_kib() < MEMORY_KIB, 60, "free memory given back")
    assert runtime.call("exec", running, "true").returncode == 0
