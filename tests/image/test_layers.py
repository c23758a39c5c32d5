"""Layers as they are unpacked: everything a tar can say is kept, and nothing a hostile one
says reaches beyond its directory. What is right is what umoci, the reference tool of the
Open Containers, makes of the same image."""

import io
import json
import os
import pathlib
import stat
import struct
import subprocess
import tarfile
import threading

import pytest

from tests.lib import images

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


class Layer:
    """A tar written member by member."""

    def __init__(self):
        self.out = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.out, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", mode=0o644, link="", **more):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.mtime = kind, mode, link, 1_600_000_000
        for key, value in more.items():
            setattr(info, key, value)
        if kind == tarfile.REGTYPE:
            info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def dir(self, name, mode=0o755, **more):
        return self.add(name, tarfile.DIRTYPE, mode=mode, **more)

    def symlink(self, name, to):
        return self.add(name, tarfile.SYMTYPE, link=to, mode=0o777)

    def hardlink(self, name, to):
        return self.add(name, tarfile.LNKTYPE, link=to)

    def bytes(self):
        self.tar.close()
        return self.out.getvalue()


def xattr(name, value):
    return {"pax_headers": {"SCHILY.xattr." + name: value.decode("latin-1")}}


def rich_layers():
    """Every kind of thing, then a second and third layer that change and remove."""
    first = (Layer().dir("d").dir("d/sub", 0o711, uid=1000, gid=1001).add("d/sub/f", data=b"one")
             .add("d/gone", data=b"x").add("d/suid", data=b"s", mode=0o4755)
             .add("d/sticky", tarfile.DIRTYPE, mode=0o1777)
             .hardlink("d/hard", "d/sub/f").symlink("d/soft", "/etc/../d/sub/f")
             .symlink("dangling", "nowhere").dir("opaque").add("opaque/old", data=b"old")
             .add("fifo", tarfile.FIFOTYPE, mode=0o600)
             .add("null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
             .add("disk", tarfile.BLKTYPE, mode=0o660, devmajor=7, devminor=99, gid=6)
             .add("x" * 255, data=b"long name").add("sp ace \n\t\\'\"é", data=b"odd name")
             .add("implied/parents/are/made", data=b"p")
             .add("big-ids", data=b"i", uid=3_000_000_000, gid=4_000_000_000)
             .add("future", data=b"t", mtime=5_000_000_000.5)
             .add("becomes-dir", data=b"f").dir("becomes-file").add("becomes-file/in", data=b"x"))
    second = (Layer().add("d/.wh.gone").dir("opaque").add("opaque/.wh..wh..opq")
              .add("opaque/new", data=b"new").add("d/sub/f", data=b"two").dir("becomes-dir")
              .add("becomes-dir/in", data=b"in").add("becomes-file", data=b"now a file")
              .add("capable", data=b"c", mode=0o755, **xattr("security.capability", CAPABILITY))
              .add("noted", data=b"n", **xattr("user.note", b"hello")))
    third = (Layer().add("implied/.wh.parents").add("again", data=b"a").hardlink("again2", "again")
             .add(".wh.again-not-there").dir("d", 0o700))
    return [layer.bytes() for layer in (first, second, third)]


def facts(path):
    """What matters of one file, comparable."""
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    found = {"kind": kind, "mode": stat.S_IMODE(info.st_mode), "owner": (info.st_uid, info.st_gid)}
    if stat.S_ISREG(info.st_mode):
        found["data"] = pathlib.Path(path).read_bytes()
        found["mtime"] = int(info.st_mtime)
        found["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False)
                           for name in os.listxattr(path, follow_symlinks=False)}
    if stat.S_ISLNK(info.st_mode):
        found["target"] = os.readlink(path)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        found["device"] = info.st_rdev
    return found


def tree(root, skip=()):
    """{path: facts} and the sets of paths that are one file."""
    found, inodes = {}, {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, root)
            if relative.split("/")[0] in skip:
                continue
            found[relative] = facts(path)
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                inodes.setdefault(info.st_ino, set()).add(relative)
    return found, sorted(sorted(names) for names in inodes.values() if len(names) > 1)


@pytest.fixture
def unpacked(isled):
    """A function: the root file system of an image as a container sees it, as a host path."""
    holder = []

    def run(reference):
        isled.isle("run", "-d", "--name", "holder", reference, "/bin/busybox", "sleep", "1000")
        holder.append("holder")
        return f"/proc/{isled.inspect('holder')['State']['Pid']}/root"
    yield run
    for name in holder:
        isled.isle("rm", "-f", name)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_as_umoci_unpacks_it(isled, fake, unpacked, tmp_path, packing):
    image = images.Image([images.busybox_layer(), *rich_layers()], packing=packing)
    reference = fake.add(image, "rich", packing)
    subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}",
                    f"oci:{tmp_path}/layout:x"], check=True, capture_output=True)
    if packing == "zstd":  # umoci 0.4 does not know it; the layers are the same
        plain = fake.add(images.Image(image.layers, packing="none"), "rich", "plain")
        subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{plain}",
                        f"oci:{tmp_path}/layout:x"], check=True, capture_output=True)
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/layout:x", f"{tmp_path}/bundle"],
                   check=True, capture_output=True)
    isled.isle("pull", reference)
    # What a container has beside its image.
    ours, our_links = tree(unpacked(reference), skip=("proc", "sys", "dev", "etc", ".dockerenv"))
    theirs, their_links = tree(tmp_path / "bundle/rootfs", skip=("proc", "sys", "dev", "etc"))
    assert sorted(ours) == sorted(theirs)
    for path, wanted in theirs.items():
        assert ours[path] == wanted, path
    assert our_links == their_links
    assert ours["capable"]["xattrs"]["security.capability"] == CAPABILITY
    assert ours["disk"]["device"] == os.makedev(7, 99)
    assert "d/gone" not in ours and "opaque/old" not in ours and "implied/parents" not in ours


def test_what_is_saved_is_what_skopeo_and_umoci_read(isled, fake, tmp_path):
    image = images.Image([images.busybox_layer(), *rich_layers()])
    reference = fake.add(image, "rich", "1")
    isled.isle("pull", reference)
    isled.isle("save", "-o", tmp_path / "saved.tar", reference)
    for kind, name in (("docker-archive", f":{reference}"), ("oci-archive", "")):
        done = subprocess.run(["skopeo", "inspect", "--config", f"{kind}:{tmp_path}/saved.tar{name}"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rootfs"]["diff_ids"] == image.config["rootfs"]["diff_ids"]
    subprocess.run(["skopeo", "copy", f"docker-archive:{tmp_path}/saved.tar:{reference}",
                    f"oci:{tmp_path}/layout:x"], check=True, capture_output=True)
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/layout:x", f"{tmp_path}/bundle"],
                   check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/d/sub/f").read_bytes() == b"two"


def test_what_skopeo_writes_is_loaded(isled, fake, tmp_path):
    image = images.Image([images.busybox_layer()])
    reference = fake.add(image, "plain", "1")
    for kind in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{kind}.tar"
        subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}",
                        f"{kind}:{archive}:made/by:{kind}"], check=True, capture_output=True)
        out = isled.isle("load", "-i", archive).stdout
        assert f"made/by:{kind}" in out
        assert isled.isle("run", "--rm", f"made/by:{kind}", "echo", "runs").stdout == "runs\n"


# -- layers that want to get out ---------------------------------------------------------

OUTSIDE = pathlib.Path("/tmp/isle-test-outside")


@pytest.fixture
def outside():
    """A directory that must stay as it is."""
    OUTSIDE.mkdir()
    (OUTSIDE / "secret").write_text("secret")
    before = tree(OUTSIDE)
    yield OUTSIDE
    after = tree(OUTSIDE)
    subprocess.run(["rm", "-r", OUTSIDE], check=True)
    assert after == before


def hostile(*steps):
    layer = Layer()
    for method, *words in steps:
        getattr(layer, method)(*words)
    return layer.bytes()


UP = "../" * 12 + "tmp/isle-test-outside"


@pytest.mark.parametrize("name, layer", [
    ("dots", lambda: hostile(("add", f"{UP}/new"))),
    ("inner dots", lambda: hostile(("dir", "d"), ("add", f"d/{UP}/new"))),
    ("absolute", lambda: hostile(("add", f"{OUTSIDE}/new"))),
    ("through an absolute link", lambda: hostile(("symlink", "l", str(OUTSIDE)), ("add", "l/new"))),
    ("through a relative link", lambda: hostile(("symlink", "l", UP), ("add", "l/new"))),
    ("through two links", lambda: hostile(("symlink", "a", "/"), ("symlink", "b", f"a{OUTSIDE}"),
                                          ("add", "b/new"))),
    ("a directory over a link", lambda: hostile(("symlink", "l", str(OUTSIDE)), ("dir", "l", 0o777))),
    ("hard link out", lambda: hostile(("hardlink", "h", f"{UP}/secret"))),
    ("hard link through a link", lambda: hostile(("symlink", "l", str(OUTSIDE)),
                                                 ("hardlink", "h", "l/secret"),
                                                 ("add", "h"))),
    ("write through a hard link to a link", lambda: hostile(
        ("symlink", "l", f"{OUTSIDE}/secret"), ("hardlink", "h", "l"), ("add", "h"))),
    ("whiteout out", lambda: hostile(("add", f"{UP}/.wh.secret"))),
    ("whiteout through a link", lambda: hostile(("symlink", "l", str(OUTSIDE)),
                                                ("add", "l/.wh.secret"))),
    ("opaque through a link", lambda: hostile(("symlink", "l", str(OUTSIDE)),
                                              ("add", "l/.wh..wh..opq"))),
    ("whiteout of dots", lambda: hostile(("add", ".wh..."), ("add", ".wh.."))),
])
def test_layer_that_wants_out(isled, fake, outside, name, layer):
    """Refused with its entry named, or kept inside: as in a container, where / is its own."""
    reference = fake.add(images.Image([images.busybox_layer(), layer()]), "bad", "1")
    done = isled.isle("pull", reference, check=False)
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert "layer" in done.stderr and isled.get("/images/json?all=1").json == []
    assert list((isled.root / "staging").iterdir()) == []


def test_link_of_a_lower_layer_does_not_lead_out(isled, fake, outside):
    """The link is in one layer, what goes through it in the next."""
    first = hostile(("symlink", "l", str(OUTSIDE)))
    second = hostile(("add", "l/new"), ("add", "l/.wh.secret"))
    reference = fake.add(images.Image([images.busybox_layer(), first, second]), "bad", "1")
    isled.isle("pull", reference, check=False)


def test_whole_layers_of_nonsense(isled, fake):
    good = images.small_layer("x")
    for bad in (good[:700], good[:512] + b"\xff" * 512, b"\0" * 100, b"PK\x03\x04" + b"x" * 5000,
                good + b"trailing junk" * 100):
        reference = fake.add(images.Image([images.busybox_layer(), bad]), "bad", "1")
        done = isled.isle("pull", reference, check=False)
        if done.returncode != 0:
            assert done.stderr.count("\n") == 1 and "layer" in done.stderr
            assert isled.get("/images/json?all=1").json == []
        isled.isle("rmi", reference, check=False)


def test_zip_bomb_is_refused(isled, fake):
    """3 GiB of zeros in 3 MB: beyond the ratio that anything sensible has."""
    class Zeros(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            return len(buffer)
    packed = subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    collected = []

    reader = threading.Thread(target=lambda: collected.append(packed.stdout.read()))
    reader.start()
    info = tarfile.TarInfo("zeros")
    info.size = 3 << 30
    with tarfile.open(fileobj=packed.stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BufferedReader(Zeros(), 1 << 20))
    packed.stdin.close()
    reader.join()
    packed.wait()
    bomb = images.Image([images.busybox_layer(), b""], packing="zstd")
    data = collected[0]
    bomb.blobs[images.digest_of(data)] = data
    bomb.manifest["layers"][1] = {"mediaType": images.OCI_LAYER + "+zstd", "size": len(data),
                                  "digest": images.digest_of(data)}
    done = isled.isle("pull", fake.add(bomb, "bomb", "1"), check=False)
    assert done.returncode == 1
    assert "unpacks to more than the allowed" in done.stderr
    assert list((isled.root / "staging").iterdir()) == []


def test_sparse_files_stay_sparse(isled, fake, unpacked, tmp_path):
    """GNU tar's sparse members: the holes are not written."""
    with open(tmp_path / "holes", "wb") as f:
        f.truncate(64 << 20)
        f.seek(10 << 20)
        f.write(b"island")
    layer = subprocess.run(["tar", "-C", tmp_path, "--sparse", "--format=pax", "-cf", "-", "holes"],
                           capture_output=True, check=True).stdout
    assert len(layer) < 1 << 20
    reference = fake.add(images.Image([images.busybox_layer(), layer]), "sparse", "1")
    isled.isle("pull", reference)
    path = unpacked(reference) + "/holes"
    assert os.stat(path).st_size == 64 << 20
    assert os.stat(path).st_blocks * 512 < 1 << 20
    with open(path, "rb") as f:
        f.seek(10 << 20)
        assert f.read(6) == b"island"


def test_layers_are_shared(isled, fake):
    """Two images on one base: its layer is downloaded, stored and unpacked once."""
    base = images.busybox_layer()
    one = images.Image([base, images.small_layer("one")])
    two = images.Image([base, images.small_layer("two")])
    isled.isle("pull", fake.add(one, "one", "1"))
    fake.requests.clear()
    isled.isle("pull", fake.add(two, "two", "1"))
    assert fake.seen("GET", one.manifest["layers"][0]["digest"]) == []
    assert len(list((isled.root / "layers").iterdir())) == 3
