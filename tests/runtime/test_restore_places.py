"""A restore where something is not as it was: what the standard descriptors are, and in namespaces
that are shared with the caller."""
import os
import subprocess

import pytest

from tests.lib.runtime import is_alive, wait_until
from tests.runtime.test_called_as import called
from tests.runtime.test_checkpoint import count, counter, dump, images, restore, start

__all__ = ["called", "counter", "images"]  # fixtures


def restore_into_pipes(runtime, bundle, images, id):
    return runtime.call("restore", "--image-path", images, "--detach", "--bundle", bundle.path, id,
                        timeout=60, input="", check=False)


def is_null(runtime, id, fd):
    return os.stat(f"/proc/{runtime.pid(id)}/fd/{fd}").st_rdev == os.makedev(1, 3)


def test_null_device_stays_one_where_the_caller_has_pipes(runtime, bundle, counter, images):
    dump(runtime, images, counter)
    done = restore_into_pipes(runtime, bundle, images, counter)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(is_null(runtime, counter, fd) for fd in range(3))


def test_file_that_cannot_become_a_pipe(runtime, bundle, images, tmp_path, leaks):
    bundle.config["root"]["readonly"] = False
    bundle.sh("sleep 1000").write()
    id = runtime.new_id()
    with open(tmp_path / "out", "w", encoding="utf-8") as out:
        subprocess.run(runtime.command("run", "--detach", "--bundle", bundle.path, id), stdout=out,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=30)
    dump(runtime, images, id)
    done = restore_into_pipes(runtime, bundle, images, id)
    assert done.returncode == 1
    assert "descriptor 1 was a file, which cannot become a pipe" in done.stderr
    leaks.check()


@pytest.mark.parametrize("named", [False, True])
def test_namespaces_of_the_caller(runtime, bundle, images, named):
    """Its numbers of processes are the host's, so the old one must be free when the dump is done;
    and namespaces that are named are handed over, though they are the caller's own."""
    for kind in ("pid", "network", "ipc", "uts"):
        file = "net" if kind == "network" else kind
        bundle.namespace(kind, path=f"/proc/self/ns/{file}", present=named)
    del bundle.config["hostname"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "mqueue"]
    id = start(runtime, bundle)
    pid = runtime.pid(id)
    dump(runtime, images, id)
    assert not os.path.exists(f"/proc/{pid}")
    before = count(bundle)
    restore(runtime, bundle, images, id)
    assert runtime.pid(id) == pid and is_alive(pid)
    wait_until(lambda: count(bundle) > before, what="the counter to go on")


@pytest.mark.parametrize("name, taken", [("crun", "crun"), ("runc", "runc")])
def test_configuration_file_of_criu(called, bundle, images, tmp_path, name, taken):
    """Those of /etc are laid over for this test."""
    runtime = called(name)
    id = start(runtime, bundle)
    script = ("mkdir -p /etc/criu && mount -t tmpfs none /etc/criu && "
              "for f in crun runc; do echo log-file=$f.log >/etc/criu/$f.conf; done; exec \"$@\"")
    subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *runtime.command(
        "checkpoint", "--leave-running", "--image-path", images, id)], check=True, timeout=60)
    assert sorted(p.stem for p in images.glob("*.log")) == [taken]
