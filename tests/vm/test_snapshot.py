"""Machines that are saved while they are paused, and go on from what was saved."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import until
from tests.vm.test_control import KERNEL, Control, machine
from tests.vm.test_disk import image

HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
PROVIDERS = ["soft"] + (["kvm", "kvm-split"] if HAS_KVM else [])
COUNTER = "/vm/memory?address=0x200000&size=4"


def save(tmp_path, directory):
    return subprocess.run([vm.VMM, "--api-socket", tmp_path / "api", "--snapshot", directory],
                          capture_output=True, text=True, timeout=120, check=False)


def saved(tmp_path, control, name="snapshot"):
    control.post("/vm/pause")
    result = save(tmp_path, tmp_path / name)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path / name)) == ["memory", "state"]
    return tmp_path / name


def refusal(kernel, directory, *args):
    """What a restore says that must not succeed."""
    status, _, err = vm.run("--kernel", kernel, "--test-devices", "--restore", directory, *args)
    assert status == 1 and err.count("\n") == 1, err
    return err


# ---- a small kernel, which counts in memory ----


@pytest.fixture(scope="session", name="kernel")
def _kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("snapshot") / "kernel", KERNEL)


@pytest.fixture(scope="session", name="snapshot")
def _snapshot(tmp_path_factory, kernel):
    path = tmp_path_factory.mktemp("snapshot")
    with machine(path / "api", "--cpu", "soft", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        return saved(path, control)


@pytest.mark.parametrize("source", PROVIDERS)
@pytest.mark.parametrize("target", PROVIDERS)
def test_any_provider_goes_on_from_any(tmp_path, kernel, source, target):
    with machine(tmp_path / "api", "--cpu", source, "--kernel", kernel, "--cpus", "2") as (
            process, control):
        assert process.stdout.readline() == b"u\n"
        until(lambda: control.get(COUNTER) != bytes(4))
        directory = saved(tmp_path, control)
        before = int.from_bytes(control.get(COUNTER), "little")
        registers = control.get("/vm/cpus/0/registers")
        assert control.get("/vm")["state"] == "paused"  # saving changes nothing
    args = ["--cpu", target, "--kernel", kernel, "--cpus", "2", "--restore", directory]
    for i in range(2):  # both begin where it was saved
        with machine(tmp_path / f"api{i}", *args) as (process, control):
            until(control.is_there)
            until(lambda: int.from_bytes(control.get(COUNTER), "little") > before)
            control.post("/vm/pause")
            now = control.get("/vm/cpus/0/registers")
            assert now["rbx"] == "0x12345678" == registers["rbx"]
            assert (now["cs"], now["gdtr"]) == (registers["cs"], registers["gdtr"])
            assert control.get("/vm/cpus/1/registers")["activity"] == "wait-for-sipi"
            control.post("/vm/resume")
            control.post("/vm/send-key", {"keys": "a"})
            assert process.wait(60) == 0x1e << 1 | 1
            assert process.stdout.read() == b""  # nothing is said twice


def test_running_machine_is_not_saved(tmp_path, kernel):
    with machine(tmp_path / "api", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        result = save(tmp_path, tmp_path / "snapshot")
        assert (result.returncode, result.stderr) == (
            1, "isle-vmm: the VM is running; POST /vm/pause stops it for a snapshot\n")
        assert os.listdir(tmp_path) == ["api"]
        control.post("/vm/pause")
        status, message = control.refused("PUT", "/vm/snapshot")
        assert status == 400 and "isle-vmm --snapshot does that" in message
        (tmp_path / "snapshot").mkdir()
        result = save(tmp_path, tmp_path / "snapshot")
        assert result.returncode == 1 and "something of that name already" in result.stderr
        assert sorted(os.listdir(tmp_path)) == ["api", "snapshot"]


def test_device_that_cannot_be_saved_is_named(tmp_path, kernel):
    with machine(tmp_path / "api", "--cpu", "soft", "--iommu", "--kernel", kernel) as (
            process, control):
        assert process.stdout.readline() == b"u\n"
        control.post("/vm/pause")
        result = save(tmp_path, tmp_path / "snapshot")
        assert result.returncode == 1 and "device 'iommu' cannot be saved" in result.stderr
        assert os.listdir(tmp_path) == ["api"]
        control.post("/vm/resume")
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 0x1e << 1 | 1


def test_other_configuration_is_refused(tmp_path, kernel, snapshot):
    assert "256 MiB of memory, not 128; --memory 256m" in refusal(
        kernel, snapshot, "--memory", "128m")
    assert "1 vCPUs, not 2; --cpus 1" in refusal(kernel, snapshot, "--cpus", "2")
    disk = image(tmp_path / "disk", 1)
    assert "restore it with the configuration that it was saved with" in refusal(
        kernel, snapshot, "--disk", disk)
    assert "restore it with the configuration" in refusal(kernel, snapshot, "--transport", "mmio")
    assert "do not go together" in refusal(kernel, snapshot, "--memory-file", tmp_path / "memory")


def cut(path, size):
    os.truncate(path, size)


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("name, harm, told", [
    ("state", os.unlink, "state': No such file"),
    ("memory", os.unlink, "memory': No such file"),
    ("state", lambda path: cut(path, 0), "no state of a machine"),
    ("state", lambda path: cut(path, 31), "no state of a machine"),
    ("state", lambda path: cut(path, 32), "cut off"),
    ("state", lambda path: cut(path, 5000), "cut off"),
    ("state", lambda path: flip(path, 0), "no state of a machine"),
    ("state", lambda path: flip(path, 9), "version 257, where this isle-vmm reads 1"),
    ("state", lambda path: flip(path, 3000), "checksum"),
    ("memory", lambda path: cut(path, 0), "memory': 0 bytes, where a machine of 256 MiB has"),
    ("memory", lambda path: cut(path, 256 << 20), "memory': 268435456 bytes, where"),
    ("memory", lambda path: flip(path, 256 << 20), "written whole"),
    ("memory", lambda path: flip(path, (256 << 20) + 24), "not of the snapshot"),
])
def test_damage_is_told(tmp_path, kernel, snapshot, name, harm, told):
    directory = tmp_path / "snapshot"
    subprocess.run(["cp", "-r", "--sparse=always", snapshot, directory], check=True)
    harm(directory / name)
    assert told in refusal(kernel, directory)


def test_snapshot_that_is_not_there(tmp_path, kernel):
    assert "nothing/state': No such file" in refusal(kernel, tmp_path / "nothing")


# ---- whoever is killed ----


@contextlib.contextmanager
def stopped_while_saving(tmp_path, process):
    """A client whose request the machine has, and no time to answer it."""
    inside = vm.machine_pid(process)
    os.kill(inside, signal.SIGSTOP)
    with subprocess.Popen([vm.VMM, "--api-socket", tmp_path / "api", "--snapshot",
                           tmp_path / "snapshot"], stderr=subprocess.PIPE) as client:
        until(lambda: list(tmp_path.glob("snapshot.tmp-*/memory")))
        yield client, inside


def test_killed_while_saving(tmp_path, kernel):
    """At whatever moment: there is no snapshot, or a whole one; and the machine goes on."""
    with machine(tmp_path / "api", "--cpu", "soft", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        control.post("/vm/pause")
        with stopped_while_saving(tmp_path, process) as (client, inside):
            client.kill()
            client.wait()
            os.kill(inside, signal.SIGCONT)
        half, = tmp_path.glob("snapshot*")
        assert "state': No such file" in refusal(kernel, half)
        whole = 0
        for moment in range(30):
            directory = tmp_path / f"snapshot-{moment}"
            with subprocess.Popen([vm.VMM, "--api-socket", tmp_path / "api", "--snapshot",
                                   directory]) as client:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.wait(moment / 500)
                client.kill()
            if not directory.exists():
                continue
            whole += 1
            assert sorted(os.listdir(directory)) == ["memory", "state"]
            assert "--memory 256m restores it" in refusal(kernel, directory, "--memory", "64m")
        assert whole < 30  # some were killed in time
        saved(tmp_path, control)
        control.post("/vm/resume")
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 0x1e << 1 | 1


def test_machine_killed_while_saving(tmp_path, kernel):
    with machine(tmp_path / "api", "--cpu", "soft", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        control.post("/vm/pause")
        with stopped_while_saving(tmp_path, process) as (client, inside):
            os.kill(inside, signal.SIGKILL)
            assert client.wait(60) == 1
            assert client.stderr.read()
        assert not [name for name in os.listdir(tmp_path) if "snapshot" in name]


# ---- Linux, with a disk ----

MODULES = ("virtio_pci", "virtio_blk", "virtio_balloon", "ext4")
SCRIPT = """
/bin/busybox mount -t ext4 /dev/vda /mnt
/bin/busybox mkdir /t
/bin/busybox mount -t tmpfs none /t
/bin/busybox head -c 4000000 /dev/urandom > /t/memory
/bin/busybox head -c 4000000 /dev/urandom > /mnt/disk
: > /t/ticks
(while /bin/busybox sleep 0.2; do echo >> /t/ticks; done) &
n=0
echo up $(/bin/busybox md5sum < /t/memory) $(/bin/busybox md5sum < /mnt/disk)
while read line; do
    n=$((n+1))
    echo $n >> /mnt/log
    echo at $n $(/bin/busybox cut -d. -f1 /proc/uptime) $(/bin/busybox md5sum < /t/memory) \
        $(/bin/busybox md5sum < /mnt/disk) $(/bin/busybox wc -l < /t/ticks) \
        $(/bin/busybox grep -c processor /proc/cpuinfo) $(/bin/busybox tr '\\n' , < /mnt/log)
    if [ "$line" = off ]; then /bin/busybox umount /mnt; /bin/busybox poweroff -f; fi
done
"""


class Guest:
    def __init__(self, process, control):
        self.process, self.control = process, control

    def line(self, word):
        for line in self.process.stdout:
            text = line.decode(errors="replace").split()
            if text[:1] == [word]:
                return text[1:]
        raise AssertionError(f"the guest ended before '{word}'")

    def ask(self, word="go"):
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        number, uptime, memory, _, disk, _, ticks, cpus, log = self.line("at")
        return int(number), int(uptime), (memory, disk), int(ticks), int(cpus), log


@contextlib.contextmanager
def linux(tmp_path, disk, *args):
    with subprocess.Popen([vm.VMM, "--api-socket", tmp_path / "api", "--kernel",
                           vm.debian_kernel(), "--initrd", tmp_path / "initrd.gz", "--cmdline",
                           vm.CMDLINE, "--cpu", "soft", "--disk", disk, *args],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Guest(process, Control(tmp_path / "api"))
        finally:
            process.kill()


@pytest.mark.parametrize("cpus, more", [("1", ()), ("4", ()), ("2", ("--transport", "mmio"))])
def test_linux_goes_on_with_memory_disk_and_time(tmp_path, cpus, more):
    modules = MODULES if not more else ("virtio_mmio",) + MODULES[1:]
    vm.initrd(tmp_path / "initrd.gz", SCRIPT, modules)
    disk = image(tmp_path / "disk", 64)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    args = ["--cpus", cpus, *more]
    with linux(tmp_path, disk, *args) as guest:
        memory, _, on_disk, _ = guest.line("up")
        number, uptime, sums, ticks, seen, log = guest.ask()
        assert (number, sums, seen, log) == (1, (memory, on_disk), int(cpus), "1,")
        directory = saved(tmp_path, guest.control)
    for i in range(2):
        clone = tmp_path / f"disk{i}"
        shutil.copy(disk, clone)
        with linux(tmp_path, clone, *args, "--restore", directory) as guest:
            after = guest.ask()
            assert (after[0], after[2], after[5]) == (2, (memory, on_disk), "1,2,")
            assert uptime <= after[1] <= uptime + 30
            until(lambda: guest.ask()[3] > ticks + 3, 60)  # sleeps end
            guest.ask("off")
            assert guest.process.wait(60) == 0
        subprocess.run(["fsck.ext4", "-fn", clone], check=True, capture_output=True)
