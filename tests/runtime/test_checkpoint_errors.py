"""Checkpoint and restore that fail, are refused or are killed: the container goes on, or nothing
is left."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lib.runtime import is_alive, wait_until
from tests.runtime.stops import kill_at
from tests.runtime.test_checkpoint import (  # fixtures, too
    count, counter, counts_on, dump, images, restore, start)  # pylint: disable=unused-import
from tests.runtime.test_crash import STRIDE, members_of

# What isle-runtime speaks to, as far as each test needs it; FREEZER is a directory.
FAKE = """#!/usr/bin/python3
import os, socket
peer = socket.socket(fileno=3)
def version(major, minor):
    peer.recv(65536)
    peer.send(bytes([0x08, 10, 0x10, 1, 0x52, 4, 0x08, major, 0x10, minor]))
"""


@pytest.fixture
def fake(tmp_path):
    """A program in criu's place that does what the given lines say."""
    def make(*lines):
        path = tmp_path / "fake-criu"
        path.write_text(FAKE + "\n".join(lines) + "\n")
        path.chmod(0o755)
        return path
    return make


def refused(runtime, bundle, id, *command):
    """The call fails and leaves the container as it was; gives the error."""
    pid = runtime.pid(id)
    error = runtime.fails(*command, id)
    assert runtime.status(id) == "running" and runtime.pid(id) == pid
    counts_on(bundle)
    return error


def nothing_left(runtime, id, leaks):
    assert "does not exist" in runtime.fails("state", id)
    assert members_of(id) == []
    leaks.check()


def test_no_criu(runtime, bundle, counter, tmp_path):
    flags = ("checkpoint", "--image-path", tmp_path / "images")
    error = refused(runtime, bundle, counter, "--criu", tmp_path / "none", *flags)
    assert f"{tmp_path}/none" in error and "--criu" in error
    error = runtime.fails(*flags, counter, env={"PATH": "/nowhere"})
    assert "'criu' is not in PATH" in error and "install it, or name it with --criu" in error


def test_too_old_a_criu(runtime, bundle, counter, tmp_path, fake):
    error = refused(runtime, bundle, counter, "--criu", fake("version(3, 15)"), "checkpoint",
                    "--image-path", tmp_path / "images")
    assert "is version 3.15, but" in error and "3.16 or newer" in error and "--criu" in error


@pytest.mark.parametrize("lines, said", [
    (["version(4, 0)"], "without an answer"),
    (["peer.recv(65536)", "peer.send(b'\\xff')"], "damaged at byte"),
    (["version(4, 0)", "peer.recv(65536)", "peer.send(b'\\x08\\x02\\x10\\x01')"], "of kind 2"),
    (["version(4, 0)", "peer.recv(65536)", "peer.send(bytes(70000))"], "longer than 65536"),
    (["version(4, 0)", "peer.recv(65536)",
      "peer.send(b'\\x08\\x01\\x10\\x00\\x38\\x05\\x4a\\x03why')"], "failed to dump: why"),
])
def test_a_criu_that_lies(runtime, bundle, counter, tmp_path, fake, lines, said):
    error = refused(runtime, bundle, counter, "--criu", fake(*lines), "checkpoint",
                    "--image-path", tmp_path / "images")
    assert said in error or (said == "without an answer" and "does not say why" in error)


def test_a_criu_that_dies_with_the_container_frozen(runtime, bundle, counter, tmp_path, fake):
    freezer = "/sys/fs/cgroup/freezer"
    group = next(path for path, names, _ in os.walk(freezer) if path.endswith(counter))
    criu = fake("version(4, 0)", "peer.recv(65536)",
                f"open('{group}/freezer.state', 'w').write('FROZEN')", "os.kill(os.getpid(), 9)")
    error = refused(runtime, bundle, counter, "--criu", criu, "checkpoint", "--image-path",
                    tmp_path / "images")
    assert "failed to dump: it does not say why; see" in error


@pytest.mark.parametrize("flags, said", [
    (["--manage-cgroups-mode", "odd"], "invalid --manage-cgroups-mode 'odd': soft, full"),
    (["--status-fd", "x"], "--status-fd 'x' is no descriptor to write to"),
    (["--status-fd", "99"], "--status-fd '99'"),
    (["--parent-path", "/abs"], "must be relative to --image-path"),
    (["--parent-path", "../none"], "--parent-path '../none'"),
    (["--lazy-pages"], "--lazy-pages is not supported"),
    (["--page-server", "127.0.0.1:1"], "--page-server is not supported"),
    (["--odd"], "flag provided but not defined: --odd"),
])
def test_bad_flags_are_named(runtime, bundle, counter, tmp_path, flags, said):
    assert said in refused(runtime, bundle, counter, "checkpoint", "--image-path",
                           tmp_path / "images", *flags)


def test_what_does_not_run_is_not_dumped(runtime, bundle, images):
    bundle.set_args("true")
    id = runtime.create(bundle)
    assert "it is created" in runtime.fails("checkpoint", "--image-path", images, id)
    runtime.call("start", id)
    runtime.wait_status(id, "stopped")
    assert "it is stopped" in runtime.fails("checkpoint", "--image-path", images, id)
    assert "does not exist" in runtime.fails("checkpoint", "--image-path", images, "nobody")


def test_an_idmapped_mount_is_refused(runtime, bundle, images, tmp_path):
    bundle.mount("/data", tmp_path, "bind", ["bind"])
    bundle.config["mounts"][-1]["uidMappings"] = [{"containerID": 0, "hostID": 7, "size": 10}]
    bundle.config["mounts"][-1]["gidMappings"] = [{"containerID": 0, "hostID": 7, "size": 10}]
    id = start(runtime, bundle)
    assert "'/data' is idmapped" in refused(runtime, bundle, id, "checkpoint", "--image-path",
                                            images)


def test_something_criu_cannot_dump(runtime, bundle, images):
    """A mount that no config.json knows: its name and the log's are told."""
    id = start(runtime, bundle)
    pid = runtime.pid(id)
    (bundle.rootfs / "srv").mkdir()
    subprocess.run(["nsenter", "-t", str(pid), "-m", "/bin/busybox", "mount", "-t", "ramfs",
                    "ramfs", "/srv"], check=True)
    error = refused(runtime, bundle, id, "checkpoint", "--image-path", images)
    assert "/srv" in error and f"see {images}/dump.log" in error


def test_images_that_are_none(runtime, bundle, images, leaks, tmp_path):
    bundle.write()
    id = runtime.new_id()
    flags = ("--detach", "--bundle", bundle.path, id)
    assert f"open directory '{images}'" in runtime.fails("restore", "--image-path", images, *flags)
    images.mkdir()
    assert f"'{images}' holds no checkpoint" in runtime.fails("restore", "--image-path", images,
                                                              *flags)
    (images / "descriptors.json").write_text("[")
    assert "descriptors.json" in runtime.fails("restore", "--image-path", images, *flags)
    (images / "descriptors.json").write_text("[7, null, {}, []]")
    assert "failed to restore" in runtime.fails("restore", "--image-path", images, *flags)
    nothing_left(runtime, id, leaks)


@pytest.mark.parametrize("pattern", ["core-1.img", "pagemap-1.img", "mountpoints-*.img",
                                     "cgroup.img"])
def test_damaged_images(runtime, bundle, counter, images, pattern):
    dump(runtime, images, counter)
    for path in images.glob(pattern):
        path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
    error = runtime.fails("restore", "--image-path", images, "--detach", "--bundle", bundle.path,
                          counter)
    assert "failed to restore" in error and f"{images}/restore.log" in error
    assert "does not exist" in runtime.fails("state", counter)
    assert members_of(counter) == []


def test_a_name_that_is_taken(runtime, bundle, counter, images):
    dump(runtime, images, counter, "--leave-running")
    error = refused(runtime, bundle, counter, "restore", "--image-path", images, "--detach",
                    "--bundle", bundle.path)
    assert "already exists" in error


@pytest.mark.parametrize("name", ["createRuntime", "poststart"])
def test_a_failing_hook_undoes_the_restore(runtime, bundle, images, name):
    id = start(runtime, bundle)
    dump(runtime, images, id)
    bundle.config["hooks"] = {name: [{"path": "/bin/false"}]}
    bundle.write()
    error = runtime.fails("restore", "--image-path", images, "--detach", "--bundle", bundle.path,
                          id)
    assert f"error running hook {name} #0" in error
    assert "does not exist" in runtime.fails("state", id)
    assert members_of(id) == []


def test_a_missing_bind_source(runtime, bundle, images, tmp_path):
    (tmp_path / "data").mkdir()
    bundle.mount("/data", tmp_path / "data", "bind", ["bind"])
    id = start(runtime, bundle)
    dump(runtime, images, id)
    (tmp_path / "data").rmdir()
    error = runtime.fails("restore", "--image-path", images, "--detach", "--bundle", bundle.path,
                          id)
    assert f"source '{tmp_path}/data' of the mount at '/data': No such file" in error
    assert members_of(id) == []


def test_criu_killed_in_a_dump(runtime, bundle, images, tmp_path):
    """Where it has stopped all processes, by a script that the user's own options name."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != network-lock ] || kill -9 $PPID\n")
    script.chmod(0o755)
    (tmp_path / "criu.conf").write_text(f"action-script {script}\n")
    bundle.config["annotations"] = {"org.criu.config": str(tmp_path / "criu.conf")}
    id = start(runtime, bundle)
    assert "failed to dump" in refused(runtime, bundle, id, "checkpoint", "--image-path", images)
    script.write_text("#!/bin/sh\n")
    dump(runtime, images, id)
    restore(runtime, bundle, images, id)
    counts_on(bundle)


def test_criu_killed_in_a_restore(runtime, bundle, counter, images):
    dump(runtime, images, counter)
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", """
        for pid in $(cat /proc/$PPID/task/$PPID/children); do
            ! grep -q sw[r]k /proc/$pid/cmdline || kill -9 $pid
        done"""]}]}
    bundle.write()
    error = runtime.fails("restore", "--image-path", images, "--detach", "--bundle", bundle.path,
                          counter)
    assert "criu" in error
    assert "does not exist" in runtime.fails("state", counter)
    assert members_of(counter) == []


def at_work(images):
    """Numbers of the processes that are criu, or are about to be: a child that has not
    executed it yet has the command line of its parent, and a wrapper that of its start."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            about_to = b"swrk" in words or os.fsencode(images) in words
            if is_alive(entry.name) and (about_to or b"/criu\n" in (entry / "maps").read_bytes()):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return found


def test_killed_anywhere_in_restore(runtime, bundle, counter, images, tmp_path):
    dump(runtime, images, counter)
    command = runtime.command("restore", "--image-path", images, "--detach", "--bundle",
                              bundle.path, counter)
    for stops in range(1, 4000, STRIDE):
        reached = kill_at([str(word) for word in command], stops)
        runtime.call("delete", "--force", counter)
        wait_until(lambda: not at_work(images), what="criu to be done")
        wait_until(lambda: members_of(counter) == [], what="the group to be gone")
        assert "does not exist" in runtime.fails("state", counter)
        if not reached:
            break
    else:
        pytest.fail("the program makes more system calls than expected")
    assert str(tmp_path) not in open("/proc/self/mountinfo", encoding="utf-8").read()
    restore(runtime, bundle, images, counter)
    counts_on(bundle)


def test_killed_anywhere_in_checkpoint(runtime, bundle, tmp_path):
    """The container goes on, or it ends with whole images: CRIU is let finish.

    Killed in its last calls, the program has removed the container already, or in part.
    """
    def status():
        done = runtime.call("state", id, check=False)
        return json.loads(done.stdout)["status"] if done.returncode == 0 else done.stderr

    went_on = 0
    id = start(runtime, bundle)
    for stops in range(1, 4000, STRIDE):
        images = tmp_path / f"images{stops}"
        command = runtime.command("checkpoint", "--image-path", images, id)
        reached = kill_at([str(word) for word in command], stops)
        if not reached:
            break
        wait_until(lambda: not at_work(images), what="criu to be done")
        if status() == "running":
            counts_on(bundle)
            went_on += 1
            continue
        runtime.call("delete", "--force", id)  # also of what an unfinished removal has left
        assert "does not exist" in status()
        restore(runtime, bundle, images, id)
        counts_on(bundle)
        shutil.rmtree(images)
    else:
        pytest.fail("the program makes more system calls than expected")
    assert went_on > 0
    assert "does not exist" in runtime.fails("state", id)
