"""The control socket of isle-vmm."""

import contextlib
import http.client
import json
import re
import socket
import subprocess

import pytest

from tests.lib import vm
from tests.lib.daemon import UnixConnection, until


# Writes "up", then counts in memory at 2 MiB until a key arrives; then says which.
KERNEL = """
        mov $0x12345678, %ebx
        mov $0x3f8, %edx
        mov $'u', %al
        outb %al, %dx
        mov $10, %al
        outb %al, %dx
1:      incl 0x200000
        inb $0x64, %al
        test $1, %al
        jz 1b
        inb $0x60, %al
        test $0x80, %al
        jnz 1b
        mov $0xf4, %edx
        outb %al, %dx
2:      hlt
        jmp 2b
"""


class Control:
    """A client of one socket; a request is (status, decoded answer)."""

    def __init__(self, path):
        self.path = path

    def request(self, method, path, body=None):
        with contextlib.closing(UnixConnection(str(self.path))) as connection:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.headers.get("Content-Type") or ""
            return answer.status, json.loads(data) if kind == "application/json" else data

    def get(self, path):
        status, answer = self.request("GET", path)
        assert status == 200, answer
        return answer

    def is_there(self):
        try:
            return self.get("/vm")
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def post(self, path, body=None):
        status, answer = self.request("POST", path, body)
        assert status == 204, answer

    def refused(self, method, path, body=None):
        status, answer = self.request(method, path, body)
        assert status >= 400
        return status, answer["message"]


@contextlib.contextmanager
def machine(path, *args):
    with subprocess.Popen([vm.VMM, "--api-socket", path, "--test-devices", *args],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        try:
            yield process, Control(path)
        finally:
            process.kill()


@pytest.fixture(scope="session", name="kernel")
def _kernel(tmp_path_factory):
    return vm.assemble(tmp_path_factory.mktemp("control") / "kernel", KERNEL)


def test_paused_machine_stands_still_and_goes_on(tmp_path, kernel):
    with machine(tmp_path / "api", "--kernel", kernel, "--cpus", "2") as (process, control):
        assert process.stdout.readline() == b"u\n"

        def count():
            return int.from_bytes(control.get("/vm/memory?address=0x200000&size=4"), "little")

        assert control.get("/vm")["state"] == "running"
        control.post("/vm/pause")
        assert control.get("/vm")["state"] == "paused"
        before = count()
        registers = control.get("/vm/cpus/0/registers")
        assert registers["rbx"] == "0x12345678"
        assert registers["activity"] == "running"
        assert control.get("/vm/cpus/1/registers")["activity"] == "wait-for-sipi"
        assert count() == before
        assert control.get("/vm/cpus/0/registers") == registers
        control.post("/vm/resume")
        until(lambda: count() != before)
        control.post("/vm/send-key", {"keys": "a"})
        assert process.wait(60) == 0x1e << 1 | 1


def test_configured_and_started_over_the_socket(tmp_path, kernel):
    with machine(tmp_path / "api") as (process, control):
        until(lambda: answers(tmp_path / "api"))
        assert control.get("/vm")["state"] == "empty"
        assert control.refused("POST", "/vm/start") == (409, "the VM is empty; PUT /vm/config "
                                                        "names a kernel")
        assert control.refused("POST", "/vm/pause")[0] == 409
        status, told = control.refused("PUT", "/vm/config", {"kernel": "x", "cpus": 99})
        assert status == 400 and "99 vCPUs: 1 to 64" in told
        assert control.request("PUT", "/vm/config", {
            "kernel": str(kernel), "memory_mib": 64, "test_devices": True})[0] == 204
        assert control.get("/vm")["state"] == "configured"
        control.post("/vm/start")
        assert process.stdout.readline() == b"u\n"
        shown = control.get("/vm")
        assert (shown["state"], shown["cpu_provider"]) == ("running", "soft")
        assert shown["config"]["memory_mib"] == 64
        assert control.refused("PUT", "/vm/config", {"kernel": "y"})[0] == 409
        control.post("/vm/stop")
        assert process.wait(60) == 0
    assert not (tmp_path / "api").exists()


def answers(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_bad_requests_are_told_why(tmp_path, kernel):
    with machine(tmp_path / "api", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        assert control.refused("POST", "/vm/send-key", {"keys": "any"}) == (
            400, "there is no key 'any'; letters, digits, f1 to f12 and names such as enter, esc, "
                 "ctrl, alt, shift, delete are")
        assert control.refused("POST", "/vm/send-key", {})[0] == 400
        assert control.refused("GET", "/vm/cpus/1/registers")[0] == 404
        assert control.refused("GET", "/vm/cpus/x/registers")[0] == 404
        assert control.refused("GET", "/vm/memory?address=0&size=0")[0] == 400
        assert control.refused("GET", "/vm/memory?address=0xffffffffffff0000&size=4096")[0] == 400
        assert control.refused("GET", "/vm/memory?size=1")[1].startswith("address '' is not a")
        assert control.refused("GET", "/vm/memory?address=0&size=99999999999")[0] == 400
        assert control.refused("GET", "/nowhere")[0] == 404
        assert process.poll() is None


def test_memory_is_dumped_whole(tmp_path, kernel):
    with machine(tmp_path / "api", "--kernel", kernel, "--memory", "96m") as (process, control):
        assert process.stdout.readline() == b"u\n"
        # More than a connection buffers.
        dump = control.get(f"/vm/memory?address=0x100000&size={48 << 20}")
        assert len(dump) == 48 << 20
        assert dump.startswith(b"\x02\xb0\xad\x1b")


def test_shutdown_presses_the_power_button(tmp_path):
    kernel = vm.debian_kernel()
    initrd = vm.initrd(tmp_path / "initrd.gz", """
cd /dev/input
for device in event*; do
    (/bin/busybox head -c 24 $device > /dev/null && /bin/busybox poweroff -f) &
done
echo ready
wait
""", ("button", "evdev"))
    with machine(tmp_path / "api", "--kernel", kernel, "--initrd", initrd, "--cmdline",
                 vm.CMDLINE) as (process, control):
        assert any(b"ready" in line for line in process.stdout)

        def pressed():  # again where nobody listened yet
            if process.poll() is None:
                with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                    control.post("/vm/shutdown")
            return process.poll() is not None

        until(pressed, 60)
        assert process.returncode == 0


def test_metrics_are_prometheus_text(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    initrd = vm.initrd(tmp_path / "initrd.gz", "/bin/busybox cat /dev/vda > /dev/null\n"
                       "/bin/busybox head -c 65536 /dev/zero > /dev/vdb\n/bin/busybox sync\n"
                       "echo done\n/bin/busybox sleep 1000\n", ("virtio_pci", "virtio_blk"))
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    with machine(tmp_path / "api", "--kernel", vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                 vm.CMDLINE, "--disk", disk, "--disk", other) as (process, control):
        assert any(b"done" in line for line in process.stdout)
        text = control.get("/metrics").decode()
        cpus = control.get("/vm/cpus")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(values['isle_vmm_virtio_blk_read_bytes_total{index="0"}']) >= 1 << 20
    assert int(values['isle_vmm_virtio_blk_written_bytes_total{index="1"}']) == 65536
    assert int(values['isle_vmm_virtio_blk_errors_total{index="0"}']) == 0
    assert cpus[0]["interrupts"] > 0 and cpus[0]["unimplemented"] == 0
    # Each metric once named, its samples together.
    names = re.findall(r"^# TYPE (\S+) (?:counter|gauge)$", text, re.MULTILINE)
    assert len(names) == len(set(names)) > 10
    samples = [re.match(r"[a-z0-9_]+", line)[0] for line in text.splitlines()
               if not line.startswith("#")]
    assert [name for i, name in enumerate(samples) if i == 0 or samples[i - 1] != name] == names


def test_second_socket_owner_is_refused(tmp_path, kernel):
    with machine(tmp_path / "api", "--kernel", kernel) as (process, _):
        assert process.stdout.readline() == b"u\n"
        assert (tmp_path / "api").stat().st_mode & 0o777 == 0o600
        status, _, err = vm.run("--api-socket", tmp_path / "api", "--kernel", kernel)
        assert status == 1 and "another server already listens" in err
    until(lambda: not answers(tmp_path / "api"))  # the machine goes right after its program
    # A stale one is replaced.
    assert (tmp_path / "api").exists()
    with machine(tmp_path / "api", "--kernel", kernel) as (process, control):
        assert process.stdout.readline() == b"u\n"
        assert control.get("/vm")["state"] == "running"
