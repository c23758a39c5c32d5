"""A private isled for tests: own root, own run directory, own socket.

    with Daemon(tmp_path) as d:
        d.docker("run", "--rm", "busybox", "true")     # the stock docker CLI
        d.get("/containers/json")                      # raw HTTP over the socket

Programs come from $ISLE_BUILD (a meson build directory), by default `build`
beside the sources. Everything a Daemon starts is stopped by its close(): the
containers it knows first, then the daemon itself, by process id.
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ISLE_BUILD", TREE / "build")).resolve()
API = "/v1.47"


def program(name):
    """Path of a built program."""
    path = BUILD / "src" / "bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built; set ISLE_BUILD or run `make`")
    return str(path)


def until(condition, timeout=10.0, what=None):
    """Waits until condition() is true and returns its value; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


class UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Reply:
    """A finished HTTP reply."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        """The body as a stream of JSON records."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    @property
    def message(self):
        return self.json["message"]


class Daemon:
    def __init__(self, directory, args=(), env=None, start=True, root=None, prefix=()):
        self.directory = pathlib.Path(directory)
        # Socket paths end at 108 bytes; pytest's directories are long.
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="isle-run-"))
        self.root = pathlib.Path(root) if root else self.directory / "root"
        self.socket = str(self.run / "docker.sock")
        self.host = "unix://" + self.socket
        self.args = list(args)
        self.prefix = list(prefix)  # a command that runs another and becomes it
        self.env = {**os.environ, **(env or {})}
        self.log_path = self.directory / "isled.log"
        self.process = None
        if start:
            self.start()

    # -- life ---------------------------------------------------------------
    def command(self):
        return [*self.prefix, program("isled"), "--root", str(self.root), "--run", str(self.run),
                "--host", self.host, "--log-level", "debug", *self.args]

    def spawn(self):
        """Starts the program and does not wait for it to be ready."""
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, env=self.env)

    def start(self):
        self.spawn()
        until(self.ready, 20, lambda: "isled is ready")

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"isled ended with {self.process.returncode}:\n{self.log_text()}")
        try:
            return self.get("/_ping").status == 200
        except OSError:
            return False

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def signal(self, signo):
        self.process.send_signal(signo)

    def stop(self, signo=15, timeout=15):
        """Ends the daemon, not its containers. Returns the exit status."""
        if not self.process:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signo)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()
        self.process = None
        return status

    def kill(self):
        return self.stop(signal.SIGKILL)

    def restart(self, signo=15):
        self.stop(signo)
        self.start()

    def remove_containers(self):
        for c in self.get("/containers/json?all=1").json:
            self.delete(f"/containers/{c['Id']}?force=1&v=1")

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.remove_containers()
        finally:
            self.stop()
            left = self.leftovers()
            shutil.rmtree(self.run, ignore_errors=True)
            assert not left, f"left behind: {left}"

    def leftovers(self):
        """Processes, mounts and cgroups of this daemon's containers that are still there."""
        def found():
            processes, mounts = [], set()
            for entry in pathlib.Path("/proc").iterdir():
                if not entry.name.isdigit():
                    continue
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace")
                    if str(self.run) in words or f"{self.root}/" in words:
                        processes.append(words.replace("\0", " "))
                    for line in (entry / "mountinfo").read_text().splitlines():
                        if str(self.run) in line or f"{self.root}/" in line:
                            mounts.add(line)
                except OSError:
                    pass  # it has ended meanwhile
            ids = [p.name for p in (self.root / "instances").glob("*")]
            groups = [str(g) for g in pathlib.Path("/sys/fs/cgroup").glob("*/isle/*")
                      if g.name in ids]
            runs = [str(p) for d in ("instances", "execs", "runtime")
                    for p in (self.run / d).glob("*") if p.name != ".seccomp"]
            return processes + sorted(mounts) + groups + runs
        deadline = time.monotonic() + 10
        while found() and time.monotonic() < deadline:
            time.sleep(0.05)
        return found()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # -- raw HTTP -----------------------------------------------------------
    def connect(self, timeout=30):
        return UnixConnection(self.socket, timeout)

    def request(self, method, path, body=None, headers=None, timeout=30, version=API):
        """One request on its own connection; a dict or list body goes as JSON."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection = self.connect(timeout)
        try:
            connection.request(method, version + path, body=body, headers=headers)
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body=body, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)

    def stream(self, path, timeout=30, method="GET", body=None):
        """Opens a request and returns the response object to read from as it comes."""
        connection = self.connect(timeout)
        headers = {}
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        connection.request(method, API + path, body=body, headers=headers)
        reply = connection.getresponse()
        reply.isle_connection = connection  # keeps it open
        return reply

    def hijack(self, path, body=None, timeout=20):
        """POST with Connection: Upgrade. Returns (status, headers, socket, early bytes)."""
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(timeout)
        s.connect(self.socket)
        payload = b"" if body is None else json.dumps(body).encode()
        s.sendall((f"POST {API}{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                   f"Upgrade: tcp\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(payload)}\r\n\r\n").encode() + payload)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = s.recv(4096)
            if not piece:
                break
            head += piece
        head, _, early = head.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.lower(): v.strip() for k, v in (l.split(":", 1) for l in lines[1:])}
        return status, headers, s, early

    # -- the stock CLI ------------------------------------------------------
    def docker_command(self, *args):
        return ["docker", "-H", self.host, *map(str, args)]

    def docker(self, *args, check=True, input=None, timeout=60, env=None):
        """Runs the docker CLI; returns the CompletedProcess (text)."""
        done = subprocess.run(self.docker_command(*args), input=input, capture_output=True,
                              text=not isinstance(input, bytes), timeout=timeout,
                              env={**os.environ, "DOCKER_CONFIG": str(self.directory / "dockercfg"),
                                   "DOCKER_CLI_HINTS": "0", **(env or {})},
                              stdin=subprocess.DEVNULL if input is None else None)
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(map(str, args))}: status {done.returncode}\n"
                                 f"{done.stdout}\n{done.stderr}\n--- isled:\n{self.log_text()[-4000:]}")
        return done

    def isle(self, *args, check=True, timeout=60, env=None):
        """Runs our own command line; returns the CompletedProcess (text)."""
        done = subprocess.run([program("isle"), "-H", self.host, *map(str, args)],
                              capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL,
                              env={**os.environ, "ISLE_CONFIG": str(self.directory / "islecfg"),
                                   **(env or {})})
        if check and done.returncode != 0:
            raise AssertionError(f"isle {' '.join(map(str, args))}: status {done.returncode}\n"
                                 f"{done.stdout}\n{done.stderr}\n--- isled:\n{self.log_text()[-4000:]}")
        return done

    def out(self, *args, **kw):
        """Standard output of a docker command, without the last newline."""
        return self.docker(*args, **kw).stdout.rstrip("\n")

    def inspect(self, name):
        return json.loads(self.out("container", "inspect", name))[0]

    # -- images -------------------------------------------------------------
    def load_busybox(self, tag="busybox:latest"):
        from tests.lib import images  # only when needed
        path = self.directory / (re.sub(r"[^a-z0-9]", "-", tag) + ".tar")
        if not path.exists():
            images.docker_archive(path, [tag], [images.busybox_layer()],
                                  images.BUSYBOX_CONFIG)
        return self.out("load", "-q", "-i", path)


def mux(data):
    """Splits docker's multiplexed stream into (stream number, bytes) pieces."""
    pieces = []
    while data:
        assert len(data) >= 8, f"cut frame header: {data!r}"
        number, size = data[0], int.from_bytes(data[4:8], "big")
        pieces.append((number, data[8:8 + size]))
        assert len(pieces[-1][1]) == size, "cut frame"
        data = data[8 + size:]
    return pieces


def mux_text(data, number=1):
    return b"".join(piece for n, piece in mux(data) if n == number).decode()


def read_all(sock):
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def filters(**kw):
    """A `filters=` query argument."""
    return "filters=" + urllib.parse.quote(json.dumps({k: v for k, v in kw.items()}))
