"""Called by a link named runc or crun, the program speaks and behaves as that one does where the two
differ."""
import json
import re
import subprocess

import pytest

from tests.lib.runtime import Runtime, find_program


@pytest.fixture
def called(tmp_path):
    """A function: a Runtime whose program has that name."""
    made = []

    def call_as(name):
        link = tmp_path / "names" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(find_program())
        made.append(Runtime(tmp_path / f"state-{name}", program=str(link)))
        return made[-1]

    yield call_as
    for runtime in made:
        runtime.cleanup()


def say(runtime, *args):
    return subprocess.run([runtime.program, *args], capture_output=True, text=True, timeout=30,
                          check=False)


def test_versions(called):
    runc = say(called("runc"), "-v").stdout.splitlines()
    assert re.fullmatch(r"runc version \d+\.\d+\.\d+", runc[0])
    assert runc[1].startswith("commit: ") and runc[2].startswith("spec: 1.")
    crun = called("crun")
    lines = say(crun, "-V").stdout.splitlines()
    assert lines == say(crun, "--version").stdout.splitlines()
    assert re.fullmatch(r"crun version \d+\.\d+\.\d+", lines[0])
    assert "rundir: /run/isle-runtime" in lines
    assert lines[-1].startswith("+SYSTEMD ") and "+SECCOMP" in lines[-1]
    assert say(called("other"), "-v").stdout.startswith("isle-runtime version ")


@pytest.mark.parametrize("name, general, of_exec", [
    ("runc", "NAME:\n   runc - Open Container Initiative runtime\n",
     "NAME:\n   runc exec - run one more process\n\n"
     "USAGE:\n   runc exec [flags] <container-id> <command> [ARG...]\n"),
    ("crun", "Usage: crun [OPTION...] COMMAND [OPTION...]\n",
     "Usage: crun [OPTION...] exec CONTAINER cmd [ARG...]\n"),
    ("isle-runtime", "isle-runtime - OCI container runtime\n",
     "Usage: isle-runtime exec [flags] ID COMMAND [ARG...]\n")])
def test_help(called, name, general, of_exec):
    runtime = called(name)
    for flag in ("--help", "-h", "help"):
        said = say(runtime, flag)
        assert said.returncode == 0 and said.stdout.startswith(general)
        assert "checkpoint" in said.stdout and "--root DIR" in said.stdout
    assert say(runtime, "exec", "--help").stdout.startswith(of_exec)


@pytest.mark.parametrize("name, words", [
    ("runc", "level=error msg=\"No help topic for 'foo'\""),
    ("crun", "crun: error: unknown command foo; see crun --help"),
    ("isle-runtime", "isle-runtime: error: unknown command foo; see isle-runtime --help")])
def test_unknown_commands(called, name, words):
    said = say(called(name), "foo", "-h")
    assert said.returncode == 1 and words in said.stderr and said.stdout == ""


@pytest.mark.parametrize("name, inherited", [("runc", "1"), ("crun", "0")])
def test_whether_exec_inherits_no_new_privileges(called, bundle, name, inherited):
    runtime = called(name)
    id = runtime.start_detached(bundle.sh("sleep 1000"))
    command = ["grep", "NoNewPrivs", "/proc/self/status"]
    assert runtime.call("exec", id, *command).stdout.split() == ["NoNewPrivs:", inherited]
    assert runtime.call("exec", "--no-new-privs", id, *command).stdout.split()[1] == "1"


@pytest.mark.parametrize("verb", ["create", "run"])
def test_status_file_of_crun(called, bundle, verb):
    """Of its state directory, programs that know crun read the standard descriptors, as text."""
    runtime = called("crun")
    bundle.sh("sleep 1000")
    id = runtime.create(bundle) if verb == "create" else runtime.start_detached(bundle)
    status = json.loads((runtime.root / id / "status").read_text())
    assert json.loads(status["external_descriptors"]) == status["descriptors"]
    assert len(status["descriptors"]) == 3
    runtime.call("update", "--pids-limit", "100", id)
    assert json.loads((runtime.root / id / "status").read_text())["external_descriptors"]
    runtime.call("delete", "--force", id)
    assert not (runtime.root / id).exists()


def test_no_such_file_under_other_names(called, bundle):
    runtime = called("runc")
    id = runtime.create(bundle)
    assert sorted(p.name for p in (runtime.root / id).iterdir()) == ["process", "start.sock",
                                                                     "state.json"]


@pytest.mark.parametrize("verb, last", [("run", "init: closing the pipe to signal completion"),
                                        ("exec", "setns_init: about to exec /bin/true")])
def test_debugging_names_the_steps(called, bundle, tmp_path, verb, last):
    steps = ["nsexec container setup", "child process in init()", last]
    runtime = called("runc")
    id = runtime.start_detached(bundle.sh("sleep 1000"))
    arguments = ["exec", id, "true"]
    if verb == "run":
        bundle.set_args("true").write()
        arguments = ["run", "--bundle", bundle.path, runtime.new_id()]
    lines = runtime.call("--debug", *arguments).stderr.splitlines()
    assert [step for line in lines for step in steps if step in line] == steps
    assert all(re.match('time="[^"]*" level=debug msg="', line) for line in lines)
    assert "debug" not in runtime.call(*arguments).stderr
    log = tmp_path / "log"
    done = runtime.call("--debug", "--log", log, "--log-format", "json", *arguments)
    assert "debug" not in done.stderr
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [step for entry in told for step in steps if step in entry["msg"]] == steps
    assert {entry["level"] for entry in told} == {"debug"}


@pytest.mark.parametrize("name, code", [("crun", 1), ("runc", 0)])
def test_state_before_it_is_created(called, bundle, tmp_path, name, code):
    """A container that is being made is none yet to crun, whose callers wait for `state` to work."""
    runtime = called(name)
    id = runtime.new_id()
    command = " ".join(map(str, runtime.command("state", id)))
    bundle.config["hooks"] = {"createRuntime": [{
        "path": "/bin/sh", "args": ["sh", "-c", f"{command} >{tmp_path}/said 2>&1; "
                                                f"echo $? >{tmp_path}/code"]}]}
    runtime.create(bundle, id=id)
    assert (tmp_path / "code").read_text() == f"{code}\n"
    assert ("does not exist" if code else "creating") in (tmp_path / "said").read_text()
    assert runtime.status(id) == "created"
