"""Health checks as the stock docker CLI and the API see them: what is refused, what is the image's,
and what they leave behind. What they find is in tests/guest/test_verbs.py, for both kinds."""

import os
import time

import pytest

from tests.lib import images
from tests.lib.daemon import until
from tests.lib.runtime import is_alive


def create(daemon, health):
    return daemon.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Healthcheck": health})


@pytest.mark.parametrize("health, text", [
    ({"Interval": 999999}, "Interval in Healthcheck cannot be less than 1ms"),
    ({"Timeout": 1}, "Timeout in Healthcheck cannot be less than 1ms"),
    ({"StartPeriod": -1}, "StartPeriod in Healthcheck cannot be less than 1ms"),
    ({"StartInterval": 5}, "StartInterval in Healthcheck cannot be less than 1ms"),
    ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ({"Test": ["HTTP", "/"]}, "Healthcheck of unknown kind 'HTTP'; there are NONE, CMD and CMD-SHELL"),
    ({"Test": ["CMD"]}, "Healthcheck of kind CMD without a command"),
    ({"Test": "true"}, "Test"),
    ({"Retries": "3"}, "Retries"),
])
def test_what_makes_no_sense_is_refused(daemon, health, text):
    reply = create(daemon, health)
    assert reply.status == 400 and text in reply.message


@pytest.fixture(scope="module")
def checked(daemon):
    """An image with a HEALTHCHECK."""
    path = daemon.directory / "checked.tar"
    config = {**images.BUSYBOX_CONFIG, "Shell": ["/bin/sh", "-e", "-c"], "Healthcheck": {
        "Test": ["CMD-SHELL", "false; echo by; echo $0"], "Interval": 30_000_000, "Retries": 2}}
    images.docker_archive(path, ["checked:latest"], [images.busybox_layer()], config)
    daemon.docker("load", "-q", "-i", path)
    yield "checked"
    daemon.docker("rmi", "checked")


def health(daemon, name):
    return daemon.inspect(name)["State"].get("Health")


def test_the_check_of_an_image(daemon, checked):
    """With the image's shell; what the user says wins, part by part."""
    daemon.docker("run", "-d", "--name", "image", checked, "sleep", "1000")
    until(lambda: health(daemon, "image")["Status"] == "unhealthy", 30)
    assert health(daemon, "image")["Log"][-1]["Output"] == ""  # -e: the first command ends it
    assert "(unhealthy)" in daemon.out("ps", "--filter", "health=unhealthy", "--format", "{{.Status}}")
    daemon.docker("run", "-d", "--name", "own", "--health-cmd", "echo mine", checked, "sleep", "1000")
    until(lambda: health(daemon, "own")["Status"] == "healthy", 30)
    assert health(daemon, "own")["Log"][0]["Output"] == "mine\n"
    assert daemon.inspect("own")["Config"]["Healthcheck"] == {
        "Test": ["CMD-SHELL", "echo mine"], "Interval": 30_000_000, "Retries": 2}
    daemon.docker("run", "-d", "--name", "none", "--no-healthcheck", checked, "sleep", "1000")
    assert health(daemon, "none") is None
    assert daemon.out("ps", "-q", "--no-trunc", "--filter", "health=none") == daemon.inspect("none")["Id"]
    daemon.docker("rm", "-f", "image", "own", "none")


def test_an_image_with_a_check_of_no_kind(daemon):
    """Runs, with a warning: it is not the user's to repair."""
    path = daemon.directory / "odd.tar"
    images.docker_archive(path, ["odd:latest"], [images.busybox_layer()],
                          {**images.BUSYBOX_CONFIG, "Healthcheck": {"Test": ["HTTP", "/"]}})
    daemon.docker("load", "-q", "-i", path)
    reply = daemon.post("/containers/create?name=odd", {"Image": "odd", "Cmd": ["true"]})
    assert reply.status == 201 and "'HTTP'" in reply.json["Warnings"][0]
    daemon.docker("rm", "odd")
    daemon.docker("rmi", "odd")


def run_checked(daemon, name, test, **config):
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"],
            "Healthcheck": {"Test": test, "Interval": 20_000_000, **config}}
    reply = daemon.post(f"/containers/create?name={name}", body)
    assert reply.status == 201, reply.message
    daemon.docker("start", name)


def test_results(daemon):
    """Output is cut and made UTF-8; what cannot run has no exit code and says why."""
    run_checked(daemon, "long", ["CMD", "sh", "-c", "printf 'a\\377b'; head -c 9000 /dev/zero | tr '\\0' x"])
    until(lambda: health(daemon, "long")["Status"] == "healthy", 30)
    output = health(daemon, "long")["Log"][0]["Output"]
    assert output == "a\ufffdb" + "x" * 4093 + "..."
    run_checked(daemon, "missing", ["CMD", "no-such-program"], Retries=1)
    until(lambda: health(daemon, "missing")["Status"] == "unhealthy", 30)
    result = health(daemon, "missing")["Log"][0]
    assert result["ExitCode"] == -1 and "no-such-program" in result["Output"]
    daemon.docker("rm", "-f", "long", "missing")


def test_failures_while_it_starts_do_not_count(daemon):
    run_checked(daemon, "starts", ["CMD-SHELL", "test -e /up"], Retries=1, Interval=3600 * 10**9,
                StartPeriod=3600 * 10**9, StartInterval=20_000_000)
    until(lambda: len(health(daemon, "starts")["Log"]) == 5)
    assert health(daemon, "starts")["FailingStreak"] == 0
    assert "(health: starting)" in daemon.out("ps", "--filter", "health=starting", "--format", "{{.Status}}")
    daemon.docker("exec", "starts", "touch", "/up")
    until(lambda: health(daemon, "starts")["Status"] == "healthy", 30)
    daemon.docker("rm", "-f", "starts")


def test_a_check_ends_with_its_container(daemon):
    """Also where it is not in a pid namespace of its own, and its session's directory goes."""
    daemon.docker("run", "-d", "--name", "shared", "--pid", "host", "-v", f"{daemon.directory}:/out",
                  "--health-cmd", "echo $$ > /out/pid.new; mv /out/pid.new /out/pid; exec sleep 999",
                  "--health-interval", "20ms", "busybox", "sleep", "1000")
    pid = until(lambda: (daemon.directory / "pid").exists() and int((daemon.directory / "pid").read_text()))
    assert is_alive(pid)
    daemon.docker("stop", "-t", "0", "shared")
    until(lambda: not is_alive(pid), what="the end of the check")
    daemon.docker("rm", "shared")
    until(lambda: not os.listdir(daemon.run / "execs"))


def test_sessions_of_checks_are_not_kept(daemon):
    """Those of clients are, for a while; of these there are many."""
    begin = time.time()
    run_checked(daemon, "many", ["CMD", "true"], Interval=1_000_000)

    def sessions():
        return daemon.out("events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}",
                          "--filter", "event=exec_die", "--format",
                          '{{index .Actor.Attributes "execID"}}').split()
    until(lambda: len(sessions()) >= 5, 30)
    first = sessions()[0]
    until(lambda: daemon.get(f"/exec/{first}/json").status == 404, what="the first one to go")
    assert len(daemon.inspect("many")["ExecIDs"] or []) <= 1
    daemon.docker("rm", "-f", "many")
    until(lambda: not os.listdir(daemon.run / "execs"))
