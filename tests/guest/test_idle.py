"""A machine whose program sleeps leaves the host's processors alone."""

import pathlib
import time

import pytest

from tests.lib.daemon import until

WINDOW_S = 4
WAKEUPS = 8  # 7 each second, of the kernel as it is


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
