"""Machines that do not come up, or go: one clear error, and nothing left behind."""
import json
import os
import signal
import subprocess

import pytest

from tests.lib.runtime import wait_until


@pytest.fixture
def kind():
    return "vm"


def test_kernel_that_is_none(runtime, bundle, monkeypatch):
    monkeypatch.setenv("ISLE_VM_KERNEL", "/etc/passwd")
    error = runtime.run(bundle, check=False).stderr
    assert "the virtual machine ended with status 1" in error and "kernel" in error


def test_kernel_that_is_not_there(runtime, bundle, monkeypatch):
    monkeypatch.setenv("ISLE_VM_KERNEL", "/nowhere/vmlinuz")
    error = runtime.run(bundle, check=False).stderr
    assert "ISLE_VM_KERNEL: /nowhere/vmlinuz: No such file or directory" in error


def test_cpu_that_is_unknown(runtime, bundle, monkeypatch):
    monkeypatch.setenv("ISLE_VM_CPU", "abacus")
    assert "abacus" in runtime.run(bundle, check=False).stderr


def test_config_that_cannot_be_met(runtime, bundle):
    bundle.namespace("network", present=False)
    error = runtime.run(bundle, check=False).stderr
    assert "a virtual machine cannot share the host's network" in error


def machine_of(runtime, id):
    """isle-vmm's process, and the jailed one beneath it."""
    found, above = [], str(runtime.pid(id))
    for _ in range(2):
        above = subprocess.run(["pgrep", "-P", above, "isle-vmm"], text=True, capture_output=True,
                               check=True).stdout.strip()
        found.append(int(above))
    return found


def test_machine_that_is_killed(runtime, bundle):
    bundle.set_args("sleep", "1000").write()
    id = runtime.new_id()
    process = runtime.popen("run", "--bundle", bundle.path, id, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: runtime.call("state", id, check=False).returncode == 0 and
               runtime.call("exec", id, "true", check=False).returncode == 0, 30, "the start")
    os.kill(machine_of(runtime, id)[0], signal.SIGKILL)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 255
    assert "the virtual machine ended with status 137" in error


def test_guest_that_does_not_answer(runtime, running):
    """A stopped machine: exec can be ended, and the container killed and deleted."""
    for pid in machine_of(runtime, running):
        os.kill(pid, signal.SIGSTOP)
    process = runtime.popen("exec", running, "true", stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    process.wait()
    runtime.call("kill", running, "KILL")
    runtime.wait_status(running, "stopped")
    runtime.call("delete", running)


@pytest.mark.parametrize("verb", [["checkpoint"]])
def test_verbs_that_are_not_there_yet(runtime, running, verb):
    assert "not supported yet" in runtime.fails(*verb, running)


def test_create_that_is_killed(runtime, bundle):
    """kill -9 of the runtime while the guest starts: force finds and removes all of it."""
    bundle.set_args("sleep", "1000").write()
    id = runtime.new_id()
    process = runtime.popen("create", "--bundle", bundle.path, id, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: runtime.call("state", id, check=False).returncode == 0 and
               runtime.pid(id), 10, "its process")
    process.kill()
    process.wait()
    runtime.call("delete", "--force", id)
    assert "does not exist" in runtime.fails("state", id)


def test_cpu_that_is_asked_for(runtime, bundle, monkeypatch):
    """The annotation wins over the environment, and the state tells the choice."""
    bundle.config["annotations"] = {"isle.vm.cpu": "soft", "other": "kept"}
    monkeypatch.setenv("ISLE_VM_CPU", "abacus")
    id = runtime.start_detached(bundle.set_args("sleep", "1000"))
    expected = {"isle.vm.cpu": "soft", "other": "kept"}
    assert json.loads(runtime.call("state", id).stdout)["annotations"] == expected
    assert json.loads(runtime.call("list", "--format", "json").stdout)[0]["annotations"] == expected
    bundle.config["annotations"] = {"isle.vm.cpu": "auto"}
    other = runtime.start_detached(bundle)
    chosen = json.loads(runtime.call("state", other).stdout)["annotations"]["isle.vm.cpu"]
    assert chosen in ("kvm", "soft")
    monkeypatch.setenv("ISLE_VM_CPU_MODEL", "x86-64-v2")
    named = runtime.start_detached(bundle)
    state = json.loads(runtime.call("state", named).stdout)
    assert state["annotations"]["isle.vm.cpu-model"] == "x86-64-v2"
    bundle.config["annotations"] = {"isle.vm.cpu": "auto", "isle.vm.cpu-model": "z80"}
    assert ("annotation isle.vm.cpu-model: 'z80' is not known; there are host, x86-64, x86-64-v2 and "
            "x86-64-v3") in runtime.run(bundle, check=False).stderr
    bundle.config["annotations"] = {"isle.vm.cpu": "slow"}
    assert "annotation isle.vm.cpu: 'slow' is not known; there are auto, kvm and soft" in runtime.run(
        bundle, check=False).stderr
