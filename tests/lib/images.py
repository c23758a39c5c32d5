"""Small real images made here: a layer from Debian's busybox-static, packed as
`docker save` does."""

import hashlib
import io
import json
import os
import subprocess
import tarfile

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
