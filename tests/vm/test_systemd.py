"""A whole Debian on a disk of ours: systemd comes up, a person logs in, and it goes down clean."""

import shutil
import subprocess

from tests.lib import vm


class Terminal:
    """The guest's serial port: what has been typed and read."""

    def __init__(self, process):
        self.process = process
        self.text = b""

    def until(self, wanted):
        start = len(self.text)
        while wanted not in self.text[start:]:
            more = self.process.stdout.read1(65536)
            assert more, f"the guest ended without {wanted}: {self.text[-500:]}"
            self.text += more
        return self.text[start:].decode(errors="replace")

    def run(self, command):
        """Output of a command, between marks that its echo does not have."""
        self.process.stdin.write(f"echo beg''in; {command}; echo e''nd\n".encode())
        self.process.stdin.flush()
        text = self.until(b"\nend\r")
        return text.split("begin\r\n")[-1].split("end\r")[0].replace("\r", "").strip()


def test_systemd_comes_up_whole_and_goes_down_clean(tmp_path):
    disk = tmp_path / "disk.img"
    shutil.copyfile(vm.debian_disk(), disk)
    initrd = vm.initrd(tmp_path / "initrd.gz", vm.SWITCH_TO_DISK, vm.DISK_MODULES)
    with subprocess.Popen([vm.VMM, "--cpu", "soft", "--cpus", "2", "--memory", "1g", "--kernel",
                           vm.debian_kernel(), "--initrd", initrd, "--cmdline", vm.CMDLINE,
                           "--disk", disk], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            terminal = Terminal(process)
            terminal.until(b"login: ")
            process.stdin.write(b"root\n")
            process.stdin.flush()
            terminal.until(b"# ")
            assert terminal.run("systemctl is-system-running --wait") == "running"
            assert terminal.run("systemctl --failed --quiet --no-pager") == ""
            assert terminal.run("nproc") == "2"
            assert terminal.run("systemd-detect-virt --vm") not in ("", "none")
            # Programs and libraries of a distribution, not only what boots it.
            assert terminal.run("perl -e 'print join(\",\", map { $_ ** 2 } 1..9), \"\\n\"'") == (
                "1,4,9,16,25,36,49,64,81")
            assert terminal.run("dpkg --verify; echo $?") == "0"
            assert terminal.run("echo kept > /root/file; sync; cat /root/file") == "kept"
            process.stdin.write(b"systemctl poweroff\n")
            process.stdin.flush()
            while process.stdout.read1(65536):
                pass
            assert process.wait(120) == 0
        finally:
            process.kill()
    subprocess.run(["fsck.ext4", "-fn", disk], check=True, capture_output=True)
    kept = subprocess.run(["debugfs", "-R", "cat /root/file", disk], check=True,
                          capture_output=True).stdout
    assert kept == b"kept\n"
