"""qcow2 images, with QEMU's tools as the judge: what we read of theirs, what they make of ours,
and what is left after a crash at any write."""

import hashlib
import json
import random
import shutil
import struct
import subprocess
import zlib

import pytest

from tests.lib import vm

SHELL = vm.TOP / "build" / "src" / "vmm" / "disk-shell"
SECTOR = 512
CLUSTER_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1 << 20,
                 2 << 20)
REFCOUNT_BITS = (1, 2, 4, 8, 16, 32, 64)


def img(*args, **kwargs):
    return subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True, text=True,
                          **kwargs).stdout


def io(image, *commands, options=()):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *options, *words, image], check=True,
                   capture_output=True)


def create(path, size, backing=None, backing_format="raw", **options):
    words = [f"{name}={value}" for name, value in options.items()]
    args = ["-b", backing, "-F", backing_format] if backing else []
    img("create", "-q", "-f", "qcow2", *args, *(["-o", ",".join(words)] if words else []), path,
        *([size] if size else []))
    return path


def pattern(offset, size, seed):
    first = offset // SECTOR
    return b"".join(struct.pack("<QQ", seed, sector) * 32
                    for sector in range(first, first + size // SECTOR))


class Shell:
    """disk-shell on an image, and a model of what its disk holds."""

    def __init__(self, image, content, *args):
        self.process = subprocess.Popen([SHELL, *args, image], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.model = bytearray(content)
        self.seed = 0
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        assert int(line) == len(content)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.communicate()
        assert self.process.returncode == 0

    def do(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def read(self, offset, size):
        expected = zlib.crc32(memoryview(self.model)[offset:offset + size])
        assert self.do("r", offset, size) == [f"{expected:08x}", "ok"], (offset, size)

    def write(self, offset, size):
        self.seed += 1
        self.model[offset:offset + size] = pattern(offset, size, self.seed)
        assert self.do("w", offset, size, self.seed) == ["ok"]

    def discard(self, offset, size):
        self.model[offset:offset + size] = bytes(size)
        assert self.do("d", offset, size) == ["ok"]

    def zero(self, offset, size, unmap):
        self.model[offset:offset + size] = bytes(size)
        assert self.do("z", offset, size, int(unmap)) == ["ok"]

    def flush(self):
        assert self.do("f") == ["ok"]

    def step(self, rng, largest):
        """One request from the dice."""
        sectors = len(self.model) // SECTOR
        size = min(rng.choice((1, 8, rng.randint(1, largest // SECTOR))), sectors)
        offset = rng.randint(0, sectors - size)
        kind = rng.choice("wwwwwrrrdzuf")
        if kind == "f":
            self.flush()
        elif kind in "zu":
            self.zero(offset * SECTOR, size * SECTOR, kind == "u")
        else:
            {"w": self.write, "r": self.read, "d": self.discard}[kind](offset * SECTOR,
                                                                       size * SECTOR)


def check(image):
    """qemu-img check finds nothing: neither corruption nor leaks."""
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", image], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def content(image, *args):
    raw = f"{image}.raw"
    img("convert", "-O", "raw", *args, image, raw)
    with open(raw, "rb") as data:
        return data.read()


def used_by_dice(image, start, seed, steps, largest):
    rng = random.Random(seed)
    with Shell(image, start) as shell:
        shell.read(0, len(start))
        for _ in range(steps):
            shell.step(rng, largest)
        shell.read(0, len(start))
    check(image)
    assert content(image) == shell.model
    return shell.model


@pytest.mark.parametrize("cluster_size", CLUSTER_SIZES)
def test_any_cluster_size_and_width_of_refcounts(tmp_path, cluster_size):
    bits = REFCOUNT_BITS[CLUSTER_SIZES.index(cluster_size) % len(REFCOUNT_BITS)]
    size = (3 << 20) + 5 * SECTOR
    image = create(tmp_path / "i.qcow2", size, cluster_size=cluster_size, refcount_bits=bits)
    used_by_dice(image, bytes(size), cluster_size, 60, max(4 * cluster_size, 65536))


@pytest.mark.parametrize("bits", [1, 16, 64])
def test_refcount_tables_grow(tmp_path, bits):
    """With clusters of 512 bytes a first refcount table is outgrown soon."""
    size = 24 << 20
    image = create(tmp_path / "i.qcow2", size, cluster_size=512, refcount_bits=bits)
    with Shell(image, bytes(size)) as shell:
        for at in range(0, size, 1 << 20):
            shell.write(at, 1 << 20)
        shell.discard(0, 4 << 20)
        shell.flush()
        shell.write(0, 2 << 20)
        shell.read(0, size)
    check(image)
    assert content(image) == shell.model


def test_tables_larger_than_the_cache(tmp_path):
    """With clusters of 4 KiB a piece of the cache says where 2 MiB are: 1,024 are held, and half
    of them may wait to be written."""
    image = create(tmp_path / "i.qcow2", 6 << 30, cluster_size=4096)
    places = [number << 21 for number in range(3000)]
    random.Random(0).shuffle(places)
    reads = [f"r {at} 1024" for at in places]
    told = [f"{zlib.crc32(pattern(at, SECTOR, 7) + bytes(SECTOR)):08x} ok" for at in places]
    for commands, expected in (
            ([f"w {at} 512 7" for at in places] + reads, ["ok"] * len(places) + told),
            (reads + [f"d {at} 4096" for at in places[:1500]] + reads[:1500],
             told + ["ok"] * 1500 + [f"{zlib.crc32(bytes(1024)):08x} ok"] * 1500)):
        done = subprocess.run([SHELL, image], input="\n".join(commands) + "\n", text=True,
                              capture_output=True, check=True)
        assert done.stdout.splitlines()[1:] == expected
    check(image)


def raw_file(path, size, seed):
    path.write_bytes(pattern(0, size, seed))
    return path


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("cluster_size", [1024, 65536])
def test_backing_files_show_through_and_stay_away(tmp_path, compat, cluster_size):
    """A chain of three, each larger than what is beneath; the names are relative."""
    (tmp_path / "base").mkdir()
    raw = raw_file(tmp_path / "base" / "raw.img", (1 << 20) + 3 * SECTOR, 1 << 40)
    middle = create(tmp_path / "base" / "middle.qcow2", 2 << 20, backing="raw.img", compat=compat)
    io(middle, "write -P 7 300k 200k", "write -P 8 1500k 100k")
    image = create(tmp_path / "i.qcow2", 3 << 20, backing="base/middle.qcow2",
                   backing_format="qcow2", compat=compat, cluster_size=cluster_size)
    io(image, "write -P 9 350k 50k")
    start = content(image)
    assert start[:SECTOR] == pattern(0, SECTOR, 1 << 40)
    before = raw.read_bytes(), middle.read_bytes()
    used_by_dice(image, start, cluster_size, 80, 200000)
    with Shell(image, content(image)) as shell:
        shell.discard(0, 3 << 20)
        shell.read(0, 3 << 20)
    check(image)
    assert not any(content(image))
    assert (raw.read_bytes(), middle.read_bytes()) == before


def test_raw_file_beneath_may_end_within_a_sector(tmp_path):
    (tmp_path / "raw.img").write_bytes(b"x" * 1234)
    image = create(tmp_path / "i.qcow2", 4096, backing="raw.img")
    with Shell(image, b"x" * 1234 + bytes(4096 - 1234)) as shell:
        shell.read(0, 4096)
        shell.write(0, SECTOR)
        shell.read(0, 4096)
    check(image)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster_size", [512, 4096, 65536, 2 << 20])
def test_compressed_clusters_are_read_and_replaced(tmp_path, compression, cluster_size):
    size = max(3 << 19, 5 * cluster_size // 2)
    rng = random.Random(cluster_size)
    text = bytearray(pattern(0, size, 5))
    for at in range(0, size, 1 << 18):  # not all of it can be made smaller
        text[at:at + 20000] = rng.randbytes(20000)
    (tmp_path / "raw").write_bytes(text)
    image = tmp_path / "i.qcow2"
    img("convert", "-f", "raw", "-O", "qcow2", "-c", "-o",
        f"cluster_size={cluster_size},compression_type={compression}", tmp_path / "raw", image)
    used_by_dice(image, bytes(text), cluster_size, 40, max(2 * cluster_size, 100000))


@pytest.mark.parametrize("bits", [4, 16, 64])
def test_snapshots_keep_what_they_hold(tmp_path, bits):
    size = 4 << 20
    image = create(tmp_path / "i.qcow2", size, cluster_size=4096, refcount_bits=bits)
    io(image, "write -P 1 0 2M", "write -z 1M 64k", "write -P 3 3M 256k")
    held = [content(image)]
    img("snapshot", "-c", "first", image)
    held.append(bytes(used_by_dice(image, held[0], bits, 60, 50000)))
    img("snapshot", "-c", "second", image)
    used_by_dice(image, held[1], bits + 1, 60, 50000)
    assert content(image, "-l", "first") == held[0]
    assert content(image, "-l", "second") == held[1]
    img("snapshot", "-a", "first", image)
    img("snapshot", "-d", "second", image)
    used_by_dice(image, held[0], bits + 2, 60, 50000)
    img("snapshot", "-d", "first", image)
    check(image)


@pytest.mark.parametrize("preallocation", ["metadata", "falloc"])
def test_preallocated_images_stay_so(tmp_path, preallocation):
    size = 2 << 20
    image = create(tmp_path / "i.qcow2", size, preallocation=preallocation)
    before = image.stat().st_size
    with Shell(image, bytes(size)) as shell:
        shell.write(5 * SECTOR, 300000 // SECTOR * SECTOR)
        shell.zero(65536, 65536, False)
        shell.write(65536 + SECTOR, SECTOR)
        shell.read(0, size)
    assert image.stat().st_size <= before
    check(image)


def test_threads_meet_in_clusters(tmp_path):
    raw_file(tmp_path / "raw.img", 1 << 20, 99)
    for number in range(3):
        image = create(tmp_path / f"{number}.qcow2", 1 << 20, backing="raw.img")
        with subprocess.Popen([SHELL, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as shell:
            out = shell.communicate(f"m {number}\n")[0]
        assert out.split("\n")[1] == "ok"
        check(image)


def test_discarded_space_goes_back(tmp_path):
    image = create(tmp_path / "i.qcow2", 8 << 20)
    with Shell(image, bytes(8 << 20)) as shell:
        shell.write(0, 8 << 20)
        shell.flush()
        full = image.stat().st_blocks
        shell.discard(1 << 20, 4 << 20)
        shell.flush()
        assert image.stat().st_blocks <= full - (4 << 11)
        end = image.stat().st_size
        shell.write(2 << 20, 1 << 20)
        shell.flush()
        assert image.stat().st_size == end  # what was freed is used again
    check(image)


# ---- what is refused, and locks ----

def refused(image, *args):
    done = subprocess.run([SHELL, *args, image], input="", capture_output=True, text=True,
                          check=False, timeout=10)
    assert done.returncode == 1
    return done.stderr


def patched(image, offset, data):
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(data)
    return image


INCOMPATIBLE, AUTOCLEAR = 72, 88


def test_features_that_are_not_there_are_refused_by_name(tmp_path):
    def image(name, **options):
        return create(tmp_path / name, 1 << 20, **options)

    assert "extended L2 entries" in refused(image("a", extended_l2="on"))
    assert "external data file" in refused(image("b", data_file=tmp_path / "data"))
    for method in (1, 2):  # AES, LUKS
        told = refused(patched(image("c"), 32, struct.pack(">I", method)))
        assert "is encrypted" in told
    told = refused(patched(image("d"), INCOMPATIBLE, bytes([0, 0, 4, 0, 0, 0, 0, 0])))
    assert "feature number 42" in told and str(tmp_path / "d") in told
    told = refused(patched(image("e"), 4, struct.pack(">I", 4)))
    assert "qcow version 4" in told and "qemu-img convert" in told


@pytest.mark.parametrize("bit, told", [(1, "counted references lazily"), (2, "marked as corrupt")])
def test_damaged_images_are_for_reading_until_repaired(tmp_path, bit, told):
    image = create(tmp_path / "i.qcow2", 1 << 20)
    io(image, "write -P 7 0 64k")
    patched(image, INCOMPATIBLE, bytes([0, 0, 0, 0, 0, 0, 0, bit]))
    err = refused(image)
    assert told in err and "qemu-img check -r all" in err
    with Shell(image, b"\x07" * 65536 + bytes((1 << 20) - 65536), "-r") as shell:
        shell.read(0, 1 << 20)
        assert shell.do("f") == ["ok"]
    img("check", "-r", "all", image)
    used_by_dice(image, content(image), bit, 10, 65536)


def test_features_that_we_do_not_keep_up_are_cleared(tmp_path):
    image = create(tmp_path / "i.qcow2", 1 << 20)
    img("bitmap", "--add", image, "changes")
    assert image.read_bytes()[AUTOCLEAR + 7] == 1
    with Shell(image, bytes(1 << 20), "-r") as shell:
        shell.read(0, 1 << 20)
    assert image.read_bytes()[AUTOCLEAR + 7] == 1
    with Shell(image, bytes(1 << 20)) as shell:
        shell.write(0, 4096)
    assert image.read_bytes()[AUTOCLEAR + 7] == 0


def test_backing_chains_that_are_refused(tmp_path):
    size = 1 << 20
    first = create(tmp_path / "first", size)
    second = create(tmp_path / "second", size, backing="first", backing_format="qcow2")
    img("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "second", first)
    told = refused(second, "-r")
    assert "is beneath itself" in told and "backing file of" in told
    assert "is beneath itself" in refused(second)

    below = create(tmp_path / "0", size)
    for number in range(1, 33):
        below = create(tmp_path / str(number), size, backing=below, backing_format="qcow2")
    with Shell(tmp_path / "31", bytes(size)) as shell:
        shell.read(0, size)
    assert "32 are allowed" in refused(tmp_path / "32")

    missing = create(tmp_path / "m", size, backing="0", backing_format="qcow2")
    img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "nowhere", missing)
    told = refused(missing)
    assert str(tmp_path / "nowhere") in told and f"backing file of '{missing}'" in told
    img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://localhost/x", missing)
    assert "is not a file's name" in refused(missing)
    img("rebase", "-u", "-f", "qcow2", "-F", "vmdk", "-b", "0", missing)
    assert "'vmdk'; there are raw and qcow2" in refused(missing)


def test_format_of_a_backing_file_is_never_guessed(tmp_path):
    create(tmp_path / "base", 1 << 20)
    image = create(tmp_path / "i", 1 << 20, backing="base", backing_format="qcow2")
    data = image.read_bytes()
    at = data.index(struct.pack(">I", 0xE2792ACA))
    patched(image, at, b"\0\0\0\1")  # an extension that nobody knows
    assert "does not name the format" in refused(image)
    raw_file(tmp_path / "base", 1 << 20, 3)
    with Shell(image, pattern(0, 1 << 20, 3)) as shell:
        shell.read(0, 1 << 20)


def test_who_writes_is_alone_and_beneath_it_nobody_does(tmp_path):
    base = create(tmp_path / "base", 1 << 20)
    images = [create(tmp_path / name, 1 << 20, backing="base", backing_format="qcow2")
              for name in "ab"]
    with Shell(images[0], bytes(1 << 20)), Shell(images[1], bytes(1 << 20)):
        assert "in use by another process" in refused(images[0])
        assert "in use by another process" in refused(images[0], "-r")
        assert "in use by another process" in refused(base)
    with Shell(base, bytes(1 << 20)):
        told = refused(images[0])
        assert f"'{base}' is in use by another process, which writes to it" in told


# ---- crashes ----

def events(log):
    """(kind, a, b, bytes) of each record of disk-shell's log."""
    data = log.read_bytes()
    at = 0
    while at < len(data):
        kind, a, b = struct.unpack_from("<cQQ", data, at)
        at += 17
        size = b if kind == b"W" else 0
        yield kind.decode(), a, b, data[at:at + size]
        at += size


def apply(file, kind, offset, size, data, sectors=None):
    """One change; with `sectors`, a function, only those it picks."""
    data = data if kind == "W" else bytes(size)
    if sectors is None:
        sectors = lambda: True
        pieces = [(0, len(data))]
    else:
        pieces = [(at, SECTOR - (offset + at) % SECTOR) for at in range(0, len(data), SECTOR)]
    for at, length in pieces:
        if sectors():
            file.seek(offset + at)
            file.write(data[at:at + length])


class Held:
    """What each sector may hold after a crash: what was there at the last flush, or anything
    that was written since."""

    def __init__(self, start):
        self.now = [start[at:at + SECTOR] for at in range(0, len(start), SECTOR)]
        self.may = [{data} for data in self.now]

    def done(self, command):
        """`command` was begun or has ended; as a set it is the same."""
        verb, *numbers = command.split()
        numbers = list(map(int, numbers))
        if verb == "f":
            self.may = [{data} for data in self.now]
            return
        offset, size = numbers[:2]
        data = pattern(offset, size, numbers[2]) if verb == "w" else bytes(size)
        for at in range(0, size, SECTOR):
            sector = (offset + at) // SECTOR
            self.now[sector] = data[at:at + SECTOR]
            self.may[sector].add(self.now[sector])

    def judge(self, content_now):
        for sector, may in enumerate(self.may):
            assert content_now[sector * SECTOR:(sector + 1) * SECTOR] in may, sector


def script(rng, size, steps):
    for step in range(steps):
        length = rng.choice((1, 8, rng.randint(1, 120)))
        at = rng.randint(0, size // SECTOR - length) * SECTOR
        verb = rng.choice("wwwwwdzf")
        yield {"w": f"w {at} {length * SECTOR} {step + 1}", "d": f"d {at} {length * SECTOR}",
               "z": f"z {at} {length * SECTOR} {step % 2}", "f": "f"}[verb]


CRASH_KINDS = {
    "small": {"cluster_size": 512, "refcount_bits": 64},
    "large": {"cluster_size": 65536, "refcount_bits": 16},
    "old": {"cluster_size": 4096, "compat": "0.10"},
    "shared": {"cluster_size": 4096, "refcount_bits": 4},
}


@pytest.mark.parametrize("kind", CRASH_KINDS)
def test_crash_at_any_write_leaves_a_sound_image(tmp_path, kind):
    """Killed: all writes up to some instant are there. Power lost: those before the last sync
    are, and any of the sectors written since."""
    size = 3 << 20
    raw_file(tmp_path / "raw.img", 1 << 20, 77)
    image = create(tmp_path / "i.qcow2", size, backing="raw.img", **CRASH_KINDS[kind])
    if kind != "small":
        io(image, "write -P 5 512k 1M")
    if kind == "shared":
        img("snapshot", "-c", "held", image)
    start, first, log = content(image), tmp_path / "first", tmp_path / "log"
    shutil.copy(image, first)
    rng = random.Random(kind)
    commands = list(script(rng, size, 150))
    if kind == "small":  # outgrows a refcount table
        commands[75:75] = ["w 0 2600448 1000", "f"]
    done = subprocess.run([SHELL, "-l", log, image], input="\n".join(commands) + "\n", text=True,
                          capture_output=True, check=True)
    assert done.stdout.split()[1:] == ["ok"] * len(commands)
    check(image)
    happened = list(events(log))
    changes = [at for at, event in enumerate(happened) if event[0] in "WHS"]
    assert len(changes) > 150
    cuts = [(cut, lost) for cut in rng.sample(changes, 10) for lost in (False, True)]
    # The header is only written where it points to a larger refcount table.
    headers = [at for at in changes if happened[at][0] == "W" and happened[at][1] < SECTOR]
    assert bool(headers) == (kind == "small")
    cuts += [(at + 1, True) for at in headers for _ in range(8)]
    for cut, power_lost in cuts:
        crashed = tmp_path / "crashed.qcow2"
        shutil.copy(first, crashed)
        answered = 0
        last_sync = max([at for at in range(cut) if happened[at][0] == "S"], default=0)
        with open(crashed, "r+b") as file:
            for at, (verb, a, b, data) in enumerate(happened[:cut]):
                if verb == "F":
                    answered = a
                elif verb != "S":
                    lost = power_lost and at > last_sync
                    apply(file, verb, a, b, data, (lambda: rng.random() < .5) if lost else None)
        held = Held(start)
        for number, command in enumerate(commands[:answered + 1]):
            if command != "f" or number < answered:  # a flush counts when it is answered
                held.done(command)
        result = subprocess.run(["qemu-img", "check", "--output=json", crashed], check=False,
                                capture_output=True, text=True)
        report = json.loads(result.stdout)
        assert not report.get("corruptions") and not report["check-errors"], (cut, power_lost)
        held.judge(content(crashed))
        if kind == "shared":
            assert content(crashed, "-l", "held") == start


# ---- a guest ----

INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox dd if=/dev/urandom of=/big bs=64k count=40 2> /dev/null
/bin/busybox md5sum /big
/bin/busybox dd if=/big of=/dev/vdb bs=64k seek=40000000 2> /dev/null
/bin/busybox umount -r /
/bin/busybox poweroff -f
"""


def test_guest_has_its_root_on_an_overlay(tmp_path):
    tree, base = tmp_path / "tree", tmp_path / "base.ext4"
    (tree / "bin").mkdir(parents=True)
    (tree / "dev").mkdir()
    shutil.copy("/bin/busybox", tree / "bin" / "busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, base, "32M"], check=True)
    before = base.read_bytes()
    image = tmp_path / "i.qcow2"
    initrd = vm.initrd(tmp_path / "initrd.gz", "/bin/busybox mount -t ext4 /dev/vda /mnt\n"
                       "exec /bin/busybox switch_root /mnt /init\n",
                       ("virtio_pci", "virtio_blk", "ext4"))
    status, out, err = vm.run("--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                              vm.CMDLINE, "--disk", f"{image},backing=base.ext4,backing_format=raw",
                              "--disk", f"{tmp_path}/large.qcow2,size=3t")
    assert (status, err) == (0, "")
    for path, size in ((image, 32 << 20), (tmp_path / "large.qcow2", 3 << 40)):
        info = json.loads(img("info", "--output=json", path))
        assert (info["virtual-size"], info["format"]) == (size, "qcow2")
    check(tmp_path / "large.qcow2")
    check(image)
    assert base.read_bytes() == before
    (tmp_path / "now").write_bytes(content(image))
    subprocess.run(["fsck.ext4", "-fn", tmp_path / "now"], check=True, capture_output=True)
    big = subprocess.run(["debugfs", "-R", "cat /big", tmp_path / "now"], check=True,
                         capture_output=True).stdout
    assert len(big) == 40 << 16 and hashlib.md5(big).hexdigest() in out
