"""mounts add and mounts remove: of a container that runs."""

import json
import os

import pytest

from tests.runtime.test_checkpoint import (  # fixtures, too
    dump, images, inside, restore, start)  # pylint: disable=unused-import


@pytest.fixture
def running(runtime, bundle):
    return start(runtime, bundle, "sleep 1000")


@pytest.fixture
def listed(tmp_path):
    """A file of mounts."""
    def write(*mounts):
        path = tmp_path / "mounts.json"
        path.write_text(json.dumps(mounts))
        return path
    return write


def bind(source, destination, *options):
    return {"source": str(source), "destination": destination, "type": "bind",
            "options": ["bind", *options]}


def mount_lines(runtime, id):
    return sorted(inside(runtime, id, "cut -d' ' -f5- /proc/self/mountinfo").splitlines())


def test_added_and_removed(runtime, bundle, running, listed, leaks, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("content")
    before = mount_lines(runtime, running)
    file = listed(bind(data, "/new/place", "ro"), bind(data / "file", "/tmp/single"),
                  {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
                   "options": ["ro", "size=1m"]})
    runtime.call("mounts", "add", running, file)
    assert inside(runtime, running, "cat /new/place/file /tmp/single") == "contentcontent"
    assert "Read-only" in inside(runtime, running, "(echo >/new/place/x) 2>&1; true")
    assert "Read-only" in inside(runtime, running, "(echo >/scratch/x) 2>&1; true")
    runtime.call("mounts", "remove", running, listed(
        *({"destination": d} for d in ("/new/place", "/tmp/single", "/scratch"))))
    assert mount_lines(runtime, running) == before
    leaks.check()


def test_what_is_mounted_inside_stays_inside(runtime, running, listed, tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    runtime.call("mounts", "add", running, listed(bind(tmp_path / "data", "/data")))
    runtime.call("mounts", "add", running, listed(
        {"destination": "/data/sub", "type": "tmpfs", "source": "tmpfs"}))
    inside(runtime, running, "echo >/data/sub/inside")
    assert os.listdir(tmp_path / "data" / "sub") == []


def test_links_of_the_container_lead_nowhere_else(runtime, bundle, running, listed, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "victim").mkdir()
    (bundle.rootfs / "trap").symlink_to(tmp_path / "victim")
    runtime.call("mounts", "add", running, listed(bind(tmp_path / "data", "/trap/in")))
    assert os.listdir(tmp_path / "victim") == []
    assert (bundle.rootfs / str(tmp_path / "victim").lstrip("/") / "in").is_dir()


def test_all_or_none(runtime, running, listed, tmp_path):
    before = mount_lines(runtime, running)
    error = runtime.fails("mounts", "add", running, listed(
        bind(tmp_path, "/one"), bind(tmp_path, "/proc/sys")))
    assert "/proc/sys" in error
    assert mount_lines(runtime, running) == before
    error = runtime.fails("mounts", "add", running, listed(bind(tmp_path / "none", "/one")))
    assert f"'{tmp_path}/none'" in error and "mount at '/one'" in error


@pytest.mark.parametrize("mount, said", [
    ({"destination": "/x", "type": "proc", "source": "proc"}, "a proc cannot be added"),
    ({"destination": "/x", "type": "cgroup", "source": "cgroup"}, "a cgroup cannot be added"),
    ({"destination": "/tmp", "type": "none", "options": ["remount", "ro"]}, "a remount cannot"),
    ({"destination": "/x"}, "neither a type nor 'bind'"),
    ({"source": "/x"}, "destination"),
])
def test_what_cannot_be_added(runtime, running, listed, mount, said):
    assert said in runtime.fails("mounts", "add", running, listed(mount))


def test_wrong_use(runtime, running, listed, tmp_path):
    assert "nothing is mounted at '/tmp'" in runtime.fails(
        "mounts", "remove", running, listed({"destination": "/tmp"}))
    assert "'/none'" in runtime.fails("mounts", "remove", running, listed({"destination": "/none"}))
    assert "mounts move: unknown" in runtime.fails("mounts", "move", running, listed())
    (tmp_path / "mounts.json").write_text('{"destination": "/x"}')
    assert "is to be an array of mounts" in runtime.fails("mounts", "add", running,
                                                          tmp_path / "mounts.json")
    runtime.call("kill", running, "KILL")
    runtime.wait_status(running, "stopped")
    assert f"container {running} is stopped" in runtime.fails("mounts", "add", running, listed())


def test_a_checkpoint_knows_what_was_added(runtime, bundle, running, listed, images, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    runtime.call("mounts", "add", running, listed(bind(tmp_path / "data", "/data")))
    dump(runtime, images, running)
    bundle.config["mounts"].append(bind(tmp_path / "data", "/data"))
    restore(runtime, bundle, images, running)
    assert inside(runtime, running, "cat /data/file") == "content"
