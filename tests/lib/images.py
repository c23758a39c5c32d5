"""Small real images made here: a layer from Debian's busybox-static, packed as
`docker save` does or as a registry holds them."""

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import urllib.parse

import requests

BUSYBOX = "/bin/busybox"

BUSYBOX_CONFIG = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["sh"],
    "Labels": {"org.isle.test": "busybox"},
}


def tar_bytes(files):
    """A tar of {path: bytes | None (directory) | ("link", target) | ("hard", target)}; a tuple
    (mode, bytes) sets the mode."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.mtime = 1700000000
            mode = None
            if isinstance(content, tuple) and isinstance(content[0], int):
                mode, content = content
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, mode or 0o755
                tar.addfile(info)
            elif isinstance(content, tuple):
                info.type = tarfile.SYMTYPE if content[0] == "link" else tarfile.LNKTYPE
                info.linkname = content[1]
                info.mode = 0o777
                tar.addfile(info)
            else:
                info.size, info.mode = len(content), mode or 0o644
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def busybox_layer():
    with open(BUSYBOX, "rb") as f:
        binary = f.read()
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    files = {"bin": None, "bin/busybox": (0o755, binary)}
    for name in applets.stdout.split():
        if name != "busybox":
            files["bin/" + name] = ("hard", "bin/busybox")
    files.update({
        "etc": None, "proc": None, "sys": None, "dev": None, "root": (0o700, None), "var": None,
        "tmp": (0o1777, None), "home": None, "usr": None,
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
                      b"app:x:1000:1001:app:/home:/bin/sh\n",
        "etc/group": b"root:x:0:\nnogroup:x:65534:\napp:x:1001:\nextra:x:2000:app\n",
    })
    return tar_bytes(files)


def image_config(layers, config, history=None):
    return json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": config,
        "rootfs": {"type": "layers",
                   "diff_ids": ["sha256:" + hashlib.sha256(l).hexdigest() for l in layers]},
        "history": history or [{"created": "2024-01-02T03:04:05Z",
                                "created_by": f"/bin/sh -c #(nop) ADD layer {i}"}
                               for i in range(len(layers))],
    }).encode()


def docker_archive(path, tags, layers, config):
    """Writes a `docker save` archive of one image. Returns the image id."""
    blob = image_config(layers, config)
    image_id = hashlib.sha256(blob).hexdigest()
    names = []
    with tarfile.open(path, "w") as tar:
        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for layer in layers:
            name = hashlib.sha256(layer).hexdigest() + "/layer.tar"
            names.append(name)
            add(name, layer)
        add(image_id + ".json", blob)
        add("manifest.json", json.dumps([{"Config": image_id + ".json", "RepoTags": tags,
                                          "Layers": names}]).encode())
    return "sha256:" + image_id


def small_layer(name="file", size=64, seed=0):
    """A layer with one file of deterministic content."""
    content = (hashlib.sha256(f"{name}{seed}".encode()).digest() * (size // 32 + 1))[:size]
    return tar_bytes({name: content})


def random_layer(name, size_bytes):
    """A layer that does not compress."""
    return tar_bytes({name: os.urandom(size_bytes)})


# ---- images as a registry holds them ---------------------------------------

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compress(data, how):
    """`how`: "none", "gzip" or "zstd"."""
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-1", "-c"], input=data, capture_output=True,
                              check=True).stdout
    return data


class Image:
    """One platform's image: layer tars (bytes), a config, and how layers are packed.

    Everything derived can be overwritten before push() to make a broken image:
    `blobs` {digest: bytes}, `manifest` (dict), `config` (dict)."""

    def __init__(self, layers, config=None, packing="gzip", docker=False, architecture="amd64",
                 history=None, **extra):
        self.layers = layers
        self.docker = docker
        self.config = json.loads(image_config(layers, config or BUSYBOX_CONFIG, history))
        self.config["architecture"] = architecture
        self.config.update(extra)
        self.config_bytes = json.dumps(self.config).encode()
        self.blobs = {digest_of(self.config_bytes): self.config_bytes}
        suffix = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}[packing]
        descriptors = []
        for layer in layers:
            packed = compress(layer, packing)
            self.blobs[digest_of(packed)] = packed
            descriptors.append({"mediaType": DOCKER_LAYER if docker else OCI_LAYER + suffix,
                                "digest": digest_of(packed), "size": len(packed)})
        self.manifest = {
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
                       "digest": digest_of(self.config_bytes), "size": len(self.config_bytes)},
            "layers": descriptors}

    @property
    def id(self):
        return digest_of(self.config_bytes)

    @property
    def manifest_bytes(self):
        return json.dumps(self.manifest).encode()

    @property
    def digest(self):
        return digest_of(self.manifest_bytes)

    def descriptor(self):
        return {"mediaType": self.manifest["mediaType"], "digest": self.digest,
                "size": len(self.manifest_bytes),
                "platform": {"os": "linux", "architecture": self.config["architecture"]}}

    def push(self, registry, repository, tag=None, **request):
        """Uploads blobs and manifest by plain HTTP; `registry` is a tests.lib.registry.Registry
        or an URL. Returns the manifest's digest."""
        base = _base(registry)
        for digest, data in self.blobs.items():
            push_blob(base, repository, digest, data, **request)
        return push_manifest(base, repository, tag or self.digest, self.manifest_bytes,
                             self.manifest["mediaType"], **request)


def push_index(registry, repository, tag, images, docker=False, **request):
    """Uploads the images and an index of them. Returns the index's digest."""
    for image in images:
        image.push(registry, repository, **request)
    kind = DOCKER_LIST if docker else OCI_INDEX
    index = json.dumps({"schemaVersion": 2, "mediaType": kind,
                        "manifests": [image.descriptor() for image in images]}).encode()
    return push_manifest(_base(registry), repository, tag, index, kind, **request)


def _base(registry):
    return registry if isinstance(registry, str) else f"{registry.scheme}://{registry.address}"


def push_blob(base, repository, digest, data, **request):
    reply = requests.post(f"{base}/v2/{repository}/blobs/uploads/", timeout=30, **request)
    assert reply.status_code == 202, reply.text
    url = reply.headers["Location"]
    url = urllib.parse.urljoin(base, url)
    url += ("&" if "?" in url else "?") + "digest=" + digest
    reply = requests.put(url, data=data, timeout=300,
                         headers={"Content-Type": "application/octet-stream"}, **request)
    assert reply.status_code == 201, reply.text


def push_manifest(base, repository, reference, data, kind, **request):
    reply = requests.put(f"{base}/v2/{repository}/manifests/{reference}", data=data, timeout=30,
                         headers={"Content-Type": kind}, **request)
    assert reply.status_code == 201, reply.text
    return digest_of(data)


def busybox_image(**how):
    return Image([busybox_layer()], **how)


def layered_image(layers, size_bytes, files=200, seed=1, **how):
    """An image of `layers` layers on busybox, each of about `size_bytes` in `files` files of
    text that compresses about 4:1, the same for the same arguments."""
    generator = random.Random(seed)
    words = [bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9)))
             for _ in range(4000)]
    tars = [busybox_layer()]
    for number in range(layers):
        content = {f"data{number}": None}
        for index in range(files):
            size = max(1, size_bytes // files)
            text = b" ".join(generator.choices(words, k=size // 6 + 1))
            content[f"data{number}/file{index}"] = text[:size]
        tars.append(tar_bytes(content))
    return Image(tars, **how)
