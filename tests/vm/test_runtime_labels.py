"""isle-runtime's labels for security modules, in machines whose kernels have them."""
import json
import pathlib
import subprocess

from tests.lib import vm
from tests.lib.runtime import default_config, find_program

PROCESS, FILES = "u:r:container_t:s0:c0", "u:r:container_file_t:s0:c0,c1"
SELINUX = """
mount -t selinuxfs selinuxfs /sys/fs/selinux
/bin/busybox cat /bin/policy > /sys/fs/selinux/load
"""
APPARMOR = "mount -t securityfs securityfs /sys/kernel/security\n"
HEAD = """
mount() { /bin/busybox mount "$@"; }
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
"""
RUN = """
mount -t tmpfs run /mnt
cd /mnt
/bin/busybox mkdir -p rootfs/bin rootfs/proc rootfs/sys rootfs/dev
/bin/busybox cp /bin/busybox rootfs/bin/sh
for path in /bin/*.json; do
        name=$(/bin/busybox basename $path .json)
        /bin/busybox cp $path config.json
        echo "$name="
        isle-runtime --root /mnt/state run --no-pivot $name 2>&1
        echo "$name exited with $?"
done
/bin/busybox poweroff -f
"""


def policy(path):
    subprocess.run([vm.TOP / "scripts" / "install-deps", "secilc"], check=True,
                      stdout=subprocess.DEVNULL)
    subprocess.run(["secilc", "-o", path, "-f", "/dev/null",
                    pathlib.Path(__file__).parent / "selinux.cil"], check=True)
    return path


def config(path, process=None, files=None, apparmor=None):
    made = default_config(["sh", "-c", "tr -d '\\0' < /proc/self/attr/current; echo; "
                           "cat /proc/self/mountinfo"])
    made["mounts"] = [m for m in made["mounts"] if m["type"] != "cgroup"]
    made["process"].update({"selinuxLabel": process} if process else {})
    made["process"].update({"apparmorProfile": apparmor} if apparmor else {})
    made["linux"].update({"mountLabel": files} if files else {})
    made["process"]["noNewPrivileges"] = False  # or the policy would have to allow this change
    del made["linux"]["resources"]
    path.write_text(json.dumps(made))
    return path


def run(tmp_path, script, files, flag):
    """What each bundle printed, with its exit code at the end."""
    initrd = vm.initrd(tmp_path / "initrd.gz", HEAD + script + RUN,
                       programs=[*files, pathlib.Path(find_program())])
    status, out, errors = vm.run("--cpu", "soft", "--memory", "256m", "--kernel",
                                 vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                                 f"{vm.CMDLINE} {flag}")
    out = out.replace("\r", "")
    assert status == 0, out[-3000:] + errors
    return {path.stem: out.split(f"{path.stem}=\n")[1].split("exited with ")[0]
            + out.split(f"{path.stem} exited with ")[1][0]
            for path in files if path.suffix == ".json"}


def test_selinux(tmp_path):
    said = run(tmp_path, SELINUX, [
        policy(tmp_path / "policy"), config(tmp_path / "good.json", PROCESS, FILES),
        config(tmp_path / "process.json", "u:r:nobody_t:s0", FILES),
        config(tmp_path / "mounts.json", PROCESS, "u:r:nothing_t:s0")], "security=selinux")
    good = said["good"].splitlines()
    assert good[0] == PROCESS and good[-1] == "good 0"
    labelled = {line.split()[4] for line in good if f'context="{FILES}"' in line}
    assert {"/dev", "/dev/shm", "/dev/pts"} <= labelled
    assert not {"/proc", "/sys"} & labelled
    assert "set SELinux label 'u:r:nobody_t:s0'" in said["process"]
    assert "Invalid argument" in said["process"] and said["process"].endswith("1")
    assert "/dev" in said["mounts"] and "context=u:r:nothing_t:s0" in said["mounts"]


def test_apparmor(tmp_path):
    said = run(tmp_path, APPARMOR, [
        config(tmp_path / "good.json", apparmor="unconfined"),
        config(tmp_path / "missing.json", apparmor="no-such-profile")], "security=apparmor")
    good = said["good"].splitlines()
    assert good[0].startswith("unconfined") and good[-1] == "good 0"
    assert "set AppArmor profile 'no-such-profile'" in said["missing"]
    assert "No such file or directory" in said["missing"]
