"""Protection keys of the software CPU, as programs under Debian's kernel use them."""

import pytest

from tests.lib import vm


@pytest.mark.parametrize("cpus", [1, 2])
def test_programs_guard_memory_by_keys(tmp_path, cpus):
    program = vm.guest_program(tmp_path / "pkeys", "pkeys")
    initrd = vm.initrd(tmp_path / "initrd.gz", "/bin/pkeys\n/bin/busybox poweroff -f\n",
                       programs=[program])
    status, out, err = vm.run("--cpu", "soft", "--kernel", vm.debian_kernel(), "--initrd", initrd,
                              "--cmdline", vm.CMDLINE, "--cpus", cpus)
    assert (status, err) == (0, "")
    assert "all is so" in out, out
    assert "NO" not in out, out
