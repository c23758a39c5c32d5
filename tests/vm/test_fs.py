"""virtio-fs: a directory of the host in a guest, both ways, read-only, and what is refused."""

import hashlib
import json
import os
import pathlib
import re
import stat
import tempfile

import pytest

from tests.lib import vm

MODULES = ("virtio_pci", "virtiofs")
MOUNT = "busybox mount -t virtiofs share /mnt || echo no mount\n"


def guest(tmp_path, script, *args, **kwargs):
    initrd = vm.initrd(tmp_path / "initrd.gz", script.replace("busybox ", "/bin/busybox ") +
                       "/bin/busybox poweroff -f\n", MODULES)
    status, out, err = vm.run("--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                              vm.CMDLINE, *args, **kwargs)
    assert (status, err) == (0, "")
    return out.replace("\r", "")


@pytest.mark.parametrize("cpus", [1, 2])
def test_guest_and_host_share_a_directory(tmp_path, cpus):
    share = tmp_path / "share"
    share.mkdir()
    data = os.urandom(5_000_000)
    (share / "from-host").write_bytes(data)
    (share / "many").mkdir()
    for i in range(1000):
        (share / "many" / f"a-rather-long-name-so-that-they-fill-several-answers-{i}").touch()
    os.symlink("/etc/passwd", share / "link")
    out = guest(tmp_path, MOUNT + """busybox md5sum /mnt/from-host
busybox ls /mnt/many | busybox wc -l
busybox readlink /mnt/link
busybox cat /mnt/link || echo the link is the guest\\'s own
busybox head -c 3000000 /dev/urandom > /mnt/new
busybox md5sum /mnt/new
busybox mv /mnt/new /mnt/renamed
busybox mkdir -p /mnt/a/b
echo one > /mnt/a/b/file
echo two >> /mnt/a/b/file
busybox ln /mnt/a/b/file /mnt/hard
busybox ln -s a/b /mnt/soft
busybox cat /mnt/soft/file
busybox chown 12:34 /mnt/hard
busybox chmod 4711 /mnt/hard
busybox mkfifo /mnt/fifo
busybox mknod /mnt/device b 8 0 || echo no device
exec 3<> /mnt/open
busybox rm /mnt/open
echo unlinked but open >&3
busybox truncate -s 100 /mnt/renamed.short
busybox rm -r /mnt/many
exec 3>&-
busybox umount /mnt || echo still used
busybox rmmod virtiofs
busybox insmod /lib/virtiofs.ko
busybox mount -t virtiofs share /mnt || echo no mount
busybox sed s/^/again:/ /mnt/a/b/file
for i in 1 2 3 4; do
        (for k in $(busybox seq 50); do echo $i $k >> /mnt/appended; done) &
done
wait
""", "--fs", f"share={share}", "--cpus", cpus)
    assert "no mount" not in out and "still used" not in out
    assert hashlib.md5(data).hexdigest() in out
    assert "\n1000\n/etc/passwd\n" in out and "the link is the guest's own" in out
    assert "no device" in out and "one\ntwo\n" in out and "again:two\n" in out
    assert sorted((share / "appended").read_text().splitlines()) == sorted(
        f"{i} {k}" for i in range(1, 5) for k in range(1, 51))
    new = re.search(r"([0-9a-f]{32})  /mnt/new", out).group(1)
    assert hashlib.md5((share / "renamed").read_bytes()).hexdigest() == new
    hard = (share / "hard").stat()
    assert (hard.st_nlink, hard.st_uid, hard.st_gid, hard.st_mode) == (
        2, 12, 34, stat.S_IFREG | 0o4711)
    assert (share / "a" / "b" / "file").read_text() == "one\ntwo\n"
    assert stat.S_ISFIFO((share / "fifo").stat().st_mode)
    assert (share / "renamed.short").stat().st_size == 100
    assert sorted(os.listdir(share)) == ["a", "appended", "fifo", "from-host", "hard", "link", "renamed",
                                         "renamed.short", "soft"]


def test_read_only_share_stays_as_it_is(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    (share / "file").write_text("as it was\n")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"filesystems": [
        {"tag": "share", "path": str(share), "read_only": True},
        {"tag": "other", "path": "/usr"}]}))
    out = guest(tmp_path, MOUNT + """busybox cat /mnt/file
echo spoilt > /mnt/file || echo not written
busybox touch /mnt/other || echo not made
busybox rm -f /mnt/file || echo not removed
busybox mount -t virtiofs other /proc && busybox test -d /proc/bin && echo the other too
""", "--config", config)
    for said in ("as it was", "not written", "not made", "not removed", "the other too", "Read-only file system"):
        assert said in out
    assert os.listdir(share) == ["file"] and (share / "file").read_text() == "as it was\n"


def test_another_user_is_the_guests_root():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        share = pathlib.Path(top) / "share"
        share.mkdir()
        (share / "of-root").write_text("secret\n")
        (share / "of-root").chmod(0o600)
        os.chown(share, 1234, 1234)
        out = guest(pathlib.Path(top), MOUNT + """echo mine > /mnt/new
busybox ls -ln /mnt
busybox cat /mnt/of-root || echo not shown
busybox chown 5:5 /mnt/new || echo not given away
""", "--fs", f"share={share}", user=1234, group=1234, extra_groups=[])
        assert re.search(r"-rw-r--r-- +1 0 +0 +5 .* new\n", out)
        assert re.search(r"-rw------- +1 65534 +65534 +7 .* of-root\n", out)
        assert "not shown" in out and "not given away" in out and "secret" not in out
        new = (share / "new").stat()
        assert (new.st_uid, new.st_gid) == (1234, 1234)


def test_what_is_no_share_is_refused(tmp_path):
    for text, story in (("share", "TAG=PATH is needed"), ("=/tmp", "a tag of 1 to 36 bytes"),
                        ("t" * 37 + "=/tmp", "a tag of 1 to 36 bytes"),
                        ("s=/tmp,rw", "'rw' is not known; there are ro"),
                        ("s=/tmp,only=a:b/c", "only 'b/c' is not a name"),
                        (f"s={tmp_path}/none", "No such file or directory"),
                        ("s=/dev/null", "Not a directory")):
        status, _, err = vm.run("--kernel", "/dev/null", "--fs", text)
        assert status in (1, 2) and story in err
    status, _, err = vm.run("--kernel", "/dev/null", "--fs", "s=/tmp", "--fs", "s=/usr")
    assert status == 1 and "two file systems have the tag 's'" in err
