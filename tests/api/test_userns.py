"""isled --userns-remap: root in a container is nobody outside; everything else is as before."""

import io
import os
import subprocess
import tarfile

import pytest

from tests.lib.daemon import Daemon, program

BASE = 1_900_000


@pytest.fixture(scope="module")
def ranges(tmp_path_factory):
    """A command that runs isled where /etc/subuid and /etc/subgid give `isle` a range."""
    path = tmp_path_factory.mktemp("ranges") / "sub"
    path.write_text(f"other:100000:65536\nisle:5000:10\nisle:{BASE}:65536\n")
    return ["unshare", "-m", "sh", "-c",
            "touch /etc/subuid /etc/subgid; "
            f"mount --bind {path} /etc/subuid && mount --bind {path} /etc/subgid && exec \"$@\"", "sh"]


@pytest.fixture(scope="module")
def isled(tmp_path_factory, ranges):
    with Daemon(tmp_path_factory.mktemp("isled"), ["--userns-remap", "default"],
                prefix=ranges) as d:
        d.load_busybox()
        yield d


@pytest.fixture
def box(isled):
    isled.out("run", "-d", "--name", "box", "-v", "data:/data", "busybox", "sleep", "1000")
    yield isled.inspect("box")["State"]["Pid"]
    isled.out("rm", "-f", "box")
    isled.out("volume", "rm", "data")


def test_root_is_nobody_outside(isled, box):
    assert isled.out("exec", "box", "id", "-u") == "0"
    status = open(f"/proc/{box}/status", encoding="ascii").read()
    assert f"Uid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}" in status
    assert open(f"/proc/{box}/uid_map", encoding="ascii").read().split() == ["0", str(BASE), "65536"]
    assert open(f"/proc/{box}/gid_map", encoding="ascii").read().split() == ["0", str(BASE), "65536"]
    inside, outside = os.stat(f"/proc/{box}/ns/user"), os.stat("/proc/self/ns/user")
    assert inside.st_ino != outside.st_ino


def test_files_have_the_images_owners(isled, box):
    assert isled.out("exec", "box", "stat", "-c", "%u:%g %a", "/tmp", "/etc/passwd", "/etc/hosts",
                     "/data").splitlines() == ["0:0 1777", "0:0 644", "0:0 644", "0:0 755"]
    assert isled.out("exec", "-u", "1000:1001", "box", "sh", "-c", "touch /tmp/x; stat -c %u:%g /tmp/x"
                     ) == "1000:1001"
    # On disk they are those of the image: layers and volumes serve everybody.
    isled.out("exec", "box", "touch", "/made", "/data/made")
    id = isled.inspect("box")["Id"]
    for path in (isled.root / "snapshots" / id / "upper/made", isled.root / "volumes/data/_data/made"):
        assert os.stat(path).st_uid == 0
    assert os.stat(isled.root / "snapshots" / id / "upper/tmp/x").st_uid == 1000


def test_a_volume_is_shared_with_who_runs_without(isled, box):
    isled.out("exec", "box", "sh", "-c", "echo data > /data/f; chown 1000:1001 /data/f")
    assert isled.out("run", "--rm", "--userns", "host", "-v", "data:/data", "busybox",
                     "stat", "-c", "%u:%g", "/data/f") == "1000:1001"


def test_the_opt_out(isled):
    assert isled.out("run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map"
                     ).split() == ["0", "0", "4294967295"]


def owner_in_archive(isled, place):
    out = isled.docker_command("cp", place, "-")
    data = subprocess.run(out, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entry = tar.next()
        return entry.uid, entry.gid


def test_copy_in_and_out(isled, box, tmp_path):
    (tmp_path / "f").write_text("in")
    os.chown(tmp_path / "f", 0, 0)
    isled.out("cp", "-a", tmp_path / "f", "box:/tmp/f")
    isled.out("cp", tmp_path / "f", "box:/data/f")
    assert isled.out("exec", "box", "stat", "-c", "%u:%g", "/tmp/f", "/data/f") == "0:0\n0:0"
    isled.out("exec", "box", "chown", "1000:1001", "/tmp/f")
    assert owner_in_archive(isled, "box:/tmp/f") == (1000, 1001)
    isled.out("stop", "-t", "0", "box")
    assert owner_in_archive(isled, "box:/tmp/f") == (1000, 1001)
    isled.out("cp", tmp_path / "f", "box:/tmp/g")
    isled.out("start", "box")
    assert isled.out("exec", "box", "stat", "-c", "%u:%g", "/tmp/g") == "0:0"


def test_it_works_like_any_other(isled, box):
    assert isled.out("exec", "box", "hostname") == isled.inspect("box")["Id"][:12]
    assert "sleep 1000" in isled.out("top", "box")
    isled.out("pause", "box")
    isled.out("unpause", "box")
    isled.out("update", "-m", "64m", "--memory-swap", "-1", "box")
    assert isled.out("run", "--rm", "-i", "busybox", "cat", input="through") == "through"
    assert isled.out("run", "--rm", "--tmpfs", "/t", "--read-only", "busybox", "sh", "-c",
                     "echo x > /t/f && stat -c %u /t/f") == "0"
    assert isled.out("run", "--rm", "busybox", "sh", "-c", "echo > /dev/null && ls /sys/fs/cgroup"
                     ) != ""


@pytest.mark.parametrize("words, said", [
    (["--privileged"], "privileged mode is incompatible with user namespaces"),
    (["--network", "host"], "cannot share the network namespace"),
    (["--pid", "host"], "cannot share the PID namespace"),
    (["--ipc", "host"], "cannot share the IPC namespace"),
    (["--uts", "host"], "cannot share the UTS namespace"),
])
def test_what_cannot_be_had(isled, words, said):
    done = isled.docker("run", "--rm", *words, "busybox", "true", check=False)
    assert done.returncode == 125
    assert said in done.stderr and "--userns host" in done.stderr
    assert isled.docker("run", "--rm", "--userns", "host", *words, "busybox", "true").returncode == 0


def test_who_has_no_range(tmp_path):
    done = subprocess.run([program("isled"), "--root", tmp_path / "r", "--run", tmp_path / "s",
                           "--userns-remap", "nobody-has-this"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "/etc/subuid has no range" in done.stderr and "nobody-has-this:100000:65536" in done.stderr
