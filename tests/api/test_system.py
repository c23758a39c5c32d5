"""The daemon about itself: ping, negotiation, version, info, events, disk use, what is refused."""

import json
import stat
import os
import re
import time

import pytest

from tests.lib.daemon import API, filters, until


def test_ping_negotiates(daemon):
    for method in ("GET", "HEAD"):
        reply = daemon.request(method, "/_ping", version="")
        assert reply.status == 200
        assert reply.headers["Api-Version"] == API[2:]
        assert reply.headers["Ostype"] == "linux"
        assert reply.headers["Server"].startswith("Isle/")
        assert reply.body == (b"OK" if method == "GET" else b"")


@pytest.mark.parametrize("version", ["", "/v1.24", "/v1.44", "/v1.47"])
def test_accepted_versions(daemon, version):
    assert daemon.get("/containers/json", version=version).json == []


def test_versions_out_of_range_say_which_are_served(daemon):
    reply = daemon.get("/version", version="/v1.99")
    assert reply.status == 400
    assert reply.message == ("client version 1.99 is too new. Maximum supported API version is "
                             "1.47")
    reply = daemon.get("/version", version="/v1.20")
    assert reply.status == 400
    assert reply.message.startswith("client version 1.20 is too old. Minimum supported")


def test_unknown_page_and_method(daemon):
    assert daemon.get("/nothing").status == 404
    assert daemon.get("/nothing").message == "page not found"
    assert daemon.delete("/version").status == 405


def test_version(daemon):
    version = daemon.get("/version").json
    assert version["ApiVersion"] == "1.47" and version["MinAPIVersion"] == "1.24"
    assert version["Os"] == "linux" and version["KernelVersion"] == os.uname().release
    server = json.loads(daemon.out("version", "-f", "{{json .Server}}"))
    assert server["Version"] == version["Version"]
    assert re.search(r"API version:\s+1.47", daemon.out("version"))


def test_info(daemon):
    info = daemon.get("/info").json
    assert info["Images"] == 1 and info["Containers"] == 0
    assert info["NCPU"] >= 1 and info["MemTotal"] > 1 << 20
    assert info["DockerRootDir"] == str(daemon.root)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                        info["ID"])
    text = daemon.out("info")
    assert "Storage Driver: overlay2" in text and "Default Runtime: isle-runtime" in text


def test_socket_is_for_root_and_its_group_only(daemon):
    mode = os.stat(daemon.socket).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660


def test_malformed_bodies_are_400(daemon):
    headers = {"Content-Type": "application/json"}
    for path in ("/containers/create", "/volumes/create"):
        for body in ("{", "[]", "nonsense", '{"Image":1,"Name":1}', '{"a":1}x'):
            reply = daemon.post(path, body=body, headers=headers)
            assert reply.status == 400, (path, body, reply.body)
            assert reply.message


def test_bad_filters_are_named(daemon):
    for path in ("/containers/json", "/images/json", "/volumes", "/networks", "/events"):
        reply = daemon.get(f"{path}?{filters(colour=['red'])}")
        assert reply.status == 400 and "colour" in reply.message, path
        reply = daemon.get(f"{path}?filters=nonsense")
        assert reply.status == 400, path


def test_refused_with_a_way_out(daemon):
    cases = [("POST", "/build", 501, "docker load"), ("POST", "/commit", 501, "export"),
             ("GET", "/images/search?term=x", 404, "name the image"),
             ("GET", "/distribution/a/b/json", 501, "pull"),
             ("POST", "/networks/create", 501, "--network host"),
             ("GET", "/swarm", 503, "not a swarm manager"),
             ("GET", "/services", 503, "not a swarm manager")]
    for method, path, status, words in cases:
        reply = daemon.request(method, path)
        assert reply.status == status and words in reply.message, path


def test_inspect_of_nothing(daemon):
    done = daemon.docker("inspect", "nothing-here", check=False)
    assert done.returncode == 1
    assert "No such object: nothing-here" in done.stderr


def test_networks_are_none_and_host(daemon):
    names = daemon.out("network", "ls", "--format", "{{.Name}} {{.Driver}}").split("\n")
    assert names == ["host host", "none null"]
    host = json.loads(daemon.out("network", "inspect", "host"))[0]
    assert host["Name"] == "host" and host["Scope"] == "local"
    assert daemon.get("/networks/nosuch").status == 404
    done = daemon.docker("network", "create", "mine", check=False)
    assert done.returncode == 1 and "not supported yet" in done.stderr
    assert daemon.delete("/networks/host").status == 403


def test_events_since_until_and_filters(daemon):
    start = time.time()
    daemon.docker("run", "--rm", "--name", "ev", "--label", "a=b", "busybox", "sh", "-c", "exit 3",
                  check=False)
    lines = daemon.out("events", "--since", f"{start:.9f}", "--until", f"{time.time():.9f}",
                       "--filter", "container=ev", "--format", "{{json .}}").split("\n")
    events = [json.loads(line) for line in lines]
    actions = [e["Action"] for e in events]
    for action in ("create", "attach", "start", "die", "destroy"):
        assert action in actions, actions
    assert actions.index("create") < actions.index("start") < actions.index("die")
    die = events[actions.index("die")]
    assert die["Actor"]["Attributes"]["exitCode"] == "3"
    assert die["Actor"]["Attributes"]["name"] == "ev"
    assert die["Actor"]["Attributes"]["image"] == "busybox"
    assert die["Actor"]["Attributes"]["a"] == "b"
    only = daemon.out("events", "--since", f"{start:.9f}", "--until", f"{time.time():.9f}",
                      "--filter", "event=die", "--filter", "label=a=b", "--format", "{{.Action}}")
    assert only == "die"


def test_events_stream_as_they_happen(daemon):
    stream = daemon.stream("/events?" + filters(type=["volume"]))
    assert stream.status == 200
    daemon.docker("volume", "create", "ev-volume")
    record = json.loads(stream.readline())
    assert record["Type"] == "volume" and record["Action"] == "create"
    assert record["Actor"]["ID"] == "ev-volume"
    assert record["timeNano"] // 10**9 == record["time"]
    stream.isle_connection.close()
    daemon.docker("volume", "rm", "ev-volume")


def test_events_until_in_the_future_ends(daemon):
    begin = time.monotonic()
    reply = daemon.get(f"/events?until={time.time() + 0.3:.3f}")
    assert reply.status == 200 and reply.body == b""
    assert 0.2 < time.monotonic() - begin < 5


def test_disk_use(daemon):
    daemon.docker("volume", "create", "df-volume")
    daemon.docker("run", "-d", "--name", "df", "-v", "df-volume:/v", "busybox", "sh", "-c",
                  "dd if=/dev/zero of=/big bs=1k count=300 2>/dev/null; "
                  "dd if=/dev/zero of=/v/f bs=1k count=100 2>/dev/null; echo done; sleep 1000")
    until(lambda: "done" in daemon.out("logs", "df"))
    usage = daemon.get("/system/df").json
    assert len(usage["Images"]) == 1 and usage["Images"][0]["Containers"] == 1
    assert usage["LayersSize"] > 500_000
    assert usage["Containers"][0]["SizeRw"] >= 300 * 1024
    volume = [v for v in usage["Volumes"] if v["Name"] == "df-volume"][0]
    assert volume["UsageData"]["RefCount"] == 1 and volume["UsageData"]["Size"] >= 100 * 1024
    text = daemon.out("system", "df")
    assert re.search(r"Images\s+1\s+1", text) and re.search(r"Containers\s+1\s+1", text)
    assert "df-volume" in daemon.out("system", "df", "-v")
    daemon.docker("rm", "-f", "df")
    daemon.docker("volume", "rm", "df-volume")


def test_system_prune(fresh):
    d = fresh
    d.load_busybox()
    d.docker("run", "--name", "gone", "busybox", "true")
    d.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    out = d.out("system", "prune", "-f", "-a")
    assert "Deleted Containers" in out and "Total reclaimed space" in out
    assert d.out("ps", "-a", "--format", "{{.Names}}") == "stays"
    assert len(d.get("/images/json").json) == 1
    d.docker("rm", "-f", "stays")
