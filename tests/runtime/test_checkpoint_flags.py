"""Flags of checkpoint and restore that are CRIU's: each makes possible what fails without it."""
import os
import socket

import pytest

from tests.lib.runtime import ConsoleSocket, cgroups_of, read_terminal, wait_until
from tests.runtime.test_checkpoint import (again, counter, counts_on, dump, images, inside,
                                           restore, start)

__all__ = ["counter", "images"]  # fixtures


def refused(runtime, id, images, said, *flags):
    """Not dumped, and not harmed."""
    assert said in runtime.fails("checkpoint", "--image-path", images, *flags, id)
    assert runtime.status(id) == "running"


def test_ext_unix_sk(runtime, bundle, images, tmp_path):
    """A datagram socket whose other end belongs to the host, as /dev/log's does: in the network
    namespace of both, and by the name it has at the host, which CRIU connects to again."""
    directory = tmp_path / "logs"
    directory.mkdir()
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(directory / "log"))
    log.settimeout(10)
    bundle.namespace("network", present=False)
    bundle.mount(str(directory), directory, "bind", ["bind"])
    bundle.mount("/dev/log", directory / "log", "bind", ["bind"])
    id = start(runtime, bundle, "exec crond -f -c /tmp")
    assert b"crond" in log.recv(1000)
    refused(runtime, id, images, "ext-unix-sk")
    again(runtime, bundle, images, id, "--ext-unix-sk")
    assert "socket:" in inside(runtime, id, "ls -l /proc/1/fd")


def test_shell_job(runtime, bundle, images, tmp_path):
    """The first process of a container leads a session of its own, so that there is no job of a
    shell outside: the flag is for engines that always give it."""
    console = ConsoleSocket(tmp_path / "console")
    bundle.config["process"]["terminal"] = True
    flags = ["--console-socket", console.path]
    id = start(runtime, bundle, "while read line; do echo got $line; done", *flags)
    _, master = console.receive()
    os.write(master, b"one\n")
    read_terminal(master, "got one")
    dump(runtime, images, id, "--shell-job")
    restore(runtime, bundle, images, id, "--shell-job", *flags)
    _, master = console.receive()
    os.write(master, b"two\n")
    read_terminal(master, "got two")


def test_link_remap(runtime, bundle, images):
    """An open file that has lost this name, and has another."""
    id = start(runtime, bundle, "echo kept > /tmp/a; ln /tmp/a /tmp/b; exec 5< /tmp/a; rm /tmp/a; "
               "echo > /tmp/ready; until [ -e /tmp/go ]; do usleep 10000; done; cat <&5 > /tmp/out; "
               "sleep 1000")
    wait_until((bundle.rootfs / "tmp" / "ready").exists, what="the file to be open")
    refused(runtime, id, images, "link-remap")
    again(runtime, bundle, images, id, "--link-remap")
    inside(runtime, id, "touch /tmp/go")
    wait_until(lambda: (bundle.rootfs / "tmp" / "out").exists()
               and (bundle.rootfs / "tmp" / "out").read_text() == "kept\n", what="the content")
    assert not (bundle.rootfs / "tmp" / "a").exists()


def test_tcp_close(runtime, bundle, images):
    """The connection was dumped, and is gone after the restore."""
    id = start(runtime, bundle, "sleep 1000 | nc -l -p 99 & "
               "until netstat -tln | grep -q :99; do usleep 10000; done; "
               "sleep 1000 | nc 127.0.0.1 99; echo closed > /tmp/closed; sleep 1000")
    wait_until(lambda: "ESTABLISHED" in inside(runtime, id, "netstat -tn"), what="a connection")
    dump(runtime, images, id, "--tcp-established")
    restore(runtime, bundle, images, id, "--tcp-close")
    assert "ESTABLISHED" not in inside(runtime, id, "netstat -tn")


def test_auto_dedup_frees_what_was_restored(runtime, bundle, counter, images):
    dump(runtime, images, counter)
    pages = next(images.glob("pages-*.img"))
    assert pages.stat().st_blocks > 0
    restore(runtime, bundle, images, counter, "--auto-dedup")
    counts_on(bundle)
    assert pages.stat().st_blocks == 0


@pytest.mark.parametrize("mode", ["", "soft", "ignore"])
def test_cgroup_modes(runtime, bundle, counter, images, mode):
    groups = cgroups_of(runtime.pid(counter))
    again(runtime, bundle, images, counter, "--manage-cgroups-mode", mode)
    counts_on(bundle)
    assert cgroups_of(runtime.pid(counter)) == groups


@pytest.mark.parametrize("mode", ["full", "strict"])
def test_cgroup_modes_of_a_dump_only(runtime, bundle, counter, images, mode):
    dump(runtime, images, counter, "--manage-cgroups-mode", mode)
    assert "use soft or ignore" in runtime.fails("restore", "--image-path", images,
                                                 "--manage-cgroups-mode", mode, "--bundle",
                                                 bundle.path, counter)
    restore(runtime, bundle, images, counter)
    counts_on(bundle)


@pytest.mark.parametrize("flag", [["--lazy-pages"], ["--empty-ns", "network"]])
def test_refused_by_restore_too(runtime, bundle, counter, images, flag):
    dump(runtime, images, counter)
    error = runtime.fails("restore", "--image-path", images, *flag, "--bundle", bundle.path, counter)
    assert f"{flag[0]} is not supported" in error
    restore(runtime, bundle, images, counter)
    counts_on(bundle)
