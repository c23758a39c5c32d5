"""`make install`: what a packager gets, and that it works from where it lands."""

import json
import os
import re
import socket
import subprocess

import pytest

from tests.lib.daemon import BUILD, TREE, UnixConnection, until


def make(*words):
    done = subprocess.run(["make", "-C", TREE, f"BUILD={BUILD}", *words], text=True,
                          capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def configured_prefix():
    options = json.loads(subprocess.run(["meson", "introspect", BUILD, "--buildoptions"],
                                        check=True, capture_output=True).stdout)
    return next(option["value"] for option in options if option["name"] == "prefix")


@pytest.fixture(scope="module")
def dest(tmp_path_factory):
    """A root directory as a package of PREFIX=/usr would fill it."""
    before = configured_prefix()
    dest = tmp_path_factory.mktemp("install") / "dest"
    make("install", f"DESTDIR={dest}", "PREFIX=/usr")
    yield dest
    subprocess.run(["meson", "configure", BUILD, f"-Dprefix={before}"], check=True)
    subprocess.run(["ninja", "-C", BUILD], check=True, capture_output=True)


def test_every_file_is_where_the_system_looks(dest):
    found = sorted(str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file())
    assert found == [
        "usr/bin/isle",
        "usr/bin/isle-agent",
        "usr/bin/isle-monitor",
        "usr/bin/isle-runtime",
        "usr/bin/isle-runtime-vm",
        "usr/bin/isle-vmm",
        "usr/bin/isled",
        "usr/lib/systemd/system/isled.service",
        "usr/lib/systemd/system/isled.socket",
        "usr/lib/sysusers.d/isle.conf",
        "usr/share/bash-completion/completions/isle",
        "usr/share/fish/vendor_completions.d/isle.fish",
        "usr/share/man/man1/isle.1",
        "usr/share/man/man8/isle-monitor.8",
        "usr/share/man/man8/isle-runtime.8",
        "usr/share/man/man8/isle-vmm.8",
        "usr/share/man/man8/isled.8",
        "usr/share/zsh/site-functions/_isle",
    ]
    for name in ("isle", "isle-agent", "isle-monitor", "isle-runtime", "isle-vmm", "isled"):
        assert os.access(dest / "usr/bin" / name, os.X_OK)


@pytest.mark.parametrize("page", ["man1/isle.1", "man8/isled.8", "man8/isle-runtime.8",
                                  "man8/isle-vmm.8", "man8/isle-monitor.8"])
def test_manual_pages_format_without_warnings(dest, page):
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8",
                           dest / "usr/share/man" / page], capture_output=True, text=True,
                          env={**os.environ, "MANWIDTH": "80"})
    assert done.returncode == 0 and not done.stderr
    plain = re.sub(".\x08", "", done.stdout)  # bold is a letter struck twice
    assert {"NAME", "DESCRIPTION", "SEE ALSO"} <= set(plain.splitlines())


def test_the_manual_describes_every_option_of_isled(dest):
    page = (dest / "usr/share/man/man8/isled.8").read_text().replace("\\-", "-")
    usage = subprocess.run([dest / "usr/bin/isled", "--help"], check=True, capture_output=True,
                           text=True).stdout
    options = re.findall(r"--[a-z-]+", usage)
    assert len(options) > 10
    assert [option for option in options if option not in page] == []


def test_the_manual_describes_every_command_of_the_runtime(dest):
    page = (dest / "usr/share/man/man8/isle-runtime.8").read_text().replace("\\-", "-")
    usage = subprocess.run([dest / "usr/bin/isle-runtime", "--help"], check=True,
                           capture_output=True, text=True).stdout
    commands = re.findall(r"^  ([a-z]+) ", usage.partition("Global flags")[0], re.M)
    assert len(commands) > 15
    assert [c for c in commands if not re.search(rf"^\.BR? {c}\b|{c} \"", page, re.M)] == []


def complete(dest, *words):
    """What bash would offer for the last word."""
    script = dest / "usr/share/bash-completion/completions/isle"
    line = " ".join(["isle", *words])
    done = subprocess.run(
        ["bash", "-c", f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
                       f'COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; '
                       '_isle; printf "%s\\n" "${COMPREPLY[@]}"', "bash", "isle", *words],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{dest}/usr/bin:{os.environ['PATH']}",
             "ISLE_HOST": "unix:///nonexistent/docker.sock"})
    return done.stdout.split()


def test_bash_completes_commands_groups_options_and_files(dest, tmp_path):
    assert "run" in complete(dest, "ru")
    assert {"ls", "prune", "inspect"} <= set(complete(dest, "volume", ""))
    assert sorted(complete(dest, "run", "--memory-s")) == ["--memory-swap", "--memory-swappiness"]
    (tmp_path / "environment").write_text("")
    assert complete(dest, "run", "--env-file", f"{tmp_path}/envi") == [f"{tmp_path}/environment"]


@pytest.mark.parametrize("unit", ["isled.socket", "isled.service"])
def test_units_are_valid(dest, unit):
    """As systemd reads them; kill is not in the package, and so not under its root."""
    units = dest / "usr/lib/systemd/system"
    done = subprocess.run(["systemd-analyze", "verify", f"--root={dest}", "--man=no",
                           "--recursive-errors=no", f"/usr/lib/systemd/system/{unit}"],
                          capture_output=True, text=True)
    assert (units / unit).exists()
    complaints = [line for line in done.stderr.splitlines()
                  if "isled." in line and "/bin/kill is not executable" not in line]
    assert complaints == []


def test_installed_daemon_serves_a_socket_it_is_handed(dest, tmp_path):
    """Socket activation: descriptor 3 is the listening socket, as isled.socket gives it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("\0" + f"isle-test-{os.getpid()}")
        listener.listen()
        log = open(tmp_path / "log", "wb")
        daemon = subprocess.Popen(
            ["bash", "-c", f'exec env LISTEN_PID=$$ LISTEN_FDS=1 "$0" --root {tmp_path}/root '
                         f'--run {tmp_path}/run 3<&{listener.fileno()}', dest / "usr/bin/isled"],
            pass_fds=[listener.fileno()], stderr=log)
        try:
            connection = UnixConnection("\0" + f"isle-test-{os.getpid()}", timeout=30)
            connection.request("GET", "/version")
            assert json.load(connection.getresponse())["ApiVersion"]
            assert not (tmp_path / "run/docker.sock").exists()
        finally:
            daemon.terminate()
            assert daemon.wait(30) == 0


def test_without_activation_the_socket_is_in_the_runtime_directory(dest, tmp_path):
    run = tmp_path / "new" / "run"
    with open(tmp_path / "log", "wb") as log:
        daemon = subprocess.Popen([dest / "usr/bin/isled", "--root", tmp_path / "root",
                                   "--run", run], stderr=log)
    try:
        until((run / "docker.sock").exists, 20, "the socket")
        done = subprocess.run([dest / "usr/bin/isle", "-H", f"unix://{run}/docker.sock",
                               "version", "--format", "{{.Server.Version}}"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0
