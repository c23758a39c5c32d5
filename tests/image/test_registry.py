"""Pulling from registries that are strange, slow, broken, or want to know who asks."""

import json
import threading

import pytest

from tests.lib import images
from tests.lib.daemon import Daemon, until
from tests.lib.fake_registry import (FakeRegistry, cut_after, hold_after, make_certificate, redirect,
                                     status)


@pytest.fixture
def small():
    """An image of two layers that do not compress, of 300 kB and 200 kB."""
    return images.Image([images.random_layer("a", 300_000), images.random_layer("b", 200_000)])


def layer_digests(image):
    return [layer["digest"] for layer in image.manifest["layers"]]


def tags(d):
    return sorted(t for i in d.get("/images/json").json for t in i["RepoTags"] or [])


def blob_files(d):
    return {p.name for p in (d.root / "content/blobs/sha256").iterdir()}


def assert_nothing_came(d):
    """What a refused image leaves: no name, no layer, nothing half-made."""
    assert tags(d) == []
    assert d.get("/images/json?all=1").json == []
    assert list((d.root / "layers").iterdir()) == []
    assert list((d.root / "staging").iterdir()) == []


def pull_fails(d, reference, *words, **how):
    """One line that names the thing; status 1."""
    done = d.isle("pull", *how.pop("options", ()), reference, check=False, **how)
    assert done.returncode == 1, done.stdout + done.stderr
    text = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word.lower() in text.lower(), text
    return text


# -- who asks --------------------------------------------------------------------

def test_basic_login(isled, small):
    with FakeRegistry(auth="basic") as fake:
        reference = fake.add(small, "a", "1")
        pull_fails(isled, reference, "authentication required")
        bad = isled.isle("login", "-u", "user", "-p", "wrong", fake.address, check=False)
        assert bad.returncode == 1 and "authentication required" in bad.stderr
        assert "Login Succeeded" in isled.isle("login", "-u", "user", "-p", "secret",
                                               fake.address).stdout
        isled.isle("pull", reference)
        assert "Removing login" in isled.isle("logout", fake.address).stdout
        isled.isle("rmi", reference)
        pull_fails(isled, reference, "authentication required")


def test_token_login(isled, small):
    with FakeRegistry(auth="token") as fake:
        reference = fake.add(small, "some/where", "1")
        pull_fails(isled, reference, "who are you")
        isled.isle("login", "-u", "user", "-p", "secret", fake.address)
        fake.requests.clear()
        isled.isle("pull", reference)
        asked = fake.seen("GET", "^/token")
        assert any("scope=repository%3Asome%2Fwhere%3Apull" in r.path and
                   "service=fake%20registry" in r.path for r in asked)
        assert len(asked) <= 2  # one token serves all requests
        isled.isle("logout", fake.address)


def test_anonymous_token(isled, small):
    with FakeRegistry(auth="anonymous token") as fake:
        isled.isle("pull", fake.add(small, "a", "1"))
        assert all("Authorization" not in r.headers for r in fake.seen("GET", "^/token"))


def test_token_that_expires_is_asked_for_again(isled, small):
    with FakeRegistry(auth="anonymous token") as fake:
        reference = fake.add(small, "a", "1")

        def expire(h):
            fake.tokens.clear()
            fake.serve(h)
        fake.rule("GET", "/blobs/", expire)
        isled.isle("pull", reference)
        assert len(fake.seen("GET", "^/token")) == 2


def test_credentials_stay_with_the_registry(isled, small):
    """A redirect to another host, as to a content network, must not take them along."""
    with FakeRegistry(auth="basic") as fake, FakeRegistry() as other:
        reference = fake.add(small, "a", "1")
        other.add(small, "a", "1")
        fake.rule("GET", "/blobs/", redirect(other), times=10)
        isled.isle("login", "-u", "user", "-p", "secret", fake.address)
        isled.isle("pull", reference)
        assert len(other.seen("GET", "/blobs/")) == 3
        assert all("Authorization" not in r.headers for r in other.requests)
        isled.isle("logout", fake.address)


def test_token_server_that_talks_rubbish(isled, small, fake):
    fake.auth = "anonymous token"
    reference = fake.add(small, "a", "1")
    fake.rule("GET", "^/token", status(200, body=b"\0{nonsense"), times=10)
    pull_fails(isled, reference, "token")
    assert_nothing_came(isled)


# -- TLS ---------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificates(tmp_path_factory, network):
    return make_certificate(tmp_path_factory.mktemp("tls"), network.ADDRESS)


def secure(network, certificates):
    return FakeRegistry(network.ADDRESS, *certificates[1:], network=network.pid)


def test_certificate_of_a_stranger_is_refused(tmp_path, network, certificates, small):
    with Daemon(tmp_path, prefix=network.prefix) as d, secure(network, certificates) as fake:
        pull_fails(d, fake.add(small, "a", "1"), "certificate", "--registry-ca")
        assert fake.requests == []
        assert_nothing_came(d)


def test_certificate_of_our_authority(tmp_path, network, certificates, small):
    with Daemon(tmp_path, ["--registry-ca", str(certificates[0])], prefix=network.prefix) as d, \
            secure(network, certificates) as fake:
        d.isle("pull", fake.add(small, "a", "1"))
        assert tags(d) == [f"{fake.address}/a:1"]


def test_insecure_registry_by_https_and_by_http(tmp_path, network, certificates, small):
    with Daemon(tmp_path, ["--insecure-registry", "192.0.2.0/24"], prefix=network.prefix) as d:
        with secure(network, certificates) as fake:
            d.isle("pull", fake.add(small, "a", "1"))
        with FakeRegistry(network.ADDRESS, network=network.pid) as fake:
            d.isle("pull", fake.add(small, "a", "2"))


def test_http_is_not_spoken_to_who_is_not_named_insecure(tmp_path, network, small):
    with Daemon(tmp_path, prefix=network.prefix) as d, \
            FakeRegistry(network.ADDRESS, network=network.pid) as fake:
        pull_fails(d, fake.add(small, "a", "1"), fake.address, "--insecure-registry")
        assert fake.requests == []


# -- transfers that break -----------------------------------------------------------

def test_cut_download_goes_on_where_it_broke_off(isled, fake, small):
    reference = fake.add(small, "a", "1")
    digest = layer_digests(small)[0]
    fake.rule("GET", digest, cut_after(123_456))
    isled.isle("pull", reference)
    ranges = [r.headers.get("Range") for r in fake.seen("GET", digest)]
    assert ranges == [None, "bytes=123456-"]


def test_range_that_is_ignored(isled, fake, small):
    """Some answer 200 with all of it; the bytes that are there already are passed over."""
    reference = fake.add(small, "a", "1")
    digest = layer_digests(small)[0]
    fake.rule("GET", digest, cut_after(123_456))
    fake.rule("GET", digest, lambda h: h.answer(200, fake.blobs[digest]))
    isled.isle("pull", reference)
    isled.isle("image", "verify", reference)


@pytest.mark.parametrize("code, headers", [(500, {}), (502, {}), (503, {}),
                                           (429, {"Retry-After": "1"})])
def test_trouble_that_passes(isled, fake, small, code, headers):
    reference = fake.add(small, "a", "1")
    fake.rule("GET", "/manifests/", status(code, headers), times=2)
    fake.rule("GET", layer_digests(small)[1], status(code, headers), times=2)
    isled.isle("pull", reference)
    assert len(fake.seen("GET", layer_digests(small)[1])) == 3


def test_trouble_that_stays(isled, fake, small):
    reference = fake.add(small, "a", "1")
    digest = layer_digests(small)[1]
    fake.rule("GET", digest, status(503), times=1000)
    pull_fails(isled, reference, "503", timeout=120)
    assert tags(isled) == []
    assert len(fake.seen("GET", digest)) == 5


def test_blob_that_is_not_there(isled, fake, small):
    reference = fake.add(small, "a", "1")
    digest = layer_digests(small)[1]
    del fake.blobs[digest]
    pull_fails(isled, reference, digest)
    assert tags(isled) == []


def test_redirects_without_end(isled, fake, small):
    reference = fake.add(small, "a", "1")
    fake.rule("GET", "/blobs/", redirect(fake), times=1000)
    pull_fails(isled, reference, "redirect")
    assert len(fake.requests) < 100


def test_redirect_to_another_protocol(isled, fake, small):
    reference = fake.add(small, "a", "1")
    fake.rule("GET", "/blobs/", status(307, {"Location": "file:///etc/passwd"}), times=1000)
    pull_fails(isled, reference, "file:")
    assert_nothing_came(isled)


# -- content that is not what it should be ---------------------------------------------

@pytest.mark.parametrize("spoil", [
    pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), id="flipped"),
    pytest.param(lambda data: data[:-1000], id="shorter"),
    pytest.param(lambda data: data + b"more", id="longer"),
    pytest.param(lambda data: b"", id="empty"),
])
def test_blob_that_is_another(isled, fake, small, spoil):
    reference = fake.add(small, "a", "1")
    digest = layer_digests(small)[0]
    fake.blobs[digest] = spoil(fake.blobs[digest])
    text = pull_fails(isled, reference, digest[7:19], timeout=120)
    assert_nothing_came_of(isled, digest)
    assert "\n" not in text


def assert_nothing_came_of(d, digest):
    assert tags(d) == []
    assert digest[7:] not in blob_files(d)


def test_manifest_that_is_another(isled, fake, small):
    fake.add(small, "a", "1")
    fake.manifests["a", small.digest] = (images.OCI_MANIFEST, small.manifest_bytes + b" ")
    pull_fails(isled, f"{fake.address}/a@{small.digest}", small.digest)
    assert_nothing_came(isled)


def manifest_with(image, **changes):
    return {**image.manifest, **changes}


@pytest.mark.parametrize("name, change, words", [
    ("schema", lambda i: manifest_with(i, schemaVersion=1), ["schema"]),
    ("layers", lambda i: manifest_with(i, layers="none"), ["layers"]),
    ("digest", lambda i: manifest_with(i, layers=[{**i.manifest["layers"][0],
                                                   "digest": "sha256:../../etc/passwd"}]), ["digest"]),
    ("negative", lambda i: manifest_with(i, layers=[{**i.manifest["layers"][0], "size": -5}]),
     ["size"]),
    ("count", lambda i: manifest_with(i, layers=i.manifest["layers"][:1]), ["layers"]),
    ("kind", lambda i: manifest_with(i, layers=[{**layer, "mediaType": "text/html"}
                                                for layer in i.manifest["layers"]]), ["text/html"]),
])
def test_manifests_that_make_no_sense(isled, fake, small, name, change, words):
    fake.add(small, "a", "1")
    reference = fake.add_manifest("a", "bad", change(small))
    pull_fails(isled, reference, *words)
    assert_nothing_came(isled)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"schemaVersion":2}',
                                  b"[" * 100_000],
                         ids=["empty", "cut", "list", "binary", "no members", "deep"])
def test_manifests_that_are_none(isled, fake, data):
    pull_fails(isled, fake.add_manifest("a", "bad", data), "manifest")
    assert_nothing_came(isled)


def test_manifest_without_end(isled, fake):
    huge = b'{"schemaVersion":2,"x":"' + b"x" * (9 << 20) + b'"}'
    pull_fails(isled, fake.add_manifest("a", "huge", huge), "manifest")
    assert_nothing_came(isled)


def test_headers_without_end(isled, fake, small):
    reference = fake.add(small, "a", "1")
    fake.rule("GET", "/manifests/", status(200, {f"X-{i}": "x" * 8000 for i in range(90)}), times=99)
    pull_fails(isled, reference)
    assert_nothing_came(isled)


def test_old_manifests_are_named(isled, fake):
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    reference = fake.add_manifest("a", "old", {"schemaVersion": 1, "name": "a"}, kind)
    pull_fails(isled, reference, "schema")


def test_layer_that_is_not_what_the_configuration_says(isled, fake, small):
    image = images.Image(small.layers, rootfs={"type": "layers", "diff_ids": [
        images.digest_of(small.layers[0]), images.digest_of(b"another")]})
    pull_fails(isled, fake.add(image, "a", "1"), images.digest_of(b"another")[7:19])
    assert tags(isled) == []


def test_index_and_platforms(isled, fake):
    here = images.Image([images.small_layer("x")])
    there = images.Image([images.small_layer("y")], architecture="arm64")
    for image, tag in ((here, "x"), (there, "y")):
        fake.add(image, "a", tag)
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX,
             "manifests": [there.descriptor(), here.descriptor()]}
    reference = fake.add_manifest("a", "both", index, images.OCI_INDEX)
    isled.isle("pull", reference)
    assert json.loads(isled.isle("image", "inspect", reference).stdout)[0]["Id"] == here.id
    isled.isle("pull", "--platform", "linux/arm64", reference)
    assert json.loads(isled.isle("image", "inspect", reference).stdout)[0]["Id"] == there.id
    pull_fails(isled, reference, "linux/riscv64", options=["--platform", "linux/riscv64"])
    nested = {**index, "manifests": [{"mediaType": images.OCI_INDEX, "size": 10,
                                      "digest": images.digest_of(b"x")}]}
    pull_fails(isled, fake.add_manifest("a", "nested", nested, images.OCI_INDEX), "linux/amd64")


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
def test_packings(isled, fake, packing):
    image = images.Image([images.busybox_layer(), images.small_layer("x", 70_000)], packing=packing)
    reference = fake.add(image, "a", packing)
    isled.isle("pull", reference)
    assert isled.isle("run", "--rm", reference, "wc", "-c", "/x").stdout.split()[0] == "70000"


# -- several at once, killed in the middle, cleaned up ------------------------------------

def test_two_pulls_of_one_image_download_it_once(isled, fake, small):
    reference = fake.add(small, "a", "1")
    gate = threading.Event()
    digest = layer_digests(small)[0]

    def wait(h):
        gate.wait(30)
        fake.serve(h)
    fake.rule("GET", digest, wait)
    results = []
    pulls = [threading.Thread(target=lambda: results.append(
        isled.isle("pull", reference, check=False))) for _ in range(3)]
    for pull in pulls:
        pull.start()
    until(lambda: fake.seen("GET", digest), what="the first request")
    gate.set()
    for pull in pulls:
        pull.join()
    assert [r.stderr for r in results if r.returncode != 0] == []
    for d in layer_digests(small):
        assert len(fake.seen("GET", d)) == 1


def partial_size(d):
    return sum(p.stat().st_size for p in (d.root / "content/ingest").iterdir())


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_interrupted_pull_goes_on(fresh, fake, how):
    """No layer is fetched twice, and the one under way goes on from where it was."""
    image = images.Image([images.random_layer("a", 300_000), images.random_layer("b", 900_000)])
    reference = fake.add(image, "a", "1")
    first, second = layer_digests(image)
    ended = threading.Event()
    fake.rule("GET", second, hold_after(600_000, ended))
    pull = threading.Thread(target=fresh.isle, args=("pull", reference), kwargs={"check": False})
    pull.start()
    until(lambda: first[7:] in blob_files(fresh) and partial_size(fresh) >= 500_000,
          what="one layer and a half")
    fresh.kill() if how == "kill" else fresh.stop()
    ended.set()
    pull.join()
    fresh.start()
    assert tags(fresh) == []
    assert fresh.get("/images/json?all=1").json == []
    fake.requests.clear()
    fresh.isle("pull", reference)
    assert fake.seen("GET", first) == []
    again = fake.seen("GET", second)
    assert len(again) == 1
    start = int(again[0].headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 500_000 <= start <= 600_000
    fresh.isle("image", "verify", reference)
    assert partial_size(fresh) == 0


def test_what_an_abandoned_pull_left_can_be_removed(fresh, fake, small):
    reference = fake.add(small, "a", "1")
    first, second = layer_digests(small)

    def fail_late(h):
        until(lambda: first[7:] in blob_files(fresh), what="the first layer")
        h.answer(403)
    fake.rule("GET", second, fail_late)
    pull_fails(fresh, reference, second)
    assert first[7:] in blob_files(fresh)
    fresh.isle("image", "prune", "-f")
    assert blob_files(fresh) == set() and partial_size(fresh) == 0
    assert list((fresh.root / "layers").iterdir()) == []


def test_client_that_leaves_ends_the_pull(isled, fake, small):
    """As docker: a pull belongs to who asked for it."""
    reference = fake.add(small, "a", "1")
    digest = layer_digests(small)[0]
    ended = threading.Event()
    fake.rule("GET", digest, hold_after(1000, ended))
    stream = isled.stream(f"/images/create?fromImage={fake.address}/a&tag=1", method="POST")
    until(lambda: fake.seen("GET", digest), what="the download")
    stream.isle_connection.sock.shutdown(2)
    stream.close()
    stream.isle_connection.close()
    isled.isle("pull", reference)  # not held up by the first
    ended.set()
    assert len(fake.seen("GET", digest)) == 2


def test_verify_finds_what_has_rotted(isled, fake, small):
    reference = fake.add(small, "a", "1")
    isled.isle("pull", reference)
    assert isled.isle("image", "verify", reference).returncode == 0
    digest = layer_digests(small)[1]
    path = isled.root / "content/blobs/sha256" / digest[7:]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    bad = isled.isle("image", "verify", reference, check=False)
    assert bad.returncode == 1
    assert digest[:19] in bad.stdout + bad.stderr
    # A removal and a new pull is the way out.
    isled.isle("rmi", reference)
    isled.isle("pull", reference)
    assert isled.isle("image", "verify", reference).returncode == 0


def test_removal_leaves_nothing(isled, fake, small):
    reference = fake.add(small, "a", "1")
    isled.isle("pull", reference)
    isled.isle("rmi", reference)
    assert blob_files(isled) == set()
    for place in ("layers", "staging", "l", "content/ingest"):
        assert list((isled.root / place).iterdir()) == []


def test_names_and_tags_that_registries_must_not_choose(isled, fake, small):
    """A reference is checked before anybody is asked."""
    for bad in ("UPPER/case", "a/../b", "a//b", "x" * 300, "a:" + "t" * 200, "a@sha256:12"):
        done = isled.isle("pull", f"{fake.address}/{bad}", check=False)
        assert done.returncode in (1, 125), bad
        assert done.stderr.count("\n") == 1
    assert fake.requests == []
