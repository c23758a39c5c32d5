"""--pre-dump and --parent-path where the kernel tells which memory was written to, as Debian's does
and the development machine's does not."""
import json
import subprocess
import tarfile
from pathlib import Path

from tests.lib import vm
from tests.lib.runtime import default_config, find_program

CRIU = Path("/usr/local/lib/criu")  # scripts/install-criu
MODULES = ("unix_diag", "inet_diag", "tcp_diag", "udp_diag", "netlink_diag", "af_packet_diag", "veth",
           "nf_tables", "tun")
MOVE_TO_TMPFS = """
/bin/busybox mount -t tmpfs none /mnt
/bin/busybox mkdir -p /mnt/bin /mnt/proc /mnt/sys /mnt/dev /mnt/tmp /mnt/run
/bin/busybox cp /bin/* /mnt/bin/
/bin/busybox tar -x -C /mnt -f /bin/criu.tar
exec /bin/busybox switch_root /mnt /bin/check
"""
CHECK = """#!/bin/busybox sh
export PATH=/usr/local/sbin:/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo never > /sys/kernel/mm/transparent_hugepage/enabled
ifconfig lo 127.0.0.1 up
mkdir -p /b/rootfs/bin /b/rootfs/proc /b/rootfs/sys /b/rootfs/dev /b/rootfs/tmp /images
cp /bin/busybox /b/rootfs/bin/
for name in sh dd mkfifo; do ln -s busybox /b/rootfs/bin/$name; done
cp /bin/config.json /b/
cd /b
R="isle-runtime --root /run/r"
$R run -d one > /dev/null 2>&1 < /dev/null
until [ -s rootfs/tmp/n ]; do usleep 10000; done
size() { cat /images/$1/pages-*.img | wc -c; }
checkpoint() { name=$1; shift; $R checkpoint --image-path /images/$name "$@" one 2>&1; echo "$name: $?"; }
checkpoint first --pre-dump
$R state one | grep status
checkpoint second --pre-dump --parent-path ../first
checkpoint third --parent-path ../second --auto-dedup
echo "sizes: $(size first) $(size second) $(size third)"
before=$(cat rootfs/tmp/n)
$R restore -d --image-path /images/third one > /tmp/restore 2>&1 < /dev/null
echo "restored: $? $(cat /tmp/restore)"
until [ "$(cat rootfs/tmp/n)" != "$before" ]; do usleep 10000; done
$R state one | grep status
$R delete -f one
echo the end
poweroff -f
"""
# A shell that holds some memory, and says that it lives, without processes for that.
PROGRAM = ("x=$(dd if=/dev/zero bs=1k count=2000 2>/dev/null | busybox tr '\\0' x); "
           "mkfifo /tmp/f; exec 3<>/tmp/f; "
           "while :; do i=$((i+1)); echo $i > /tmp/n; read -t 0.05 -u 3 y; done")


def files(tmp_path):
    config = default_config(["sh", "-c", PROGRAM])
    config["root"]["readonly"] = False
    config["mounts"] = [m for m in config["mounts"] if m["type"] in ("proc", "sysfs")]
    config["linux"]["maskedPaths"] = []  # as for those, of tmpfs, it wants tar
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"]
                                     if n["type"] != "network"]  # for which CRIU wants iproute2
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "check").write_text(CHECK)
    with tarfile.open(tmp_path / "criu.tar", "w") as tar:
        tar.add(CRIU)
        tar.add("/usr/local/sbin/criu")
    return [tmp_path / "config.json", tmp_path / "check", tmp_path / "criu.tar",
            Path(find_program())]


def test_memory_is_dumped_once(tmp_path):
    subprocess.run([vm.TOP / "scripts" / "install-criu"], check=True)
    initrd = vm.initrd(tmp_path / "initrd.gz", MOVE_TO_TMPFS, MODULES, files(tmp_path))
    status, out, errors = vm.run("--cpu", "soft", "--memory", "512m", "--kernel",
                                 vm.debian_kernel(), "--initrd", initrd, "--cmdline", vm.CMDLINE)
    out = out.replace("\r", "")
    assert status == 0 and "the end" in out, out[-3000:] + errors
    for name in ("first", "second", "third"):
        assert f"\n{name}: 0\n" in "\n" + out, out[-3000:]
    assert "restored: 0" in out, out[-3000:]
    assert out.count('"running"') == 2
    first, second, third = map(int, out.split("sizes: ")[1].split("\n")[0].split())
    assert first > 2_000_000
    assert second < first / 2 and third < first / 2
