"""Images: pull, push, list, inspect, tag, remove, save, load, import, history, prune, verify."""

import hashlib
import io
import json
import re
import subprocess
import tarfile

import pytest

from tests.lib import images
from tests.lib.daemon import filters, until


@pytest.fixture(scope="module")
def pushed(registry):
    """Repository names in the registry -> images."""
    layers = [images.busybox_layer(), images.small_layer("second", 5000)]
    made = {"two": images.Image(layers), "docker": images.Image(layers, docker=True),
            "zstd": images.Image(layers, packing="zstd")}
    for name, image in made.items():
        image.push(registry, f"test/{name}", "1.0")
    return made


@pytest.fixture
def clean(daemon):
    yield daemon
    keep = {"busybox:latest"}
    for image in daemon.get("/images/json").json:
        for tag in set(image["RepoTags"]) - keep or [image["Id"]]:
            if not keep & set(image["RepoTags"]) or tag not in keep and tag != image["Id"]:
                daemon.delete(f"/images/{tag}?force=1")


def test_pull_run_remove(clean, registry, pushed):
    d = clean
    for name, image in pushed.items():
        reference = f"{registry.address}/test/{name}:1.0"
        out = d.out("pull", reference)
        assert f"Digest: {image.digest}" in out
        assert f"Status: Downloaded newer image for {reference}" in out
        assert out.splitlines()[-1] == reference
        again = d.out("pull", reference)
        assert f"Status: Image is up to date for {reference}" in again
        assert d.out("run", "--rm", reference, "ls", "/second") == "/second"
        info = json.loads(d.out("image", "inspect", reference))[0]
        assert info["Id"] == image.id
        assert info["RepoTags"] == [reference]
        assert info["RepoDigests"] == [f"{registry.address}/test/{name}@{image.digest}"]
        assert info["RootFS"]["Layers"] == image.config["rootfs"]["diff_ids"]
        assert info["Config"]["Cmd"] == ["sh"] and info["Architecture"] == "amd64"
        out = d.out("rmi", reference)
        assert f"Untagged: {reference}" in out and f"Deleted: {image.id}" in out


def test_pull_by_digest_and_what_is_already_there(clean, registry, pushed):
    d = clean
    by_digest = f"{registry.address}/test/two@{pushed['two'].digest}"
    d.docker("pull", by_digest)
    assert d.out("images", "-q", "--no-trunc").split().count(pushed["two"].id) == 1
    out = d.out("pull", f"{registry.address}/test/docker:1.0")
    assert "Already exists" in out  # same layers


def test_run_pulls_what_is_missing(clean, registry, pushed):
    reference = f"{registry.address}/test/two:1.0"
    reply = clean.post("/containers/create", {"Image": reference})
    assert reply.status == 404 and reply.message == f"No such image: {reference}"
    done = clean.docker("run", "--rm", reference, "echo", "hi")
    assert done.stdout == "hi\n" and f"Unable to find image '{reference}' locally" in done.stderr


def test_pull_progress_records(clean, registry):
    layers = [images.small_layer(name, 5000) for name in ("progress", "more")]
    images.Image(layers).push(registry, "test/two", "progress")
    reply = clean.post(f"/images/create?fromImage={registry.address}/test/two&tag=progress")
    assert reply.status == 200 and reply.headers["Content-Type"] == "application/json"
    statuses = [r.get("status", "") for r in reply.lines]
    assert statuses[0] == "Pulling from test/two"
    for status in ("Pulling fs layer", "Pull complete"):
        assert statuses.count(status) == 2, statuses
    for record in reply.lines:
        if record.get("progressDetail", {}).get("total"):
            assert record["id"] and record["progressDetail"]["current"] >= 0


def test_platform(clean, registry):
    layers = [images.busybox_layer()]
    images.push_index(registry, "test/multi", "1.0",
                      [images.Image(layers, architecture=a) for a in ("arm64", "amd64")])
    reference = f"{registry.address}/test/multi:1.0"
    clean.docker("pull", reference)
    assert clean.out("image", "inspect", "-f", "{{.Architecture}}", reference) == "amd64"
    clean.docker("pull", "--platform", "linux/arm64", reference)
    assert clean.out("image", "inspect", "-f", "{{.Architecture}}", reference) == "arm64"
    reply = clean.post("/containers/create?platform=linux/amd64", {"Image": reference})
    assert reply.status == 404 and "does not match the specified platform" in reply.message
    done = clean.docker("pull", "--platform", "linux/s390x", reference, check=False)
    assert done.returncode == 1 and "s390x" in done.stderr
    assert clean.post("/containers/create?platform=a/b/c/d", {"Image": reference}).status == 400


def test_tag_and_push(clean, registry):
    d = clean
    reference = f"{registry.address}/pushed/busy:v2"
    d.docker("tag", "busybox", reference)
    out = d.out("push", reference)
    digest = re.search(r"v2: digest: (sha256:[0-9a-f]{64}) size: \d+", out).group(1)
    manifest = registry.get("/v2/pushed/busy/manifests/v2")
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == digest
    records = d.post(f"/images/{registry.address}/pushed/busy/push?tag=v2",
                     headers={"X-Registry-Auth": "e30="}).lines
    assert any(r.get("aux", {}).get("Digest") == digest for r in records)
    image_id = d.out("image", "inspect", "-f", "{{.Id}}", "busybox")
    d.docker("rmi", reference)
    d.docker("pull", reference)
    assert d.out("image", "inspect", "-f", "{{.Id}}", reference) == image_id


def test_push_of_what_is_not_there(clean, registry):
    done = clean.docker("push", f"{registry.address}/none:1", check=False)
    assert done.returncode == 1
    assert "does not exist" in done.stderr or "No such image" in done.stderr


def test_list(clean):
    rows = clean.get("/images/json").json
    assert len(rows) == 1
    assert rows[0]["RepoTags"] == ["busybox:latest"] and rows[0]["Size"] > 500_000
    assert rows[0]["Created"] == 1704164645
    clean.docker("tag", "busybox", "other/name:x")
    assert clean.out("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter",
                     "reference=other/*") == "other/name:x\nbusybox:latest" or \
        "other/name:x" in clean.out("images", "--filter", "reference=other/*", "--format",
                                    "{{.Repository}}:{{.Tag}}")
    assert clean.out("images", "-q", "--filter", "reference=nothing*") == ""
    assert clean.out("images", "-q", "--filter", "label=org.isle.test=busybox")
    assert clean.out("images", "-q", "--filter", "label=none") == ""
    assert clean.out("images", "-q", "--filter", "dangling=true") == ""
    assert clean.get("/images/json?" + filters(dangling=["maybe"])).status == 400


def test_history(clean):
    entries = clean.get("/images/busybox/history").json
    assert len(entries) == 1
    assert entries[0]["CreatedBy"] == "/bin/sh -c #(nop) ADD layer 0"
    assert entries[0]["Tags"] == ["busybox:latest"] and entries[0]["Size"] > 500_000
    assert "ADD layer 0" in clean.out("history", "busybox")


def test_remove_in_use(clean):
    daemon = clean
    cid = daemon.out("create", "busybox")
    done = daemon.docker("rmi", "busybox", check=False)
    assert done.returncode == 1
    assert "conflict" in done.stderr and cid[:12] in done.stderr
    daemon.docker("tag", "busybox", "second-name")
    assert daemon.out("rmi", "second-name") == "Untagged: second-name:latest"
    daemon.docker("rm", cid)
    assert daemon.get("/images/busybox/json").status == 200


def test_missing_image_everywhere(clean):
    for method, path in [("GET", "/images/none/json"), ("GET", "/images/none/history"),
                         ("DELETE", "/images/none"), ("POST", "/images/none/tag?repo=x"),
                         ("GET", "/images/none/get"), ("GET", "/images/get?names=none"),
                         ("POST", "/isle/v1/images/verify?name=none")]:
        reply = clean.request(method, path)
        assert reply.status == 404, path
        assert "No such image: none" in reply.message, path


def test_bad_references(clean):
    for reference in ("UPPER", "a//b", "x:", "x@sha256:zz"):
        reply = clean.post("/images/busybox/tag?repo=" + reference)
        assert reply.status == 400 and "invalid" in reply.message, reference
    assert clean.post("/images/busybox/tag?repo=").status == 400
    assert clean.post("/images/create").status == 400
    assert clean.post("/images/create?fromImage=all-tags").status == 501
    reply = clean.post("/images/create?fromImage=x&tag=y", headers={"X-Registry-Auth": "%%%"})
    assert reply.status == 400 and "X-Registry-Auth" in reply.message


def test_save_and_load(clean, registry, pushed, tmp_path):
    d = clean
    reference = f"{registry.address}/test/two:1.0"
    d.docker("pull", reference)
    archive = tmp_path / "saved.tar"
    d.docker("save", "-o", str(archive), reference, "busybox")
    with tarfile.open(archive) as t:
        names = t.getnames()
        assert "manifest.json" in names and "index.json" in names and "oci-layout" in names
        manifest = json.load(t.extractfile("manifest.json"))
        assert sorted(tag for m in manifest for tag in m["RepoTags"]) == sorted(
            [reference, "busybox:latest"])
    d.docker("rmi", reference)
    out = d.out("load", "-i", str(archive))
    assert f"Loaded image: {reference}" in out and "Loaded image: busybox:latest" in out
    assert d.out("image", "inspect", "-f", "{{.Id}}", reference) == pushed["two"].id
    assert d.out("run", "--rm", reference, "cat", "/etc/group").startswith("root")


def test_save_of_a_missing_one_writes_nothing(clean, tmp_path):
    done = clean.docker("save", "-o", str(tmp_path / "x.tar"), "busybox", "none", check=False)
    assert done.returncode == 1 and "No such image: none" in done.stderr
    assert not (tmp_path / "x.tar").exists()


def test_load_of_rubbish(clean, tmp_path):
    before = clean.get("/images/json").json
    for content in (b"", b"rubbish" * 1000, images.tar_bytes({"a": b"b"})):
        reply = clean.post("/images/load", body=content)
        message = reply.message if reply.status != 200 else reply.lines[-1].get("error")
        assert message, content[:20]
    assert clean.get("/images/json").json == before


def test_import(clean, tmp_path):
    d = clean
    d.docker("create", "--name", "imp", "busybox")
    subprocess.run(" ".join(d.docker_command("export", "imp")) + f" > {tmp_path}/e.tar",
                   shell=True, check=True)
    d.docker("rm", "imp")
    image_id = d.out("import", "-c", "CMD [\"echo\", \"imported\"]", "-c", "ENV A=b", "-m", "note",
                     str(tmp_path / "e.tar"), "imported:1")
    assert re.fullmatch("sha256:[0-9a-f]{64}", image_id)
    assert d.out("run", "--rm", "imported:1") == "imported"
    assert "A=b" in json.loads(d.out("image", "inspect", "imported:1"))[0]["Config"]["Env"]
    done = d.docker("import", "http://x.invalid/a.tar", check=False)
    assert done.returncode == 1 and "download" in done.stderr


def test_dangling_and_prune(clean, tmp_path):
    d = clean
    images.docker_archive(tmp_path / "a.tar", ["moving:1"], [images.small_layer("a")], {})
    images.docker_archive(tmp_path / "b.tar", ["moving:1"], [images.small_layer("b")], {})
    d.docker("load", "-i", str(tmp_path / "a.tar"))
    first = d.out("image", "inspect", "-f", "{{.Id}}", "moving:1")
    d.docker("load", "-i", str(tmp_path / "b.tar"))
    assert d.out("images", "-q", "--no-trunc", "-f", "dangling=true") == first
    assert f"Deleted: {first}" in d.out("image", "prune", "-f").replace("deleted:", "Deleted:")
    assert d.out("image", "prune", "-f") == "Total reclaimed space: 0B"
    cid = d.out("create", "busybox")
    out = d.out("image", "prune", "-a", "-f")
    assert "moving:1" in out and "busybox" not in out
    d.docker("rm", cid)


def test_image_events(clean):
    import time
    start = time.time()
    clean.docker("tag", "busybox", "evented:1")
    clean.docker("rmi", "evented:1")
    out = clean.out("events", "--since", f"{start:.9f}", "--until", f"{time.time():.9f}",
                    "--filter", "type=image", "--format", "{{.Action}}")
    assert out.split() == ["tag", "untag"]


def test_verify(clean):
    records = clean.post("/isle/v1/images/verify?name=busybox").lines
    assert records[-1]["bad"] == 0 and records[-1]["checked"] == len(records) - 1 > 0
    assert all(r["good"] for r in records[:-1])
    assert clean.post("/isle/v1/images/gc").json["Layers"] == 0


def test_login(clean, registry, tmp_path):
    done = clean.docker("login", "-u", "u", "-p", "p", registry.address, check=False)
    assert done.returncode == 0 and "Login Succeeded" in done.stdout
