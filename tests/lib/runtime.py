"""Driving isle-runtime, or any OCI runtime with the same command line, on bundles
made from Debian's static busybox.

`Runtime` knows the program and its state directory; `Bundle` is a directory with a
root file system and a config.json that tests edit as a dict. Nothing here sleeps
blindly: `wait_until` polls a condition with a deadline.
"""
import copy
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

BUSYBOX = "/bin/busybox"
TREE = Path(__file__).resolve().parents[2]
DEFAULT_TIMEOUT_S = 30

CAPS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def find_program(name="isle-runtime"):
    """The built program: $ISLE_RUNTIME, or that of $ISLE_BUILD, by default `build`."""
    if os.environ.get("ISLE_RUNTIME"):
        return os.environ["ISLE_RUNTIME"]
    found = Path(os.environ.get("ISLE_BUILD", TREE / "build")) / "src" / "bin" / name
    return str(found.resolve()) if found.exists() else None


def wait_until(condition, timeout_s=10.0, what="condition"):
    """The condition's first true value; fails when the deadline passes."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out waiting for {what}")
        time.sleep(0.005)


def is_alive(pid):
    """True for a process that exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cgroup_dir(controller, path):
    """The directory of a version 1 group given as in /proc/PID/cgroup."""
    return Path("/sys/fs/cgroup") / controller / path.lstrip("/")


def cgroups_of(pid):
    """{controller: path} of a process."""
    result = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            result[name] = path
    return result


def default_config(args=("true",)):
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "isle-test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
                         "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                            "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                              "/proc/sysrq-trigger"],
        },
    }


def make_rootfs(path):
    """A root file system with every busybox applet, in a few milliseconds."""
    path = Path(path)
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "root", "run", "var"):
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, path / "bin" / "busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n"
                                         "user:x:1000:1000::/home/user:/bin/sh\n")
    (path / "etc" / "group").write_text("root:x:0:\nuser:x:1000:\n")
    return path


class Bundle:
    def __init__(self, path, rootfs=None):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.rootfs = self.path / "rootfs"
        if not self.rootfs.exists():
            if rootfs:
                subprocess.run(["cp", "-a", str(rootfs), str(self.rootfs)], check=True)
            else:
                make_rootfs(self.rootfs)
        self.config = default_config()

    def set_args(self, *args):
        self.config["process"]["args"] = list(args)
        return self

    def sh(self, script):
        return self.set_args("sh", "-c", script)

    def namespace(self, kind, path=None, present=True):
        """Adds, replaces or removes a namespace."""
        spaces = [n for n in self.config["linux"]["namespaces"] if n["type"] != kind]
        if present:
            spaces.append({"type": kind, "path": path} if path else {"type": kind})
        self.config["linux"]["namespaces"] = spaces

    def mount(self, destination, source=None, type=None, options=()):
        entry = {"destination": destination, "options": list(options)}
        if source:
            entry["source"] = str(source)
        if type:
            entry["type"] = type
        self.config["mounts"].append(entry)

    def write(self):
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self

    def copy_config(self):
        return copy.deepcopy(self.config)


class Runtime:
    """Runs the program with its own state root; every container made through it is
    deleted by cleanup()."""

    def __init__(self, root, program=None):
        self.program = program or find_program()
        self.root = Path(root)
        self.ids = []
        self.processes = []

    def command(self, *args):
        return [self.program, "--root", str(self.root), *map(str, args)]

    def call(self, *args, check=True, input=None, timeout=DEFAULT_TIMEOUT_S, cwd=None,
             pass_fds=(), env=None, stdin=subprocess.DEVNULL):
        kwargs = {"input": input} if input is not None else {"stdin": stdin}
        done = subprocess.run(self.command(*args), capture_output=True, text=True,
                              timeout=timeout, cwd=cwd, pass_fds=pass_fds, env=env, **kwargs)
        if check and done.returncode != 0:
            raise AssertionError(f"{args} exited with {done.returncode}: {done.stderr}"
                                 f"{done.stdout}")
        return done

    def fails(self, *args, code=None, **kwargs):
        """The call must fail; gives its standard error."""
        done = self.call(*args, check=False, **kwargs)
        assert done.returncode != 0, f"{args} succeeded: {done.stdout}"
        if code is not None:
            assert done.returncode == code, f"{args} exited {done.returncode}: {done.stderr}"
        return done.stderr

    def new_id(self):
        name = "t" + uuid.uuid4().hex[:12]
        self.ids.append(name)
        return name

    def run(self, bundle, *flags, check=True, id=None, **kwargs):
        """`run` in the foreground: the finished process."""
        bundle.write()
        return self.call("run", *flags, "--bundle", bundle.path, id or self.new_id(),
                         check=check, **kwargs)

    def output(self, bundle, *flags, **kwargs):
        return self.run(bundle, *flags, **kwargs).stdout

    def start_detached(self, bundle, *flags, id=None, verb=("run",), **kwargs):
        """A running container; its standard descriptors are not ours."""
        bundle.write()
        id = id or self.new_id()
        done = subprocess.run(self.command(*verb, "--detach", *flags, "--bundle", bundle.path, id),
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL,
                              timeout=DEFAULT_TIMEOUT_S, **kwargs)
        assert done.returncode == 0
        return id

    def create(self, bundle, *flags, id=None, **kwargs):
        bundle.write()
        id = id or self.new_id()
        done = subprocess.run(self.command("create", *flags, "--bundle", bundle.path, id),
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=DEFAULT_TIMEOUT_S, **kwargs)
        assert done.returncode == 0
        return id

    def state(self, id):
        return json.loads(self.call("state", id).stdout)

    def status(self, id):
        return self.state(id)["status"]

    def pid(self, id):
        return self.state(id)["pid"]

    def wait_status(self, id, wanted, timeout_s=10):
        wait_until(lambda: self.status(id) == wanted, timeout_s, f"{id} to be {wanted}")

    def popen(self, *args, **kwargs):
        process = subprocess.Popen(self.command(*args), **kwargs)
        self.processes.append(process)
        return process

    def cleanup(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for id in self.ids:
            self.call("delete", "--force", id, check=False)


class ConsoleSocket:
    """A listening socket that receives a terminal's master, as engines have it."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(self.path)
        self.socket.listen(1)

    def receive(self, timeout_s=10):
        """(name, descriptor) of the terminal."""
        self.socket.settimeout(timeout_s)
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(timeout_s)
            name, fds, _, _ = socket.recv_fds(connection, 256, 1)
        assert len(fds) == 1
        return name.decode(), fds[0]

    def close(self):
        self.socket.close()


def read_terminal(fd, until, timeout_s=10):
    """Output of a terminal up to and with a text."""
    data = b""
    os.set_blocking(fd, False)

    def more():
        nonlocal data
        try:
            chunk = os.read(fd, 4096)
            data += chunk
        except BlockingIOError:
            pass
        except OSError:  # EIO: nobody holds the other end
            return True
        return until.encode() in data

    wait_until(more, timeout_s, f"{until!r} on the terminal, have {data!r}")
    return data.decode(errors="replace")


class Leaks:
    """What must be the same before and after: mounts, cgroups, processes, the
    state directory."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.before = self.now()

    def now(self):
        groups = set()
        for controller in ("memory", "devices", "freezer", "pids", "cpuacct", "cpu", "blkio",
                           "cpuset"):
            for directory, names, _ in os.walk(Path("/sys/fs/cgroup", controller)):
                groups.update(os.path.join(directory, n) for n in names
                              if n in self.runtime.ids)
        root = self.runtime.root
        return {
            "mounts": len([line for line in Path("/proc/self/mountinfo").read_text().splitlines()
                           if str(root.parent) in line]),
            "cgroups": groups,
            "state": set(os.listdir(root)) if root.exists() else set(),
        }

    def check(self):
        wait_until(lambda: self.now() == self.before, 10,
                   f"no leak; was {self.before}, is {self.now()}")
