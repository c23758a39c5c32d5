"""The runtime is killed, raced and lied to: nothing is left, and errors are clear."""
import contextlib
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.lib.runtime import cgroups_of, is_alive, wait_until
from tests.runtime.stops import kill_at

# Every boundary with ISLE_TEST_EXHAUSTIVE=1 (minutes); a prime stride otherwise.
STRIDE = 1 if os.environ.get("ISLE_TEST_EXHAUSTIVE") else 23
STOPS_MAX = 4000


def members_of(id):
    """Processes in any group of this name."""
    pids = []
    for path, _, _ in os.walk("/sys/fs/cgroup/freezer"):  # others' groups may go meanwhile
        if os.path.basename(path) == id:
            with contextlib.suppress(FileNotFoundError):
                pids += Path(path, "cgroup.procs").read_text().split()
    return pids


def check_known_or_free(runtime, bundle, id):
    """An id that `state` does not know can be created; one that it knows cannot."""
    if runtime.call("state", id, check=False).returncode == 0:
        error = runtime.fails("create", "--bundle", bundle.path, id)
        assert "already exists" in error
    else:
        runtime.create(bundle, id=id)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_killed_anywhere_in_create(runtime, bundle, leaks, verb):
    bundle.set_args("sleep", "1000").write()
    flags = ["--detach"] if verb == "run" else []
    id = runtime.new_id()
    for stops in range(1, STOPS_MAX, STRIDE):
        alive = kill_at(runtime.command(verb, *flags, "--bundle", bundle.path, id), stops)
        check_known_or_free(runtime, bundle, id)
        runtime.call("delete", "--force", id)
        leaks.check()
        assert members_of(id) == []
        if not alive:
            break
    else:
        pytest.fail("the program makes more system calls than expected")
    assert runtime.run(bundle.set_args("true"), id=id).returncode == 0
    leaks.check()


@pytest.mark.parametrize("verb", ["start", "delete"])
def test_killed_anywhere_in_start_and_delete(runtime, bundle, leaks, verb):
    bundle.set_args("sleep", "1000").write()
    for stops in range(1, STOPS_MAX, STRIDE):
        id = runtime.create(bundle)
        pid = runtime.pid(id)
        alive = kill_at(runtime.command(verb, id), stops)
        check_known_or_free(runtime, bundle, id)
        runtime.call("delete", "--force", id)
        assert not is_alive(pid)
        leaks.check()
        if not alive:
            break
    else:
        pytest.fail("the program makes more system calls than expected")


@pytest.mark.parametrize("hierarchy,file,flag,value", [
    ("cpu", "cpu.shares", "--cpu-share", "512"), ("cpuset", "cpuset.cpus", "--cpuset-cpus", "0")])
def test_killed_anywhere_in_update(runtime, bundle, leaks, hierarchy, file, flag, value):
    """That joins a hierarchy: the next update finishes what it began, delete knows of it."""
    bundle.set_args("sleep", "1000").write()
    for stops in range(1, STOPS_MAX, STRIDE):
        id = runtime.start_detached(bundle)
        alive = kill_at(runtime.command("update", flag, value, id), stops)
        if stops % 2:
            runtime.call("update", flag, value, id)
            group = Path(f"/sys/fs/cgroup/{hierarchy}{cgroups_of(runtime.pid(id))[hierarchy]}")
            assert (group.name, (group / file).read_text().strip()) == (id, value)
        runtime.call("delete", "--force", id)
        leaks.check()
        if not alive:
            break
    else:
        pytest.fail("the program makes more system calls than expected")


@pytest.mark.parametrize("content", [[], ["start.sock"], ["vm"]])
def test_directory_without_a_record_is_no_container(runtime, bundle, leaks, content):
    """What a create killed before its record leaves, and a delete killed after it."""
    id = runtime.new_id()
    (runtime.root / id).mkdir(parents=True)
    for name in content:
        (runtime.root / id / name).mkdir()
    assert "container does not exist" in runtime.fails("state", id)
    assert "container does not exist" in runtime.fails("delete", id)
    assert id not in runtime.call("list").stdout
    runtime.create(bundle.set_args("sleep", "1000"), id=id)
    assert runtime.status(id) == "created"
    assert "already exists" in runtime.fails("create", "--bundle", bundle.path, id)
    runtime.call("delete", "--force", id)
    leaks.check()


def test_child_ends_with_a_killed_runtime(runtime, bundle, leaks, tmp_path):
    """Between clone and the last word of the parent the child must not live on."""
    started = tmp_path / "started"
    bundle.config["hooks"] = {"createContainer": [{
        "path": "/bin/sh", "args": ["sh", "-c", f"echo $PPID > {started}; exec sleep 1"]}]}
    bundle.write()
    id = runtime.new_id()
    process = runtime.popen("create", "--bundle", bundle.path, id)
    wait_until(lambda: started.exists() and started.read_text().strip(), what="the hook")
    process.kill()
    process.wait()
    wait_until(lambda: members_of(id) == [], what="the child to notice")
    assert runtime.status(id) == "stopped"
    runtime.call("delete", id)
    leaks.check()


def test_parallel_creation_has_one_winner(runtime, bundle, leaks):
    bundle.set_args("sleep", "1000").write()
    id = runtime.new_id()
    processes = [runtime.popen("create", "--bundle", bundle.path, id, stdout=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                 for _ in range(8)]
    codes = [p.wait(30) for p in processes]
    assert sorted(codes) == [0] + [1] * 7
    assert runtime.status(id) == "created"
    runtime.call("delete", "--force", id)
    leaks.check()


def test_parallel_start_has_one_winner(runtime, bundle):
    id = runtime.create(bundle.set_args("sleep", "1000"))
    processes = [runtime.popen("start", id, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    results = [(p.communicate(timeout=30)[1], p.returncode) for p in processes]
    assert sorted(code for _, code in results) == [0] + [1] * 5
    assert all("cannot start an already running container" in text
               for text, code in results if code)


def test_parallel_forced_deletes_agree(runtime, bundle, leaks):
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    processes = [runtime.popen("delete", "--force", id, stderr=subprocess.PIPE, text=True)
                 for _ in range(6)]
    for process in processes:
        error = process.communicate(timeout=30)[1]
        assert process.returncode == 0, error
    leaks.check()


def test_create_and_delete_race(runtime, bundle, leaks):
    bundle.set_args("true").write()
    id = runtime.new_id()
    for _ in range(10):
        create = runtime.popen("create", "--bundle", bundle.path, id, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        delete = runtime.popen("delete", "--force", id)
        assert create.wait(30) in (0, 1)
        assert delete.wait(30) == 0
        runtime.call("delete", "--force", id)
    leaks.check()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id":1}', "\0" * 100])
def test_damaged_state(runtime, bundle, leaks, content):
    id = runtime.create(bundle.set_args("sleep", "1000"))
    pid = runtime.pid(id)
    (runtime.root / id / "state.json").write_text(content)
    assert f"state of container {id}" in runtime.fails("state", id, code=1)
    assert id not in runtime.call("list", "-q").stdout
    assert is_alive(pid)
    runtime.call("delete", "--force", id)
    assert not is_alive(pid)
    leaks.check()


def test_state_directory_that_cannot_be_written(runtime, bundle, tmp_path):
    runtime.root = tmp_path / "read-only"
    runtime.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", runtime.root], check=True)
    try:
        error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
        assert str(runtime.root) in error and "Read-only file system" in error
    finally:
        subprocess.run(["umount", runtime.root], check=True)


def test_full_state_directory(runtime, bundle, tmp_path):
    runtime.root = tmp_path / "full"
    runtime.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=20", "tmpfs", runtime.root],
                   check=True)
    try:
        bundle.config["annotations"] = {"big": "x" * 100000}
        error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
        assert "No space left on device" in error
        assert os.listdir(runtime.root) == []
    finally:
        subprocess.run(["umount", runtime.root], check=True)


@pytest.mark.parametrize("text,said", [
    ("", "config.json"), ("{", "config.json"), ("[]", "expected object"),
    ('{"ociVersion":"1.0.2"}', "config.json"),
    ('{"ociVersion":"1.0.2","process":{"args":"x"}}', "process.args"),
    ('{"ociVersion":"7.0.0","root":{"path":"rootfs"}}', "7.0.0")])
def test_bad_configuration_is_named(runtime, bundle, leaks, text, said):
    bundle.write()
    (bundle.path / "config.json").write_text(text)
    assert said in runtime.fails("run", "--bundle", bundle.path, runtime.new_id(), code=1)
    leaks.check()


def test_missing_bundle_and_configuration(runtime, tmp_path):
    assert "/no/bundle" in runtime.fails("run", "--bundle", "/no/bundle", "x", code=1)
    (tmp_path / "empty").mkdir()
    assert "JSON specification file config.json not found" in runtime.fails(
        "run", "--bundle", tmp_path / "empty", "x", code=1)


@pytest.mark.parametrize("arguments,said", [
    (["frobnicate"], "unknown command frobnicate"),
    (["run", "--frobnicate", "x"], "flag provided but not defined: --frobnicate"),
    (["run"], "requires exactly 1 argument"),
    (["run", "a", "b"], "requires exactly 1 argument"),
    (["run", "--bundle"], "flag needs an argument: --bundle"),
    (["--log-format", "xml", "list"], "invalid log-format: xml"),
    (["list", "--format", "xml"], "invalid format option"),
    (["update", "--memory", "lots", "x"], "invalid value for memory: lots"),
    (["events", "--interval", "0", "x"], "interval"),
    (["exec", "x"], "requires a minimum of 2")])
def test_wrong_usage_is_named(runtime, arguments, said):
    assert said in runtime.fails(*arguments)


def test_log_file(runtime, tmp_path):
    import json
    log = tmp_path / "log"
    done = subprocess.run([runtime.program, "--log", log, "--log-format", "json", "--root",
                           runtime.root, "state", "nobody"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert done.stderr == "container does not exist\n"
    entry = json.loads(log.read_text())
    assert entry["level"] == "error" and entry["msg"] == "container does not exist"


VALUES = [None, True, -1, 0, 2 ** 64, 1.5, "", "x", "../..", "/nonexistent", [], ["x"], {}, {"x": 1}]


def places(tree):
    """Every container of values in a configuration with each of its keys."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in entries:
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from places(value)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_configurations_make_a_container_or_nothing(runtime, bundle, leaks, seed):
    """Members that are gone or something else: no crash, one line that names the trouble, and no
    half-made container. The parser itself has fuzz targets."""
    chance = random.Random(seed)
    original = bundle.copy_config()
    for number in range(40):
        bundle.config = json.loads(json.dumps(original))
        for _ in range(chance.randint(1, 3)):
            tree, key = chance.choice(list(places(bundle.config)))
            if chance.random() < 0.3:
                del tree[key]
            else:
                tree[key] = chance.choice(VALUES)
        bundle.write()
        id = runtime.new_id()
        what = f"seed {seed}, number {number}: {json.dumps(bundle.config)}"
        done = runtime.call("run", "--bundle", bundle.path, id, check=False)
        assert done.returncode in (0, 1), what
        errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
        assert bool(errors) == (done.returncode == 1), f"{what}\n{done.stderr}"
        assert "does not exist" in runtime.fails("state", id), what
    leaks.check()
