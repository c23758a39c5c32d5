"""isled and monitors killed with -9 at any moment: what runs goes on, what ended is known,
nothing half-made is visible, nothing is left behind.

Daemon.close() looks for processes, mounts, control groups and run directories that are left.
"""

import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import threading

import pytest

from tests.lib import images
from tests.lib.daemon import Daemon, mux_text, read_all, until
from tests.lib.runtime import is_alive


@pytest.fixture
def isled(tmp_path):
    with Daemon(tmp_path) as d:
        d.load_busybox()
        yield d


def monitor_of(d, name):
    """The process id of the instance's monitor."""
    id = d.inspect(name)["Id"]

    def find():
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if pathlib.Path(words[0]).name == "isle-monitor" and id in " ".join(words):
                return int(entry.name)
        return None
    return until(find, what="the monitor")


def state(d, name):
    return d.inspect(name)["State"]


def crash(d):
    """Killed, and started again."""
    d.kill()
    d.start()


def names(d):
    return {c["Names"][0].lstrip("/"): c["State"] for c in d.get("/containers/json?all=1").json}


# -- the daemon dies ------------------------------------------------------------

def test_a_running_container_goes_on(isled):
    isled.out("run", "-d", "--name", "box", "busybox", "sh", "-c",
              "i=0; while :; do echo $((i+=1)); usleep 10000; done")
    before = state(isled, "box")
    isled.kill()
    log = next(isled.root.glob("instances/*/*json.log"))
    size = log.stat().st_size
    until(lambda: log.stat().st_size > size, what="output without a daemon")
    isled.start()
    after = state(isled, "box")
    assert (after["Running"], after["Pid"], after["StartedAt"]) == (True, before["Pid"],
                                                                   before["StartedAt"])
    lines = [int(line) for line in isled.out("logs", "box").split()]
    assert lines == list(range(1, len(lines) + 1))
    assert isled.out("exec", "box", "echo", "in") == "in"
    isled.out("rm", "-f", "box")


def test_exit_and_output_are_collected_without_a_daemon(isled, tmp_path):
    (tmp_path / "go").mkdir()
    isled.out("run", "-d", "--name", "box", "-v", f"{tmp_path}/go:/go", "busybox", "sh", "-c",
              "until [ -e /go/now ]; do usleep 5000; done; echo last words; exit 41")
    pid = state(isled, "box")["Pid"]
    isled.kill()
    (tmp_path / "go/now").touch()
    until(lambda: not is_alive(pid), what="the end")
    isled.start()
    assert until(lambda: state(isled, "box")["Status"] == "exited")
    assert state(isled, "box")["ExitCode"] == 41
    assert isled.out("logs", "box") == "last words"
    isled.out("rm", "box")


def test_what_should_be_removed_at_its_end_is(isled):
    isled.out("run", "-d", "--rm", "--name", "box", "busybox", "sleep", "1000")
    pid = state(isled, "box")["Pid"]
    isled.kill()
    os.kill(pid, signal.SIGKILL)
    isled.start()
    until(lambda: names(isled) == {}, what="the removal")


def test_restart_policy_holds_over_a_crash(isled):
    isled.out("run", "-d", "--restart", "always", "--name", "box", "busybox", "sleep", "1000")
    pid = state(isled, "box")["Pid"]
    isled.kill()
    os.kill(pid, signal.SIGKILL)
    isled.start()
    until(lambda: state(isled, "box")["Running"] and state(isled, "box")["Pid"] != pid,
          what="the next run")
    isled.out("rm", "-f", "box")


def test_an_attached_session_outlives_the_daemon(isled):
    body = {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True,
            "AttachStdin": True, "AttachStdout": True}
    id = isled.post("/containers/create?name=box", body).json["Id"]
    status, _, stream, early = isled.hijack(
        f"/containers/{id}/attach?stream=1&stdin=1&stdout=1")
    assert (status, early) == (101, b"")
    assert isled.post(f"/containers/{id}/start").status == 204
    isled.kill()
    stream.sendall(b"spoken to nobody's daemon\n")
    stream.shutdown(1)
    assert mux_text(read_all(stream)) == "spoken to nobody's daemon\n"
    isled.start()
    until(lambda: state(isled, "box")["Status"] == "exited")
    assert state(isled, "box")["ExitCode"] == 0
    isled.out("rm", "box")


def test_a_paused_container_stays_paused(isled):
    isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    isled.out("pause", "box")
    crash(isled)
    assert state(isled, "box")["Status"] == "paused"
    isled.out("unpause", "box")
    assert state(isled, "box")["Status"] == "running"
    isled.out("rm", "-f", "box")


def test_after_a_boot_nothing_runs(isled):
    """The runtime directory is empty and the processes are gone."""
    isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    isled.out("run", "-d", "--restart", "always", "--name", "again", "busybox", "sleep", "1000")
    boxes = [monitor_of(isled, "box"), monitor_of(isled, "again")]
    pids = [state(isled, "box")["Pid"], state(isled, "again")["Pid"]]
    isled.kill()
    for pid in boxes + pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(is_alive(pid) for pid in boxes + pids))
    for entry in isled.run.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    isled.start()
    until(lambda: names(isled) == {"box": "exited", "again": "running"}, what="states")
    assert isled.out("start", "box") == "box"
    isled.out("rm", "-f", "box", "again")


# -- a monitor dies, or does not answer ------------------------------------------

def test_a_lost_monitor_takes_its_container_with_it(isled):
    isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    pid = state(isled, "box")["Pid"]
    os.kill(monitor_of(isled, "box"), signal.SIGKILL)
    until(lambda: state(isled, "box")["Status"] == "exited")
    assert state(isled, "box")["ExitCode"] == 137
    assert "monitor was lost" in state(isled, "box")["Error"]
    assert not is_alive(pid)
    assert isled.out("start", "box") == "box"
    isled.out("rm", "-f", "box")


def test_daemon_and_monitor_die_together(isled):
    isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    pid, monitor = state(isled, "box")["Pid"], monitor_of(isled, "box")
    isled.kill()
    os.kill(monitor, signal.SIGKILL)
    isled.start()
    until(lambda: state(isled, "box")["Status"] == "exited")
    assert not is_alive(pid)
    isled.out("rm", "box")


def test_a_stuck_monitor_delays_nobody(isled):
    isled.out("run", "-d", "--name", "stuck", "busybox", "sleep", "1000")
    isled.out("run", "-d", "--name", "fine", "busybox", "sleep", "1000")
    monitor = monitor_of(isled, "stuck")
    os.kill(monitor, signal.SIGSTOP)
    try:
        waiting = threading.Thread(target=isled.docker, args=("exec", "stuck", "true"),
                                   kwargs={"check": False})
        waiting.start()
        assert names(isled) == {"stuck": "running", "fine": "running"}
        assert isled.out("exec", "fine", "echo", "yes") == "yes"
        assert state(isled, "stuck")["Running"]
        isled.kill()
        isled.start()  # also not the start of the daemon
        assert isled.out("exec", "fine", "echo", "yes") == "yes"
    finally:
        os.kill(monitor, signal.SIGCONT)
    waiting.join()
    until(lambda: isled.docker("exec", "stuck", "true", check=False).returncode == 0)
    isled.out("rm", "-f", "stuck", "fine")


# -- killed in the middle of a verb ----------------------------------------------

def in_background(call):
    """Runs a request that will lose its daemon."""
    def quiet():
        try:
            call()
        except (OSError, ValueError):
            pass
    thread = threading.Thread(target=quiet)
    thread.start()
    return thread


def at_random_moments(d, rounds, longest_s, call, check, prepare=lambda: None):
    """Each round: prepare, call in the background, kill somewhere within, start, check."""
    dice = random.Random(20261126)
    for _ in range(rounds):
        prepare()
        thread = in_background(call)
        thread.join(dice.uniform(0, longest_s))
        crash(d)
        thread.join()
        check()


BOX = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
ROUNDS = 12


def test_killed_in_create(isled):
    def check():
        found = names(isled)
        assert found in ({}, {"box": "created"})
        if found:
            assert isled.delete("/containers/box").status == 204
        assert isled.post("/containers/create?name=box", BOX).status == 201
        assert isled.delete("/containers/box").status == 204
    at_random_moments(isled, ROUNDS, 0.01,
                      lambda: isled.post("/containers/create?name=box", BOX), check)


def test_killed_in_start(isled):
    def check():
        assert names(isled)["box"] in ("created", "running", "exited")
        assert isled.post("/containers/box/start").status in (204, 304)
        assert isled.out("exec", "box", "echo", "alive") == "alive"
        assert isled.delete("/containers/box?force=1").status == 204
    at_random_moments(isled, ROUNDS, 0.03, lambda: isled.post("/containers/box/start"), check,
                      lambda: isled.post("/containers/create?name=box", BOX))


def test_killed_in_stop(isled):
    def check():
        until(lambda: names(isled)["box"] in ("running", "exited"))
        assert isled.post("/containers/box/stop?t=0").status in (204, 304)
        assert state(isled, "box")["Status"] == "exited"
        assert isled.delete("/containers/box").status == 204
    at_random_moments(isled, ROUNDS, 0.03, lambda: isled.post("/containers/box/stop?t=0"), check,
                      lambda: isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000"))


def test_killed_in_remove(isled):
    def check():
        if names(isled):
            assert isled.delete("/containers/box?force=1").status == 204
        assert names(isled) == {}
    at_random_moments(isled, ROUNDS, 0.04, lambda: isled.delete("/containers/box?force=1"), check,
                      lambda: isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000"))


def test_killed_in_exec(isled):
    isled.out("run", "-d", "--name", "box", "busybox", "sleep", "1000")

    def enter():
        id = isled.post("/containers/box/exec", {"Cmd": ["true"], "AttachStdout": True}).json["Id"]
        isled.post(f"/exec/{id}/start", {"Detach": False})

    def check():
        assert isled.out("exec", "box", "echo", "alive") == "alive"
        until(lambda: len(isled.get("/containers/box/top").json["Processes"]) == 1,
              what="the interrupted process to end")
    at_random_moments(isled, ROUNDS, 0.03, enter, check)
    isled.out("rm", "-f", "box")


def test_killed_in_rename_and_update(isled):
    isled.post("/containers/create?name=one", BOX)

    def change():
        isled.post("/containers/one/rename?name=two")
        isled.post("/containers/two/update", {"Memory": 64 << 20, "MemorySwap": -1})

    def check():
        found = list(names(isled))
        assert found in (["one"], ["two"])
        memory = isled.inspect(found[0])["HostConfig"]["Memory"]
        assert memory in (0, 64 << 20)
        if found == ["two"]:
            assert isled.post("/containers/two/rename?name=one").status == 204
    at_random_moments(isled, ROUNDS, 0.006, change, check)
    isled.delete("/containers/one")


def test_killed_in_volume_create_and_remove(isled):
    def change():
        isled.post("/volumes/create", {"Name": "data"})
        isled.delete("/volumes/data")

    def check():
        listed = [v["Name"] for v in isled.get("/volumes").json["Volumes"] or []]
        assert listed in ([], ["data"])
        assert isled.post("/volumes/create", {"Name": "data"}).status == 201
        assert isled.out("run", "--rm", "-v", "data:/d", "busybox", "touch", "/d/x") == ""
        assert isled.delete("/volumes/data").status == 204
    at_random_moments(isled, ROUNDS, 0.006, change, check)


def test_killed_in_load(isled, tmp_path):
    """Whole or not there: an image that is listed runs, and its blobs are right."""
    archive = tmp_path / "image.tar"
    images.docker_archive(archive, ["big:latest"],
                          [images.busybox_layer(), images.random_layer("a", 4 << 20)],
                          images.BUSYBOX_CONFIG)

    def check():
        tags = [tag for i in isled.get("/images/json").json for tag in i["RepoTags"] or []]
        assert sorted(tags) in (["busybox:latest"], ["big:latest", "busybox:latest"])
        if "big:latest" in tags:
            assert isled.out("run", "--rm", "big", "echo", "whole") == "whole"
        assert isled.out("load", "-q", "-i", archive).startswith("Loaded image: big")
        assert isled.out("run", "--rm", "big", "ls", "/a") == "/a"
        assert isled.delete("/images/big:latest").status == 200
        assert list((isled.root / "content/ingest").iterdir()) == []
    at_random_moments(isled, ROUNDS, 0.08,
                      lambda: isled.docker("load", "-q", "-i", archive, check=False), check)


def test_events_and_waits_end_with_the_daemon(isled):
    """Clients that wait are told by the end of their connection, not left hanging."""
    isled.post("/containers/create?name=box", BOX)
    events = isled.stream("/events")
    wait = threading.Thread(target=isled.docker, args=("wait", "box"), kwargs={"check": False})
    wait.start()
    isled.kill()
    wait.join(20)
    assert not wait.is_alive()
    with pytest.raises(http.client.IncompleteRead):
        events.read()
    isled.start()
    assert json.loads(isled.out("inspect", "box"))[0]["State"]["Status"] == "created"
    isled.delete("/containers/box")
