"""Volumes."""

import json
import pathlib

from tests.lib.daemon import filters


def test_create_inspect_list_remove(daemon):
    assert daemon.out("volume", "create", "--label", "a=b", "v1") == "v1"
    assert daemon.out("volume", "create", "v1") == "v1"  # again is fine
    v = json.loads(daemon.out("volume", "inspect", "v1"))[0]
    assert v["Name"] == "v1" and v["Driver"] == "local" and v["Labels"] == {"a": "b"}
    assert pathlib.Path(v["Mountpoint"]).is_dir()
    daemon.docker("volume", "create", "v2")
    assert daemon.out("volume", "ls", "-q").split() == ["v1", "v2"]
    assert daemon.out("volume", "ls", "-q", "-f", "label=a=b") == "v1"
    assert daemon.out("volume", "ls", "-q", "-f", "name=2$") == "v2"
    daemon.docker("volume", "rm", "v1", "v2")
    assert not pathlib.Path(v["Mountpoint"]).exists()


def test_in_use(daemon):
    cid = daemon.out("create", "-v", "used:/v", "busybox")
    reply = daemon.delete("/volumes/used")
    assert reply.status == 409 and cid in reply.message
    assert daemon.out("volume", "ls", "-q", "-f", "dangling=true") == ""
    assert daemon.out("volume", "ls", "-q", "-f", "dangling=false") == "used"
    assert daemon.out("ps", "-aq", "--no-trunc", "-f", "volume=used") == cid
    daemon.docker("rm", cid)
    daemon.docker("volume", "rm", "used")


def test_anonymous_ones_go_with_their_container(daemon):
    cid = daemon.out("create", "-v", "/anon", "busybox")
    name = daemon.inspect(cid)["Mounts"][0]["Name"]
    assert len(name) == 64
    daemon.docker("rm", "-v", cid)
    assert daemon.get(f"/volumes/{name}").status == 404
    daemon.docker("run", "--rm", "-v", "/anon", "busybox", "true")
    assert daemon.out("volume", "ls", "-q") == ""


def test_prune_takes_unused_anonymous_ones(daemon):
    daemon.docker("volume", "create", "named")
    anonymous = daemon.out("volume", "create")
    assert anonymous in daemon.out("volume", "prune", "-f")
    assert daemon.out("volume", "ls", "-q") == "named"
    assert "named" in daemon.out("volume", "prune", "-f", "-a")


def test_bad_requests(daemon):
    assert daemon.get("/volumes/nope").status == 404
    assert daemon.delete("/volumes/nope").status == 404
    assert daemon.delete("/volumes/nope?force=1").status == 204
    for name in ("a/b", "..", "-x", "a b"):
        reply = daemon.post("/volumes/create", {"Name": name})
        assert reply.status == 400, name
    reply = daemon.post("/volumes/create", {"Name": "v", "Driver": "nfs"})
    assert reply.status in (400, 404, 501) and "nfs" in reply.message
    assert daemon.get("/volumes?" + filters(driver=["nfs"])).json["Volumes"] == []


def test_filled_from_the_image(daemon):
    out = daemon.out("run", "--rm", "-v", "filled:/etc", "busybox", "cat", "/etc/passwd")
    assert out.startswith("root:")
    daemon.docker("volume", "rm", "filled")
