"""A machine that makes its root of layers: an image below, what it writes above."""
import json
import os
import signal
import stat
import subprocess
import tarfile

import pytest

from tests.guest.conftest import LayeredBundle
from tests.lib import runtime as lib
from tests.lib import vm
from tests.lib.daemon import Daemon, program, until


@pytest.fixture
def kind():
    return "vm"


@pytest.fixture
def layered():
    return True


@pytest.fixture
def own_lower(tmp_path, rootfs_template):
    """Layers of which no image was made before."""
    lower = tmp_path / "lower"
    subprocess.run(["cp", "-a", rootfs_template, lower], check=True)
    (lower / "old").mkdir()
    (lower / "old" / "file").write_text("below")
    (lower / "root" / "hidden").write_text("below")
    top = tmp_path / "top"
    (top / "root").mkdir(parents=True)
    (top / "top").write_text("above")
    os.setxattr(top / "root", "trusted.overlay.opaque", b"y")
    os.mknod(top / "tmp", stat.S_IFCHR)  # a whiteout
    return f"{top}:{lower}"


@pytest.fixture
def cache(tmp_path):
    """Of images, and nobody else's."""
    directory = tmp_path / "images"
    directory.mkdir()
    return directory


@pytest.fixture
def make_bundle(own_lower, cache):
    made = []

    def make(path):
        made.append(LayeredBundle(path, own_lower))
        made[-1].config["root"]["readonly"] = False
        made[-1].config["annotations"] = {"isle.vm.rootfs-image": str(cache / "root.erofs")}
        return made[-1]
    yield make
    for bundle in made:
        subprocess.run(["umount", bundle.rootfs], check=True)


@pytest.fixture
def bundle(tmp_path, make_bundle):
    return make_bundle(tmp_path / "bundle")


def marks(directory):
    return {name for name in os.listxattr(directory) if name.endswith(".overlay.opaque")}


BOTH = {"trusted.overlay.opaque", "user.overlay.opaque"}


def test_the_image_is_of_all_layers_and_nothing_else(runtime, bundle):
    names = "bin dev etc old proc root run sys top var"
    script = "echo *; cat /top /old/file; ls -A /root; mount -t proc proc /old && ls /old | wc -l"
    out = runtime.run(bundle.sh(script), check=False).stdout
    assert out == f"{names}\nabovebelow"


def test_every_overlay_knows_what_was_taken_away(runtime, bundle):
    script = ("rm -r /old; mkdir /old; echo above > /old/other; rm /etc/group; "
              "mv /etc/passwd /etc/moved; ls /old /etc")
    assert runtime.output(bundle.sh(script)) == "/etc:\nmoved\n\n/old:\nother\n"
    assert marks(bundle.upper / "old") == BOTH
    again = ["umount", bundle.rootfs], [
        "mount", "-t", "overlay", "overlay", "-o", f"lowerdir={bundle.upper}:"
        f"{bundle.path.parent}/top:{bundle.path.parent}/lower", bundle.rootfs]
    for command in again:
        subprocess.run(command, check=True)
    assert sorted(os.listdir(bundle.rootfs / "old")) == ["other"]
    assert sorted(os.listdir(bundle.rootfs / "etc")) == ["moved"]


def test_a_machine_knows_what_the_host_took_away(runtime, bundle):
    subprocess.run(["rm", "-r", bundle.rootfs / "old"], check=True)
    (bundle.rootfs / "old").mkdir()
    assert runtime.output(bundle.set_args("ls", "-A", "/old")) == ""
    assert marks(bundle.upper / "old") == BOTH


def test_an_image_is_made_once_by_however_many(runtime, bundle, make_bundle, tmp_path, cache):
    others = []
    for i in "ab":
        (tmp_path / i).mkdir()
        others.append(make_bundle(tmp_path / i / "bundle"))
    running = [runtime.popen("run", "--bundle", b.set_args("cat", "/old/file").write().path,
                             runtime.new_id(), stdout=subprocess.PIPE, text=True)
               for b in [bundle, *others]]
    assert [process.communicate(timeout=60)[0] for process in running] == ["below"] * 3
    made, = cache.iterdir()
    inode = made.stat().st_ino
    assert runtime.output(bundle) == "below"
    assert made.stat().st_ino == inode
    # What lost its end is made anew.
    os.truncate(made, 4096)
    assert runtime.output(bundle) == "below"
    assert made.stat().st_size > 4096 and list(cache.iterdir()) == [made]


def test_a_damaged_image_is_told(runtime, bundle, cache):
    runtime.run(bundle.set_args("true"))
    made, = cache.iterdir()
    with open(made, "r+b") as image:
        image.seek(1024 + 4)  # the superblock's checksum
        image.write(b"\0\0\0\0")
    bundle.write()
    error = runtime.fails("run", "--bundle", bundle.path, runtime.new_id())
    assert "isle-agent: " in error and "mount the image of the layers: " in error
    assert f"remove '{made}', and it is made anew" in error


def maker(path, script):
    """A program in the place of mkfs.erofs."""
    path.mkdir()
    (path / "mkfs.erofs").write_text(f"#!/bin/sh\n{script}\n")
    (path / "mkfs.erofs").chmod(0o755)
    return f"{path}:{os.environ['PATH']}"


def test_a_killed_maker_leaves_nothing(runtime, bundle, tmp_path, cache):
    os.mkfifo(tmp_path / "begun")
    environment = {**os.environ, "PATH": maker(
        tmp_path / "bin", f"echo half > $2; echo > {tmp_path}/begun; exec sleep 1000")}
    bundle.set_args("true").write()
    process = subprocess.Popen(runtime.command("run", "--bundle", bundle.path, "never"),
                               env=environment, start_new_session=True)
    (tmp_path / "begun").read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    assert not list(cache.iterdir())
    runtime.call("delete", "--force", "never")
    assert runtime.run(bundle).returncode == 0  # the lock is free


@pytest.mark.parametrize("script, story", [
    ("echo 'no space' >&2; exit 1", "mkfs.erofs ended with status 1: no space"),
    ("echo rubbish > $2", "mkfs.erofs made something else than an image")])
def test_what_a_maker_says_is_told(runtime, bundle, tmp_path, cache, monkeypatch, script, story):
    bundle.set_args("true").write()
    with monkeypatch.context() as changed:
        changed.setenv("PATH", maker(tmp_path / "bin", script))
        assert story in runtime.fails("run", "--bundle", bundle.path, runtime.new_id())
    assert not list(cache.iterdir())


def test_without_the_program_that_makes_images(runtime, bundle, tmp_path, monkeypatch):
    bundle.set_args("true").write()
    with monkeypatch.context() as changed:
        changed.setenv("PATH", str(tmp_path))
        error = runtime.fails("run", "--bundle", bundle.path, runtime.new_id())
    assert "mkfs.erofs" in error and "install erofs-utils, or use isle.vm.rootfs=fs" in error


def test_what_is_no_overlay_of_directories(runtime, tmp_path, rootfs_template):
    plain = lib.Bundle(tmp_path / "plain", rootfs_template).set_args("true").write()
    error = runtime.fails("run", "--bundle", plain.path, runtime.new_id())
    assert "nothing is mounted there; with isle.vm.rootfs=erofs the root is an overlay" in error
    plain.config["annotations"] = {"isle.vm.rootfs": "ext4"}
    error = runtime.fails("run", "--bundle", plain.write().path, runtime.new_id())
    assert "annotation isle.vm.rootfs: 'ext4' is not known; there are fs and erofs" in error
    plain.config["annotations"] = {"isle.vm.rootfs": "fs"}
    assert runtime.run(plain).returncode == 0


def test_state_tells_the_choice(runtime, bundle):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    assert json.loads(runtime.call("state", id).stdout)["annotations"]["isle.vm.rootfs"] == "erofs"


# ---- isle ----

@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, env={"ISLE_VM_KERNEL": str(vm.debian_kernel())}) as d:
        d.load_busybox()
        yield d
        for c in d.get("/containers/json?all=1").json:
            d.delete(f"/containers/{c['Id']}?force=1&v=1")


def isle(daemon, *args, code=0):
    done = subprocess.run([program("isle"), "-H", daemon.host, *args], capture_output=True,
                          text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code, (args, done)
    return done.stdout if code == 0 else done.stderr


def test_files_go_in_and_out(daemon, tmp_path):
    (tmp_path / "in").write_text("copied")
    isle(daemon, "run", "-d", "--name", "files", "--vm", "--vm-rootfs", "erofs", "-v", "kept:/kept",
         "busybox", "sh", "-c", "cp /etc/passwd /x; sed -i s/:1000:/:1234:/ /x; "
         "rm -r /home /etc; mkdir -p /home/new /etc; "
         "mv /x /etc/passwd; echo out > /home/new/f; echo ready; sleep 1000")
    until(lambda: isle(daemon, "logs", "files") == "ready\n", 20, lambda: "its files")
    isle(daemon, "cp", "files:/home/new/f", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "out\n"
    assert "A /home/new/f" in isle(daemon, "diff", "files")
    assert isle(daemon, "exec", "-u", "app", "files", "id", "-u") == "1234\n"
    with pytest.raises(AssertionError, match="unable to find group extra"):  # it went with /etc
        isle(daemon, "exec", "-u", "app:extra", "files", "true")
    isle(daemon, "cp", str(tmp_path / "in"), "files:/kept/in")
    assert isle(daemon, "exec", "files", "cat", "/kept/in") == "copied"
    isle(daemon, "cp", str(tmp_path / "in"), "files:/home/new")
    assert isle(daemon, "exec", "files", "cat", "/home/new/in") == "copied"
    isle(daemon, "pause", "files")
    assert "a paused virtual machine cannot take files; resume it" in isle(
        daemon, "cp", str(tmp_path / "in"), "files:/in", code=1)
    isle(daemon, "unpause", "files")
    isle(daemon, "stop", "-t", "0", "files")
    isle(daemon, "cp", str(tmp_path / "in"), "files:/root/in")
    isle(daemon, "export", "-o", str(tmp_path / "tar"), "files")
    names = subprocess.run(["tar", "-tf", tmp_path / "tar"], capture_output=True, text=True,
                           check=True).stdout.split()
    assert {"./home/new/f", "./root/in"} <= set(names)
    isle(daemon, "start", "files")
    assert isle(daemon, "exec", "files", "cat", "/root/in") == "copied"


def test_what_comes_in_ends_with_the_machine(daemon):
    isle(daemon, "run", "-d", "--name", "gone", "--vm", "--vm-rootfs", "erofs", "busybox", "sleep",
         "1000")
    info = tarfile.TarInfo("big")
    info.size = 4 << 20
    process = subprocess.Popen([program("isle"), "-H", daemon.host, "cp", "-", "gone:/root"],
                               stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(info.tobuf() + bytes(info.size // 2))
    process.stdin.flush()
    until(lambda: "/root/big" in isle(daemon, "diff", "gone"), 20, lambda: "its first half")
    isle(daemon, "kill", "gone")
    assert b"the virtual machine is gone" in process.communicate(bytes(info.size // 2), 30)[1]
    assert process.returncode == 1


def test_a_layer_that_became_a_link_is_not_followed(daemon, tmp_path):
    id = isle(daemon, "create", "--name", "bad", "--vm", "--vm-rootfs", "erofs", "busybox").strip()
    snapshot = daemon.root / "snapshots" / id
    for name in ("upper", "work"):
        (snapshot / name).rename(snapshot / "away")
        (snapshot / name).symlink_to(tmp_path)
        for command in (["start", "bad"], ["cp", "bad:/etc/passwd", "-"]):
            assert "is not a directory any more" in isle(daemon, *command, code=1)
        (snapshot / name).unlink()
        (snapshot / "away").rename(snapshot / name)
    assert isle(daemon, "start", "bad") == "bad\n"


def test_an_image_goes_with_its_layers(daemon):
    layers = daemon.root / "layers"
    isle(daemon, "run", "-d", "--name", "held", "--vm", "--vm-rootfs", "erofs", "busybox", "sleep",
         "1000")
    image, = layers.glob("*/root.erofs")
    # The removal is told before the instance's layer has gone.
    isle(daemon, "rm", "-f", "held")
    isle(daemon, "rmi", "busybox")
    until(lambda: not image.exists() and not os.listdir(layers), 10, lambda: "its layers to go")


def test_what_is_no_choice(daemon):
    error = isle(daemon, "run", "--rm", "--vm", "--vm-rootfs", "ext4", "busybox", code=125)
    assert "(--vm-rootfs) 'ext4': there are fs and erofs" in error
    error = isle(daemon, "run", "--rm", "--vm-rootfs", "erofs", "busybox", code=125)
    assert "(--vm-rootfs) is for virtual machines; add --vm" in error
