"""Debian's docker-registry on a loopback port."""

import os
import pathlib
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

from tests.lib.daemon import until


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Registry:
    """`address` is host:port. Plain HTTP, which docker's rules allow on loopback."""

    def __init__(self, directory, htpasswd=None, certificate=None, key=None):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="registry-", dir=directory))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.scheme = "https" if certificate else "http"
        auth = tls = ""
        if htpasswd:
            auth = f"auth:\n  htpasswd:\n    realm: isle-test\n    path: {htpasswd}\n"
        if certificate:
            tls = f"  tls:\n    certificate: {certificate}\n    key: {key}\n"
        config = self.directory / "config.yml"
        config.write_text(
            "version: 0.1\n"
            "log:\n  level: warn\n  accesslog:\n    disabled: true\n"
            f"storage:\n  filesystem:\n    rootdirectory: {self.directory}/data\n"
            "  delete:\n    enabled: true\n"
            f"http:\n  addr: {self.address}\n{tls}{auth}")
        self.log = open(self.directory / "log", "wb")
        env = {k: v for k, v in os.environ.items() if not k.startswith("OTEL")}
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)],
                                        stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env=env)
        until(self.ready, 20, "docker-registry answers")

    def ready(self):
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def blob_path(self, digest):
        hexadecimal = digest.split(":")[1]
        return (self.directory / "data/docker/registry/v2/blobs/sha256" / hexadecimal[:2] /
                hexadecimal / "data")

    def blobs(self):
        return sorted((self.directory / "data/docker/registry/v2/blobs/sha256").glob("*/*/data"))

    def get(self, path, accept="application/vnd.oci.image.manifest.v1+json, "
                              "application/vnd.docker.distribution.manifest.v2+json"):
        request = urllib.request.Request(f"http://{self.address}{path}",
                                         headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.read()

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
