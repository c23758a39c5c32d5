"""cp, held against docker's: the same copies, and nothing hostile out of a container."""

import io
import os
import shutil
import subprocess
import tarfile

import pytest

from tests.cli.conftest import Isle
from tests.cli.fake import Fake

HAVE_DOCKER = shutil.which("docker")


@pytest.fixture
def box(real):
    """A container `box` with a few files, stopped."""
    real.out("run", "--name", "box", "busybox", "sh", "-c",
             "mkdir -p /d/sub /empty && echo f >/f && echo one >/d/one && echo two >/d/sub/two &&"
             "ln -s /d /link && ln -s f /flink && ln -s nowhere /dangling && chmod 640 /d/one &&"
             "touch -d '2001-02-03 04:05:06' /d/one && ln /d/one /d/hard")
    yield real
    real("rm", "-f", "box")


def tree(root):
    """What is below a directory: path to (kind, mode, content)."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("dir", path.stat().st_mode & 0o7777)
        else:
            found[name] = ("file", path.stat().st_mode & 0o7777, path.read_text())
    return found


def prepare(root):
    (root / "there").mkdir(parents=True)
    (root / "there/d").mkdir()
    (root / "file").write_text("old")
    (root / "loc").mkdir()
    (root / "loc/x").write_text("x")
    (root / "loc/deep").mkdir()
    (root / "loc/deep/y").write_text("y")
    (root / "lnk").symlink_to("loc/x")
    (root / "tolink").symlink_to("there")


OUT = ["box:/f new", "box:/f there", "box:/f there/", "box:/f file", "box:/f nope/", "box:/f no/pe",
       "box:/f tolink", "box:/d new", "box:/d there", "box:/d file", "box:/d/. new",
       "box:/d/. there", "box:/d/ new", "box:/empty new", "box:/link new", "box:/link/ new",
       "box:/flink new", "-L box:/flink new", "-L box:/flink there", "-L box:/link there",
       "box:/dangling new", "box:/nope new", "box:f there", "box:/d .", "box:/d/sub/.. new"]

IN = ["loc/x box:/new", "loc/x box:/empty", "loc/x box:/empty/", "loc/x box:/f", "loc/x box:/nope/",
      "loc/x box:/no/pe", "loc/x box:/link", "loc/x box:/flink", "loc box:/new", "loc box:/empty",
      "loc box:/f", "loc/. box:/new", "loc/. box:/empty", "lnk box:/new", "-L lnk box:/new",
      "-L lnk box:/empty", "nope box:/new", "loc/x/ box:/new", "loc box:/", "loc box:/link"]


def both(isle, line, directory):
    """Runs the copy with each program in a directory of its own; their results and trees."""
    results = []
    for program in ("docker", isle.command()[0]):
        root = directory / os.path.basename(program)
        prepare(root)
        done = subprocess.run([program, "cp", *line.split()], cwd=root, capture_output=True,
                              text=True, env={**isle.env, "DOCKER_HOST": isle.host})
        results.append((done.returncode, done.stderr, tree(root)))
    return results


@pytest.mark.skipif(not HAVE_DOCKER, reason="the docker CLI is not installed")
@pytest.mark.parametrize("line", OUT)
def test_out_as_docker(box, tmp_path, line):
    docker, isle = both(box, line, tmp_path)
    assert isle[0] == docker[0], (docker, isle)
    assert isle[2] == docker[2]


@pytest.mark.skipif(not HAVE_DOCKER, reason="the docker CLI is not installed")
@pytest.mark.parametrize("line", IN)
def test_in_as_docker(box, tmp_path, line):
    results = []
    for program in ("docker", box.command()[0]):
        box("rm", "-f", "box")
        box.out("run", "--name", "box", "busybox", "sh", "-c",
                "mkdir -p /d /empty && echo f >/f && ln -s /d /link && ln -s f /flink")
        root = tmp_path / os.path.basename(program)
        prepare(root)
        done = subprocess.run([program, "cp", *line.split()], cwd=root, capture_output=True,
                              text=True, env={**box.env, "DOCKER_HOST": box.host})
        results.append((done.returncode, box.out("diff", "box")))
    assert results[0] == results[1]


def test_times_modes_and_hard_links_are_kept(box, tmp_path):
    assert box("cp", "box:/d", tmp_path / "d").returncode == 0
    one = (tmp_path / "d/one").stat()
    assert one.st_mode & 0o777 == 0o640 and int(one.st_mtime) == 981173106
    assert (tmp_path / "d/hard").stat().st_ino == one.st_ino


def test_owners_are_kept(box, tmp_path):
    """With or without --archive, as docker's daemon does for an image without a user."""
    path = tmp_path / "owned"
    path.write_text("x")
    os.chown(path, 1234, 5678)
    box.out("cp", path, "box:/plain")
    box.out("cp", "-a", path, "box:/owned")
    listing = io.BytesIO(box("cp", "box:/owned", "-", input=b"").stdout)
    info = tarfile.open(fileobj=listing).getmembers()[0]
    assert (info.name, info.uid, info.gid) == ("owned", 1234, 5678)
    listing = io.BytesIO(box("cp", "box:/plain", "-", input=b"").stdout)
    assert tarfile.open(fileobj=listing).getmembers()[0].uid == 1234


def test_streams(box):
    out = box("cp", "box:/d", "-", input=b"").stdout
    names = tarfile.open(fileobj=io.BytesIO(out)).getnames()
    assert sorted(n.rstrip("/") for n in names) == ["d", "d/hard", "d/one", "d/sub", "d/sub/two"]
    done = box("cp", "-", "box:/empty", input=out)
    assert done.returncode == 0, done.stderr
    assert "A /empty/d/sub/two" in box.out("diff", "box")
    done = box("cp", "-", "box:/f", input=out)
    assert done.returncode == 1
    assert done.stderr == b'destination "box:/f" must be a directory\n'


def test_what_was_copied_is_told_on_a_terminal(box, tmp_path):
    with box.terminal("cp", "box:/f", tmp_path / "f") as t:
        t.expect("Successfully copied ")
        assert t.wait() == 0
    with box.terminal("cp", "-q", "box:/f", tmp_path / "f") as t:
        assert t.wait() == 0 and t.output == b""


def hostile(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("tar", [
    hostile(("../victim", tarfile.REGTYPE, "", b"gone")),
    hostile(("l", tarfile.SYMTYPE, "..", b""), ("l/victim", tarfile.REGTYPE, "", b"gone")),
    hostile(("l", tarfile.LNKTYPE, "../victim", b"")),
    b"not a tar" * 200,
    hostile(("x", tarfile.REGTYPE, "", b"y" * 4096))[:2000],
])
def test_a_hostile_container_touches_nothing(isle, fake, tmp_path, tar):
    import base64
    import json
    stat = base64.b64encode(json.dumps({"name": "d", "mode": 1 << 31 | 0o755}).encode()).decode()
    fake.route("GET", "/containers/box/archive", lambda c: c.raw(
        200, {"Content-Length": len(tar), "X-Docker-Container-Path-Stat": stat}, tar))
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "in").mkdir()
    done = isle("cp", "box:/d", tmp_path / "in")
    assert done.returncode == 1 and done.stderr
    assert (tmp_path / "victim").read_text() == "untouched"
    assert (tmp_path / "victim").stat().st_nlink == 1
