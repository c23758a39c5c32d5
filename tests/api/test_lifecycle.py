"""Each verb that changes a container's state, by the stock docker CLI and raw."""

import json
import re
import time

import pytest

from tests.lib.daemon import filters, until

SLEEP = ["busybox", "sleep", "1000"]


def state(daemon, name):
    return daemon.inspect(name)["State"]["Status"]


def test_run_prints_and_passes_on_the_exit_status(daemon):
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42",
                         check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 42)


def test_run_feeds_stdin(daemon):
    done = daemon.docker("run", "--rm", "-i", "busybox", "wc", "-c", input="x" * 100_000)
    assert done.stdout.strip() == "100000"


def test_run_with_a_missing_command_is_127(daemon):
    done = daemon.docker("run", "--rm", "busybox", "no-such-command", check=False)
    assert done.returncode == 127
    assert "no-such-command" in done.stderr


def test_run_with_a_file_that_is_no_program_is_126(daemon):
    done = daemon.docker("run", "--rm", "busybox", "/etc/passwd", check=False)
    assert done.returncode == 126
    assert "/etc/passwd" in done.stderr


def test_create_start_stop(daemon):
    cid = daemon.out("create", "--name", "css", *SLEEP)
    assert re.fullmatch("[0-9a-f]{64}", cid)
    assert state(daemon, "css") == "created"
    assert daemon.out("start", "css") == "css"
    i = daemon.inspect("css")
    assert i["State"]["Running"] and i["State"]["Pid"] > 0
    assert daemon.post("/containers/css/start").status == 304
    assert daemon.out("stop", "-t", "0", "css") == "css"
    i = daemon.inspect("css")
    assert i["State"]["Status"] == "exited" and i["State"]["ExitCode"] == 137
    assert i["State"]["Pid"] == 0 and not i["State"]["FinishedAt"].startswith("0001")
    assert daemon.post("/containers/css/stop").status == 304
    assert daemon.out("rm", "css") == "css"
    assert daemon.get("/containers/css/json").status == 404


def test_stop_sends_the_stop_signal_and_waits(daemon):
    daemon.docker("run", "-d", "--name", "sig", "--stop-signal", "USR1", "busybox", "sh", "-c",
                  "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done")
    until(lambda: "ready" in daemon.out("logs", "sig"))
    daemon.docker("stop", "sig")
    assert daemon.inspect("sig")["State"]["ExitCode"] == 7
    assert "got" in daemon.out("logs", "sig")
    daemon.docker("rm", "sig")


def test_restart(daemon):
    daemon.docker("run", "-d", "--name", "re", *SLEEP)
    before = daemon.inspect("re")["State"]
    daemon.docker("restart", "-t", "0", "re")
    after = daemon.inspect("re")["State"]
    assert after["Running"] and after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]
    daemon.docker("rm", "-f", "re")


def test_kill_and_signals(daemon):
    daemon.docker("run", "-d", "--name", "kk", "busybox", "sh", "-c",
                  "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done")
    until(lambda: "ready" in daemon.out("logs", "kk"))
    daemon.docker("kill", "-s", "HUP", "kk")
    until(lambda: "hup" in daemon.out("logs", "kk"))
    assert state(daemon, "kk") == "running"
    bad = daemon.post("/containers/kk/kill?signal=NOPE")
    assert bad.status == 400 and "NOPE" in bad.message
    daemon.docker("kill", "kk")
    assert daemon.inspect("kk")["State"]["ExitCode"] == 137
    again = daemon.post("/containers/kk/kill")
    assert again.status == 409 and "is not running" in again.message
    daemon.docker("rm", "kk")


def test_pause_and_unpause(daemon):
    daemon.docker("run", "-d", "--name", "pp", "busybox", "sh", "-c",
                  "while :; do date +%s%N; sleep 0.02; done")
    daemon.docker("pause", "pp")
    assert state(daemon, "pp") == "paused"
    assert "(Paused)" in daemon.out("ps", "--filter", "name=^pp$", "--format", "{{.Status}}")
    count = len(daemon.out("logs", "pp"))
    time.sleep(0.2)
    assert len(daemon.out("logs", "pp")) == count
    assert daemon.post("/containers/pp/pause").status == 409
    assert daemon.post("/containers/pp/exec", {"Cmd": ["true"]}).status == 409
    daemon.docker("unpause", "pp")
    assert state(daemon, "pp") == "running"
    until(lambda: len(daemon.out("logs", "pp")) > count)
    assert daemon.post("/containers/pp/unpause").status == 409
    daemon.docker("rm", "-f", "pp")


def test_wait(daemon):
    daemon.docker("run", "-d", "--name", "ww", "busybox", "sh", "-c", "sleep 0.3; exit 9")
    assert daemon.out("wait", "ww") == "9"
    assert daemon.out("wait", "ww") == "9"
    assert daemon.post("/containers/ww/wait?condition=never").status == 400
    daemon.docker("rm", "ww")


def test_wait_sends_its_head_at_once(daemon):
    daemon.docker("create", "--name", "w2", "busybox", "sh", "-c", "exit 5")
    stream = daemon.stream("/containers/w2/wait?condition=next-exit", method="POST")
    assert stream.status == 200  # before it was started
    daemon.docker("start", "w2")
    assert json.loads(stream.read()) == {"StatusCode": 5}
    removed = daemon.stream("/containers/w2/wait?condition=removed", method="POST")
    assert removed.status == 200
    daemon.docker("rm", "w2")
    assert json.loads(removed.read())["StatusCode"] == 5


def test_remove(daemon):
    daemon.docker("run", "-d", "--name", "rm1", *SLEEP)
    refused = daemon.docker("rm", "rm1", check=False)
    assert refused.returncode == 1 and "running" in refused.stderr
    assert daemon.delete("/containers/rm1").status == 409
    daemon.docker("rm", "-f", "rm1")
    assert daemon.delete("/containers/rm1").status == 404


def test_rename(daemon):
    daemon.docker("create", "--name", "old-name", *SLEEP)
    daemon.docker("create", "--name", "taken", *SLEEP)
    daemon.docker("rename", "old-name", "new-name")
    assert daemon.inspect("new-name")["Name"] == "/new-name"
    assert daemon.get("/containers/old-name/json").status == 404
    reply = daemon.post("/containers/new-name/rename?name=taken")
    assert reply.status == 409 and "/taken" in reply.message
    assert daemon.post("/containers/new-name/rename?name=").status == 400
    assert daemon.post("/containers/new-name/rename?name=bad%20name").status == 400
    daemon.docker("rm", "new-name", "taken")


def test_update_changes_limits(daemon):
    daemon.docker("run", "-d", "--name", "up", "-m", "64m", *SLEEP)
    daemon.docker("update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "50",
                  "--cpus", "0.5", "--restart", "on-failure:3", "up")
    host = daemon.inspect("up")["HostConfig"]
    assert host["Memory"] == 128 << 20 and host["PidsLimit"] == 50
    assert host["NanoCpus"] == 500_000_000
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    daemon.docker("rm", "-f", "up")


def test_auto_remove(daemon):
    daemon.docker("run", "-d", "--rm", "--name", "ar", "busybox", "sh", "-c", "sleep 0.1")
    until(lambda: daemon.get("/containers/ar/json").status == 404)


def test_restart_policy(daemon):
    daemon.docker("run", "-d", "--name", "rp", "--restart", "on-failure:2", "busybox", "sh", "-c",
                  "echo run; exit 1")
    until(lambda: state(daemon, "rp") == "exited", 30)
    assert daemon.out("logs", "rp") == "run\nrun\nrun"
    assert daemon.inspect("rp")["RestartCount"] == 2
    daemon.docker("rm", "rp")


def test_prune(daemon):
    daemon.docker("create", "--name", "pr1", "--label", "keep=yes", *SLEEP)
    daemon.docker("create", "--name", "pr2", *SLEEP)
    cid = daemon.inspect("pr2")["Id"]
    out = daemon.out("container", "prune", "-f", "--filter", "label!=keep=yes")
    assert cid in out
    assert daemon.out("ps", "-a", "--format", "{{.Names}}") == "pr1"
    daemon.docker("rm", "pr1")


def test_name_in_use(daemon):
    first = daemon.out("create", "--name", "twice", *SLEEP)
    done = daemon.docker("create", "--name", "twice", *SLEEP, check=False)
    assert done.returncode == 1
    assert (f'Conflict. The container name "/twice" is already in use by container "{first}". '
            "You have to remove (or rename) that container to be able to reuse that name."
            ) in done.stderr
    run = daemon.docker("run", "--name", "twice", *SLEEP, check=False)
    assert run.returncode == 125
    assert len(daemon.get("/containers/json?all=1").json) == 1
    daemon.docker("rm", "twice")


def test_bad_names(daemon):
    for name in ("a b", "-a", "a/b", "ä", "x" * 300):
        reply = daemon.request("POST", "/containers/create?name=" +
                               "".join(f"%{b:02x}" for b in name.encode()),
                               body={"Image": "busybox"})
        assert reply.status == 400, name
        assert "Invalid container name" in reply.message


def test_no_such_container(daemon):
    for method, path in [("GET", "json"), ("POST", "start"), ("POST", "stop"), ("POST", "kill"),
                         ("POST", "pause"), ("POST", "wait"), ("GET", "logs?stdout=1"),
                         ("GET", "top"), ("GET", "stats"), ("GET", "changes"),
                         ("GET", "archive?path=/"), ("GET", "export"), ("POST", "attach")]:
        reply = daemon.request(method, f"/containers/nope/{path}")
        assert reply.status == 404 and reply.message == "No such container: nope", path
    assert daemon.post("/containers/nope/exec", {"Cmd": ["true"]}).status == 404
    assert daemon.post("/exec/nope/start", {}).status == 404


def test_ids_may_be_shortened(daemon):
    cid = daemon.out("create", *SLEEP)
    assert daemon.inspect(cid[:12])["Id"] == cid
    assert daemon.inspect(cid[:4])["Id"] == cid
    daemon.docker("rm", cid[:8])


def test_inspect_has_what_tools_read(daemon):
    daemon.docker("run", "-d", "--name", "ins", "-e", "A=1", "-w", "/tmp", "--hostname", "h1",
                  "--label", "l=v", "-m", "64m", "--cap-add", "NET_ADMIN", "--tmpfs", "/t",
                  "--network", "host", *SLEEP)
    i = daemon.inspect("ins")
    assert i["Path"] == "sleep" and i["Args"] == ["1000"]
    assert i["Config"]["Hostname"] == "h1" and "A=1" in i["Config"]["Env"]
    assert i["Config"]["Image"] == "busybox" and i["Config"]["Labels"]["l"] == "v"
    assert i["Image"].startswith("sha256:") and i["Driver"] == "overlay2"
    assert i["HostConfig"]["Memory"] == 64 << 20
    assert i["HostConfig"]["CapAdd"] == ["CAP_NET_ADMIN"] or i["HostConfig"]["CapAdd"] == ["NET_ADMIN"]
    assert list(i["NetworkSettings"]["Networks"]) == ["host"]
    assert i["State"]["Status"] == "running" and i["RestartCount"] == 0
    assert i["LogPath"] and i["Platform"] == "linux" and i["ExecIDs"] is None
    assert "SizeRw" not in i
    sized = json.loads(daemon.out("inspect", "-s", "ins"))[0]
    assert sized["SizeRootFs"] > 500_000 and sized["SizeRw"] >= 0
    daemon.docker("rm", "-f", "ins")


def names(daemon, *args):
    return sorted(daemon.out("ps", "--format", "{{.Names}}", *args).split())


def test_list_and_filters(daemon):
    daemon.docker("run", "-d", "--name", "web-1", "--label", "tier=web", *SLEEP)
    daemon.docker("create", "--name", "web-2", "--label", "tier=web", "--network", "host", *SLEEP)
    daemon.docker("run", "--name", "db-1", "--label", "tier=db", "busybox", "sh", "-c", "exit 3",
                  check=False)
    assert names(daemon) == ["web-1"]
    assert names(daemon, "-a") == ["db-1", "web-1", "web-2"]
    assert names(daemon, "-a", "-f", "label=tier=web") == ["web-1", "web-2"]
    assert names(daemon, "-a", "-f", "name=^web") == ["web-1", "web-2"]
    assert names(daemon, "-a", "-f", "name=b-1") == ["db-1", "web-1"]
    assert names(daemon, "-f", "status=created") == ["web-2"]
    assert names(daemon, "-f", "exited=3") == ["db-1"]
    assert names(daemon, "-a", "-f", "ancestor=busybox") == ["db-1", "web-1", "web-2"]
    assert names(daemon, "-a", "-f", "ancestor=other") == []
    assert names(daemon, "-a", "-f", "network=host") == ["web-2"]
    assert names(daemon, "-f", "since=web-1") == ["db-1", "web-2"]
    assert names(daemon, "-f", "before=web-2") == ["web-1"]
    assert names(daemon, "-n", "2") == ["db-1", "web-2"]
    assert names(daemon, "-l") == ["db-1"]
    assert daemon.get("/containers/json?" + filters(status=["odd"])).status == 400
    row = daemon.get("/containers/json?size=1").json[0]
    assert row["Names"] == ["/web-1"] and row["Command"] == "sleep 1000"
    assert row["Image"] == "busybox" and row["State"] == "running"
    assert row["Status"].startswith("Up ") and row["SizeRootFs"] > 500_000
    assert re.search(r"web-1\s+\S+B \(virtual \S+B\)",
                     daemon.out("ps", "-s", "--format", "table {{.Names}}\t{{.Size}}"))
    daemon.docker("rm", "-f", "web-1", "web-2", "db-1")


@pytest.mark.parametrize("count", [8])
def test_parallel_runs(daemon, count):
    import subprocess
    runs = [subprocess.Popen(daemon.docker_command("run", "--rm", "busybox", "echo", str(n)),
                             stdout=subprocess.PIPE, text=True) for n in range(count)]
    assert [r.communicate(timeout=60)[0] for r in runs] == [f"{n}\n" for n in range(count)]
    assert all(r.returncode == 0 for r in runs)
    until(lambda: daemon.get("/containers/json?all=1").json == [])
