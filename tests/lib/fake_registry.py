"""A registry that misbehaves as it is told, for what a real one does not do on demand.

    with FakeRegistry() as r:
        r.add(image, "a/b", "tag")
        r.rule("GET", "/blobs/", cut_after(1000), times=1)
        ... pull r.address + "/a/b:tag" ...
        r.seen("GET", "/blobs/")

A rule is called with the request's handler instead of the registry's own answer, as often
as `times` says. Everything else is served properly: manifests, blobs with ranges, basic
or token authorization.
"""

import base64
import ctypes
import json
import os
import re
import ssl
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.lib import images

CLONE_NEWNET = 0x40000000


class Request:
    def __init__(self, handler):
        self.method = handler.command
        self.path = handler.path
        self.headers = dict(handler.headers)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake = None

    def log_message(self, *words):
        pass

    def answer(self, status, body=b"", headers=None, length=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def serve(self):
        fake = self.fake
        with fake.lock:
            fake.requests.append(Request(self))
            rule = fake.take_rule(self.command, self.path)
        try:
            if rule:
                rule(self)
            else:
                fake.serve(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = serve


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients may go away, and TLS may fail: that is what is tested


class FakeRegistry:
    """`network` is a process id whose network namespace it listens in, at `host`."""

    def __init__(self, host="127.0.0.1", certificate=None, key=None, network=None, auth=None,
                 user=("user", "secret")):
        self.host, self.auth, self.user = host, auth, user
        self.blobs, self.manifests = {}, {}
        self.requests, self.rules = [], []
        self.tokens = {}  # token -> requests it is still good for
        self.token_length = 1000
        self.lock = threading.Lock()
        self.scheme = "https" if certificate else "http"
        handler = type("BoundHandler", (Handler,), {"fake": self})
        made = []

        def listen():
            if network:
                fd = os.open(f"/proc/{network}/ns/net", os.O_RDONLY)
                assert ctypes.CDLL(None).setns(fd, CLONE_NEWNET) == 0
                os.close(fd)
            made.append(Server((host, 0), handler))
        thread = threading.Thread(target=listen)  # only this thread changes its namespace
        thread.start()
        thread.join()
        self.server = made[0]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.address = f"{host}:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # -- content ------------------------------------------------------------
    def add(self, image, repository, tag):
        """Returns the reference to pull."""
        self.blobs.update(image.blobs)
        entry = (image.manifest["mediaType"], image.manifest_bytes)
        self.manifests[repository, tag] = self.manifests[repository, image.digest] = entry
        return f"{self.address}/{repository}:{tag}"

    def add_manifest(self, repository, reference, data, kind=images.OCI_MANIFEST):
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        self.manifests[repository, reference] = (kind, data)
        self.manifests[repository, images.digest_of(data)] = (kind, data)
        return f"{self.address}/{repository}:{reference}"

    # -- what was asked, and what is answered ---------------------------------
    def seen(self, method, pattern):
        with self.lock:
            return [r for r in self.requests if r.method == method and re.search(pattern, r.path)]

    def rule(self, method, pattern, action, times=1):
        self.rules.append([method, pattern, action, times])

    def take_rule(self, method, path):
        for rule in self.rules:
            if rule[0] == method and re.search(rule[1], path) and rule[3] > 0:
                rule[3] -= 1
                return rule[2]
        return None

    def serve(self, h):
        path, _, query = h.path.partition("?")
        if path == "/token":
            self.serve_token(h, urllib.parse.parse_qs(query))
        elif not self.admitted(h):
            pass
        elif path in ("/v2", "/v2/"):
            h.answer(200, {})
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self.serve_manifest(h, *match.groups())
        elif match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            self.serve_blob(h, match.group(2))
        else:
            h.answer(404, {"errors": [{"code": "UNSUPPORTED", "message": "no such route"}]})

    def serve_manifest(self, h, repository, reference):
        entry = self.manifests.get((repository, reference))
        if not entry:
            h.answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]})
            return
        kind, data = entry
        h.answer(200, data, {"Content-Type": kind,
                             "Docker-Content-Digest": images.digest_of(data)})

    def serve_blob(self, h, digest):
        data = self.blobs.get(digest)
        if data is None:
            h.answer(404, {"errors": [{"code": "BLOB_UNKNOWN", "message": "unknown"}]})
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", h.headers.get("Range", ""))
        if not asked:
            h.answer(200, data, {"Accept-Ranges": "bytes"})
            return
        first = int(asked[1])
        last = min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            h.answer(416)
            return
        h.answer(206, data[first:last + 1],
                 {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    # -- authorization ----------------------------------------------------------
    def knows(self, header):
        wanted = base64.b64encode(":".join(self.user).encode()).decode()
        return header == f"Basic {wanted}"

    def admitted(self, h):
        header = h.headers.get("Authorization", "")
        if not self.auth:
            return True
        if self.auth == "basic":
            if self.knows(header):
                return True
            challenge = 'Basic realm="fake"'
        else:
            token = header.removeprefix("Bearer ")
            with self.lock:
                if self.tokens.get(token, 0) > 0:
                    self.tokens[token] -= 1
                    return True
            repository = re.match(r"/v2/(.+)/(?:manifests|blobs)/", h.path)
            scope = f',scope="repository:{repository[1]}:pull"' if repository else ""
            challenge = (f'Bearer realm="{self.scheme}://{self.address}/token",'
                         f'service="fake registry"{scope}')
        h.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                 {"WWW-Authenticate": challenge})
        return False

    def serve_token(self, h, query):
        if self.auth == "token" and not self.knows(h.headers.get("Authorization", "")):
            h.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]})
            return
        token = os.urandom(8).hex()
        with self.lock:
            self.tokens[token] = self.token_length
        h.answer(200, {"token": token, "expires_in": 300, "scope": query.get("scope")})


# -- rules ---------------------------------------------------------------------

def status(code, headers=None, body=b""):
    return lambda h: h.answer(code, body, headers)


def cut_after(size):
    """The proper answer, but the connection ends after so many bytes of the body."""
    def rule(h):
        data = h.fake.blobs[h.path.rsplit("/", 1)[1]]
        h.answer(200, data[:size], length=len(data))
        h.hang_up()
    return rule


def hold_after(size, event):
    """As cut_after, but first waits for the event, with the connection open."""
    def rule(h):
        data = h.fake.blobs[h.path.rsplit("/", 1)[1]]
        h.answer(200, data[:size], length=len(data))
        h.wfile.flush()
        event.wait(60)
        h.hang_up()
    return rule


def redirect(to, code=307):
    """To another registry, which has the same blob."""
    return lambda h: h.answer(code, headers={"Location": f"{to.scheme}://{to.address}{h.path}"})


# -- a network of its own ----------------------------------------------------------

class Network:
    """A network namespace that holds one address which is not loopback; gone with close()."""

    ADDRESS = "192.0.2.1"

    def __init__(self):
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c",
             f"ip link set lo up && ip addr add {self.ADDRESS}/32 dev lo && echo up && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "up\n"
        self.pid = self.process.pid
        self.prefix = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def close(self):
        self.process.stdin.close()  # cat ends
        self.process.wait(10)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def make_certificate(directory, address):
    """A certificate authority, and a certificate of its for the IP address: (CA, certificate, key)."""
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    certificate, key, request = (directory / f"server.{kind}" for kind in ("pem", "key", "csr"))
    extensions = directory / "extensions"
    extensions.write_text(f"subjectAltName=IP:{address}\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=test CA",
            "-days", "2")
    openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=test")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
            "-out", certificate, "-days", "2", "-extfile", extensions)
    return ca, certificate, key
