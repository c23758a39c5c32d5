"""A daemon that is not one: it answers the Docker API as a test tells it to, so that
what `isle` does with terminals, streams and errors can be seen without containers.

    with Fake() as fake:
        fake.route("GET", "/containers/json", lambda call: call.json([]))
        fake.container(script=lambda sock: sock.sendall(frame(1, b"hello")), status=3)

Every call is noted in fake.calls as (method, path, query, headers, body).
"""

import json
import re
import socket
import struct
import tempfile
import threading
import time
import shutil
import urllib.parse

ID = "c0ffee" + "0" * 58


def frame(stream, data):
    return struct.pack(">BxxxL", stream, len(data)) + data


def until(condition, timeout=10.0, what="a condition"):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)
    return value


class Call:
    """One request, and the ways to answer it."""

    def __init__(self, sock, method, path, query, headers, body):
        self.sock = sock
        self.method, self.path, self.query = method, path, query
        self.headers, self.body = headers, body
        self.keep = True
        self.groups = ()

    def raw(self, status, headers, body=b""):
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        self.sock.sendall(head.encode() + b"\r\n" + body)

    def json(self, value, status=200):
        body = json.dumps(value).encode()
        self.raw(status, {"Content-Type": "application/json", "Content-Length": len(body)}, body)

    def empty(self, status=204):
        self.raw(status, {} if status == 204 else {"Content-Length": 0})

    def error(self, status, message):
        self.json({"message": message}, status)

    def stream(self, status=200, headers=None):
        """Begins a chunked reply; returns the function that sends a piece (b'' ends it)."""
        self.raw(status, {"Transfer-Encoding": "chunked", **(headers or {})})
        return lambda data: self.sock.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def lines(self, *records):
        send = self.stream()
        for record in records:
            send(json.dumps(record).encode() + b"\r\n")
        send(b"")

    def hijack(self):
        self.raw(101, {"Connection": "Upgrade", "Upgrade": "tcp",
                       "Content-Type": "application/vnd.docker.raw-stream"})
        self.keep = False
        return self.sock


class Fake:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="isle-fake-")
        self.path = self.directory + "/s"
        self.host = "unix://" + self.path
        self.calls = []
        self.routes = []
        self.errors = []
        self.exit = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.exit.set()
        # Closed only when nobody accepts on it: the number may be the next fake's at once.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join()
        self.listener.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert exc[0] or not self.errors, self.errors

    # -- serving ------------------------------------------------------------
    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        stream = sock.makefile("rb")
        try:
            while (call := self.read(sock, stream)) and self.answer(call) and call.keep:
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
        except Exception as e:  # the test shall see it
            self.errors.append(repr(e))
        finally:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            stream.close()
            sock.close()

    def read(self, sock, stream):
        line = stream.readline().decode()
        if not line:
            return None
        method, target, _ = line.split()
        headers = {}
        while (line := stream.readline().decode().strip()):
            key, value = line.split(":", 1)
            headers[key.lower()] = value.strip()
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while (size := int(stream.readline(), 16)):
                body += stream.read(size)
                stream.readline()
            stream.readline()
        elif "content-length" in headers:
            body = stream.read(int(headers["content-length"]))
        path, _, query = target.partition("?")
        path = re.sub(r"^/v\d+\.\d+", "", path)
        return Call(sock, method, urllib.parse.unquote(path), dict(urllib.parse.parse_qsl(query)),
                    headers, body)

    def answer(self, call):
        self.calls.append(call)
        for method, pattern, function in reversed(self.routes):
            match = re.fullmatch(pattern, call.path)
            if method == call.method and match:
                call.groups = match.groups()
                function(call)
                return True
        call.error(404, f"page not found: {call.method} {call.path}")
        return True

    def route(self, method, pattern, function):
        """The last route that matches wins."""
        self.routes.append((method, pattern, function))

    def seen(self, method, pattern):
        return [c for c in self.calls if c.method == method and re.fullmatch(pattern, c.path)]

    @property
    def order(self):
        return [c.method + " " + c.path.replace(ID, "ID") for c in self.calls]

    # -- a container ----------------------------------------------------------
    def container(self, script=None, status=0, tty=False, open_stdin=True):
        """Routes for one container. When started, `script` is run with the attached socket (by
        default: nothing), then the stream ends and the container has exited."""
        started, attached = threading.Event(), threading.Event()
        self.exited = threading.Event()

        def attach(call):
            sock = call.hijack()
            attached.set()
            assert started.wait(10), "attached but never started"
            try:
                if script:
                    script(sock)
            finally:
                self.exited.set()

        def start(call):
            call.empty()
            started.set()
            if not attached.is_set():
                self.exited.set()

        def wait(call):
            send = call.stream(headers={"Content-Type": "application/json"})
            self.exited.wait(20)
            send(json.dumps({"StatusCode": status}).encode())
            send(b"")

        self.route("POST", "/containers/create",
                   lambda call: call.json({"Id": ID, "Warnings": []}, 201))
        self.route("POST", f"/containers/{ID}/attach", attach)
        self.route("POST", f"/containers/{ID}/start", start)
        self.route("POST", f"/containers/{ID}/wait", wait)
        self.route("POST", f"/containers/{ID}/resize", lambda call: call.empty(200))
        self.route("POST", f"/containers/{ID}/kill", lambda call: call.empty())
        self.route("GET", "/containers/(web|" + ID + ")/json", lambda call: call.json({
            "Id": ID, "Config": {"Tty": tty, "OpenStdin": open_stdin},
            "State": {"Running": True}, "HostConfig": {"AutoRemove": False}}))
        started_by_hand = started
        return started_by_hand
