"""Peers that are daemons, each started on its own directories and stopped by its id."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import frame

DOCKER = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} is not ready after {seconds} s")
        time.sleep(0.02)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def dockerd(directory=None):
    """Debian's dockerd with its containerd, in a mount and network namespace of its own with
    the unified hierarchy out of sight (its runc refuses hybrid cgroups otherwise). Yields an
    object with `host` (for docker -H) and `pids` (the daemons')."""
    frame.install("docker.io", "containerd", "runc", "iproute2")
    home = pathlib.Path(directory or tempfile.mkdtemp(prefix="isle-bench-dockerd-",
                                                      dir="/var/tmp"))
    sock = home / "docker.sock"
    script = (
        "mount --make-rprivate /; umount /sys/fs/cgroup/unified 2>/dev/null; ip link set lo up;"
        f"exec dockerd --data-root {home}/data --exec-root {home}/exec -p {home}/pid"
        f" -H unix://{sock} --storage-driver overlay2 --iptables=false --ip-masq=false"
        f" --bridge=none --log-level error"
    )
    log = open(home / "log", "w")
    process = subprocess.Popen(["unshare", "-m", "-n", "sh", "-c", script], stdout=log, stderr=log,
                               stdin=subprocess.DEVNULL)

    class Engine:
        host = f"unix://{sock}"

        @staticmethod
        def pids():
            children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            return [process.pid, *map(int, children.split())]

        @staticmethod
        def docker(*args):
            return [DOCKER, "-H", f"unix://{sock}", *args]

    try:
        wait_for(lambda: sock.exists() and subprocess.run(
            Engine.docker("version"), capture_output=True).returncode == 0,
            f"dockerd (see {home}/log)")
        yield Engine
    finally:
        stop(process)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def install_qemu():
    frame.install("qemu-system-x86")
    frame.need("qemu-system-x86_64")


def qemu_tcg(kernel, initrd, cmdline, memory_mib, *more):
    """QEMU's command for a machine like ours, on its own software processor."""
    return [shutil.which("qemu-system-x86_64"), "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot", "-m",
            str(memory_mib), "-kernel", kernel, "-initrd", initrd, "-append", cmdline, *more]


def qemu_disk(path, how="readonly=on"):
    """What gives that machine a virtio disk, /dev/vda."""
    return ["-drive", f"file={path},if=none,id=disk,format=raw,{how}",
            "-device", "virtio-blk-pci,drive=disk"]


def resident_bytes(pid):
    """Resident memory of one process, shared pages included."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


class Podman:
    """podman on a store of its own; `wrapped` hides the unified hierarchy from its runtime."""

    def __init__(self):
        frame.install("podman", "crun")
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="isle-bench-podman-", dir="/var/tmp"))
        (self.home / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        (self.home / "containers.conf").write_text(
            '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
            # Its defaults raise the limits, which needs CAP_SYS_RESOURCE.
            '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n')
        self.env = {**os.environ, "CONTAINERS_CONF": str(self.home / "containers.conf")}

    def command(self, *args):
        return ["podman", "--root", self.home / "root", "--runroot", self.home / "run",
                "--tmpdir", self.home / "tmp", "--storage-driver", "overlay", "--runtime", "crun",
                *args]

    def close(self):
        subprocess.run(list(map(str, self.command("system", "reset", "-f"))), env=self.env,
                       capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)


def enter_private_cgroups():
    """Puts this process in a mount namespace where the unified hierarchy is unmounted, which
    crun needs on a hybrid machine. Our own programs run as well there as outside."""
    if os.environ.get("ISLE_BENCH_PRIVATE") != "1":
        os.environ["ISLE_BENCH_PRIVATE"] = "1"
        script = ('mount --make-rprivate / && { umount /sys/fs/cgroup/unified 2>/dev/null || :; }'
                  ' && exec "$0" "$@"')
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", script, "/usr/bin/python3", *os.sys.argv])
