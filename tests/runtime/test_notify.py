"""NOTIFY_SOCKET (sd_notify(3)): the container has a socket of its own, and its READY=1 reaches the
caller's. Busybox has no client for datagrams, so a small one is compiled."""
import os
import socket
import subprocess

import pytest

from tests.lib.runtime import is_alive, wait_until

SAY = """
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int n, char **a)
{
        struct sockaddr_un to = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof(to.sun_path) - 1);
        for (int i = 1; i < n; i++)
                if (sendto(fd, a[i], strlen(a[i]), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
                        return 1;
        return 0;
}
"""


@pytest.fixture(scope="session")
def say_program(tmp_path_factory):
    directory = tmp_path_factory.mktemp("say")
    (directory / "say.c").write_text(SAY)
    subprocess.run(["gcc", "-static", "-o", directory / "say", directory / "say.c"], check=True)
    return directory / "say"


class Caller:
    """Who waits to be told."""

    def __init__(self, directory):
        self.path = str(directory / "notify.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)
        self.env = {**os.environ, "NOTIFY_SOCKET": self.path}

    def heard(self):
        return self.socket.recv(4096).decode()

    def hears_nothing_more(self):
        self.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.socket.recv(1)


@pytest.fixture
def caller(tmp_path):
    made = Caller(tmp_path)
    yield made
    made.socket.close()


@pytest.fixture
def talking(bundle, say_program):
    (bundle.rootfs / "bin" / "say").write_bytes(say_program.read_bytes())
    (bundle.rootfs / "bin" / "say").chmod(0o755)
    return bundle


def test_the_socket_inside(runtime, bundle, caller):
    bundle.sh("echo $NOTIFY_SOCKET; ls -ld $NOTIFY_SOCKET")
    lines = runtime.run(bundle, env=caller.env).stdout.splitlines()
    assert lines[0] == caller.path + "/notify"
    assert lines[1].startswith("srw-rw-rw-")
    del caller.env["NOTIFY_SOCKET"]
    assert runtime.run(bundle, env=caller.env).stdout.splitlines()[0] == ""


@pytest.mark.parametrize("user", [0, 1000])
def test_run_passes_ready_on_and_nothing_else(runtime, talking, caller, leaks, user):
    talking.config["process"]["user"] = {"uid": user, "gid": user}
    talking.sh("say STATUS=begins MAINPID=1 && say 'STATUS=fine\nREADY=1' READY=1 && exit 7")
    done = runtime.run(talking, check=False, env=caller.env)
    assert done.returncode == 7
    assert caller.heard() == "READY=1"
    caller.hears_nothing_more()
    leaks.check()


def test_run_with_a_user_namespace(runtime, talking, caller):
    talking.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        talking.config["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    runtime.run(talking.set_args("say", "READY=1"), env=caller.env)
    assert caller.heard() == "READY=1"


def test_detached_run_returns_when_the_program_is_ready(runtime, talking, caller, tmp_path):
    os.mkfifo(talking.rootfs / "go")
    talking.sh("read x </go; say READY=1; sleep 1000").write()
    id = runtime.new_id()
    process = runtime.popen("run", "--detach", "--bundle", talking.path, id, env=caller.env,
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(lambda: runtime.call("state", id, check=False).stdout.count("running"), 10, "a start")
    assert process.poll() is None
    caller.hears_nothing_more()
    caller.socket.settimeout(10)
    (talking.rootfs / "go").write_text("\n")
    assert process.wait(timeout=10) == 0
    assert caller.heard() == "READY=1"
    assert is_alive(runtime.pid(id))


@pytest.mark.parametrize("words, ready", [(["READY=1"], True), (["STATUS=never"], False)])
def test_start_returns_when_it_is_ready_or_has_ended(runtime, talking, caller, words, ready):
    id = runtime.create(talking.set_args("say", *words), env=caller.env)
    runtime.call("start", id, env=caller.env)
    if ready:
        assert caller.heard() == "READY=1"
    caller.hears_nothing_more()


def test_a_start_that_waits_keeps_nobody_from_deleting(runtime, talking, caller, leaks):
    id = runtime.create(talking.sh("sleep 1000"), env=caller.env)
    process = runtime.popen("start", id, env=caller.env)
    runtime.wait_status(id, "running")
    runtime.call("delete", "--force", id)
    assert process.wait(timeout=10) == 0
    leaks.check()


def test_helpers_do_not_speak_for_the_runtime(runtime, bundle, caller, tmp_path):
    """A hook has the caller's environment, but was not asked to say that it is ready."""
    bundle.config["hooks"] = {"prestart": [{"path": "/bin/sh", "args": [
        "sh", "-c", f"env >{tmp_path}/env"]}]}
    runtime.run(bundle, env={**caller.env, "OTHER": "kept"})
    text = (tmp_path / "env").read_text()
    assert "OTHER=kept" in text and "NOTIFY_SOCKET" not in text


@pytest.mark.parametrize("heard", [True, False])
def test_restored_it_has_the_directory_and_nobody_waits(runtime, talking, caller, tmp_path, heard):
    """Twice, since the second dump is of what a restore made."""
    talking.config["root"]["readonly"] = False
    talking.sh("say READY=1; while :; do [ -e /again ] && [ -d ${NOTIFY_SOCKET%/notify} ] && "
               "rm /again && touch /said; done")
    id = runtime.start_detached(talking, env=caller.env)
    assert caller.heard() == "READY=1"
    env = caller.env if heard else {k: v for k, v in caller.env.items() if k != "NOTIFY_SOCKET"}
    for turn in ("first", "second"):
        images = tmp_path / turn
        runtime.call("checkpoint", "--image-path", images, id)
        id = f"{id}-{turn}"
        with open(tmp_path / "err", "w", encoding="utf-8") as errors:
            done = subprocess.run(
                runtime.command("restore", "--image-path", images, "--detach", "--bundle",
                                talking.path, id), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors, timeout=60, env=env)
        assert done.returncode == 0, (tmp_path / "err").read_text()
        (talking.rootfs / "again").touch()
        wait_until(lambda: (talking.rootfs / "said").exists(), what="the program to go on")
        (talking.rootfs / "said").unlink()
    caller.hears_nothing_more()
    runtime.call("delete", "--force", id)


@pytest.mark.parametrize("place", ["relative", ""])
def test_a_place_in_the_images_that_is_none(runtime, bundle, tmp_path, place):
    (tmp_path / "isle-notify").write_text(place)
    assert f"isle-notify: '{place}' is not an absolute path" in runtime.fails(
        "restore", "--image-path", tmp_path, "--bundle", bundle.write().path, runtime.new_id())
