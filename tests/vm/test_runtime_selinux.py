"""isle-runtime's SELinux labels, in a machine whose kernel has SELinux and a policy."""
import json
import pathlib
import subprocess

from tests.lib import vm
from tests.lib.runtime import default_config, find_program

PROCESS, FILES = "u:r:container_t:s0:c0", "u:r:container_file_t:s0:c0,c1"
SCRIPT = """
mount() { /bin/busybox mount "$@"; }
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t selinuxfs selinuxfs /sys/fs/selinux
/bin/busybox cat /bin/policy > /sys/fs/selinux/load
mount -t tmpfs run /mnt
cd /mnt
/bin/busybox mkdir -p rootfs/bin rootfs/proc rootfs/sys rootfs/dev
/bin/busybox cp /bin/busybox rootfs/bin/sh
for name in good process mounts; do
        /bin/busybox cp /bin/$name.json config.json
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


def config(path, process=PROCESS, files=FILES):
    made = default_config(["sh", "-c", "tr -d '\\0' < /proc/self/attr/current; echo; "
                           "cat /proc/self/mountinfo"])
    made["mounts"] = [m for m in made["mounts"] if m["type"] != "cgroup"]
    made["process"]["selinuxLabel"] = process
    made["linux"]["mountLabel"] = files
    made["process"]["noNewPrivileges"] = False  # or the policy would have to allow this change
    del made["linux"]["resources"]
    path.write_text(json.dumps(made))
    return path


def test_labels_of_process_and_mounts(tmp_path):
    files = [policy(tmp_path / "policy"), config(tmp_path / "good.json"),
             config(tmp_path / "process.json", process="u:r:nobody_t:s0"),
             config(tmp_path / "mounts.json", files="u:r:nothing_t:s0"),
             pathlib.Path(find_program())]
    initrd = vm.initrd(tmp_path / "initrd.gz", SCRIPT, programs=files)
    status, out, errors = vm.run("--cpu", "soft", "--memory", "256m", "--kernel",
                                 vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                                 vm.CMDLINE + " security=selinux")
    out = out.replace("\r", "")
    assert "good exited with 0" in out, out[-3000:] + errors
    good = out.split("good=\n")[1].split("good exited")[0]
    assert good.splitlines()[0] == PROCESS
    labelled = {line.split()[4] for line in good.splitlines() if f'context="{FILES}"' in line}
    assert {"/dev", "/dev/shm", "/dev/pts"} <= labelled
    assert not {"/proc", "/sys"} & labelled
    refused = out.split("process=\n")[1].split("process exited")[0]
    assert "set SELinux label 'u:r:nobody_t:s0'" in refused and "Invalid argument" in refused
    refused = out.split("mounts=\n")[1].split("mounts exited")[0]
    assert "/dev" in refused and "context=u:r:nothing_t:s0" in refused
