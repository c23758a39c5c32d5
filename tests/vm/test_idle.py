"""A guest that does nothing: what it costs the host meanwhile."""

import subprocess

from tests.lib import vm
from tests.lib.daemon import until

# The kernel's own boot decodes more than this.
CODE_KIB = 8 << 10


def private_kib(process):
    """The monitor's own memory: decoded code, not the guest's memory."""
    with open(f"/proc/{vm.machine_pid(process)}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


def translations_kib(process):
    """Translated code, by the mapping that it is written through."""
    with open(f"/proc/{vm.machine_pid(process)}/smaps", encoding="ascii") as smaps:
        found = False
        for line in smaps:
            if "-" in line.split()[0]:
                found = "isle-translations" in line and " rw-s " in line
            elif found and line.startswith("Rss:"):
                return int(line.split()[1])
    raise AssertionError("no mapping of translations")


def test_code_of_an_idle_processor_goes_back(tmp_path):
    script = "echo up; read line; echo $line; read line; echo $line; /bin/busybox sleep 1000\n"
    initrd = vm.initrd(tmp_path / "initrd.gz", script)
    with subprocess.Popen([vm.VMM, "--cpu", "soft", "--kernel", vm.debian_kernel(), "--initrd",
                           initrd, "--cmdline", vm.CMDLINE, "--memory", "256m"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            next(line for line in process.stdout if b"up" in line)
            assert private_kib(process) > CODE_KIB
            until(lambda: private_kib(process) < CODE_KIB, 60, "decoded code given back")
            assert translations_kib(process) < 1 << 10
            # It runs on as before, and again after the next time.
            for word in (b"once", b"twice"):
                process.stdin.write(word + b"\n")
                process.stdin.flush()
                next(line for line in process.stdout if word in line)
        finally:
            process.kill()
