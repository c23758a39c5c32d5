"""Descriptors that somebody else than the caller is sent, by crun's annotations."""
import json
import os
import select
import signal
import socket

import pytest

PIDFD, SECCOMP = "run.oci.pidfd_receiver", "run.oci.seccomp.receiver"
NOTIFY = {"defaultAction": "SCMP_ACT_ALLOW",
          "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}


class Receiver:
    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(2)
        self.socket.settimeout(10)

    def receive(self):
        connection, _ = self.socket.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
        assert len(fds) == 1
        return data, fds[0]


@pytest.fixture
def receiver(tmp_path):
    made = Receiver(tmp_path / "receiver")
    yield made
    made.socket.close()


def annotate(bundle, **annotations):
    bundle.config["annotations"] = annotations
    return bundle


def test_pidfd_is_of_the_first_process(runtime, bundle, receiver):
    annotate(bundle, **{PIDFD: receiver.path})
    id = runtime.create(bundle.set_args("sleep", "1000"))
    data, pidfd = receiver.receive()
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        assert f"\nPid:\t{runtime.pid(id)}\n" in file.read()
    assert data == b" "
    runtime.call("start", id)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    runtime.wait_status(id, "stopped")


def test_pidfd_that_nobody_takes_is_no_container(runtime, bundle, tmp_path, leaks):
    annotate(bundle, **{PIDFD: str(tmp_path / "nobody")})
    error = runtime.fails("run", "--bundle", bundle.set_args("true").write().path, runtime.new_id(),
                          code=1)
    assert PIDFD in error and str(tmp_path / "nobody") in error
    leaks.check()


@pytest.mark.parametrize("how", ["annotation", "environment", "both"])
def test_seccomp_listener(runtime, bundle, receiver, tmp_path, how):
    """The annotation outranks the environment, and both an `exec` hears of."""
    bundle.config["linux"]["seccomp"] = NOTIFY
    env = dict(os.environ)
    if how != "environment":
        annotate(bundle, **{SECCOMP: receiver.path})
    if how != "annotation":
        env["RUN_OCI_SECCOMP_RECEIVER"] = (receiver.path if how == "environment"
                                           else str(tmp_path / "nobody"))
    id = runtime.start_detached(bundle.set_args("sleep", "1000"), env=env)
    data, listener = receiver.receive()
    assert json.loads(data)["state"]["id"] == id
    assert "seccomp" in os.readlink(f"/proc/self/fd/{listener}")
    os.close(listener)
    runtime.call("exec", id, "true", env=env)
    os.close(receiver.receive()[1])


def test_seccomp_listener_of_the_profile_comes_first(runtime, bundle, receiver, tmp_path):
    bundle.config["linux"]["seccomp"] = {**NOTIFY, "listenerPath": receiver.path}
    annotate(bundle, **{SECCOMP: str(tmp_path / "nobody")})
    runtime.start_detached(bundle.set_args("sleep", "1000"))
    os.close(receiver.receive()[1])


def test_seccomp_listener_that_is_relative(runtime, bundle):
    bundle.config["linux"]["seccomp"] = NOTIFY
    annotate(bundle, **{SECCOMP: "here"})
    assert f"{SECCOMP} 'here' is not an absolute path" in runtime.fails(
        "run", "--bundle", bundle.set_args("true").write().path, runtime.new_id(), code=1)
