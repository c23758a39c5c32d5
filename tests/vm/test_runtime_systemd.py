"""isle-runtime's systemd cgroup driver where it is at home: the system's systemd, on cgroup
version 2, which the development machine has not got."""
import json

from tests.lib import vm
from tests.lib.runtime import default_config, find_program

GROUP = "0::/a.slice/a-b.slice/test-one.scope"
CHECK = r"""#!/bin/sh
exec > /dev/ttyS0 2>&1 < /dev/null
R="isle-runtime --systemd-cgroup" S=test-one.scope G=/sys/fs/cgroup/a.slice/a-b.slice/test-one.scope
get() { systemctl show -P $1 $S; }
say() { echo "$1=$(eval "$2" 2>&1 | tr '\n' ' ')"; }
cd /bundle || exit
$R run -d one > /dev/null
say group 'grep -z "" /proc/$(isle-runtime state one | grep \"pid\" | tr -dc 0-9)/cgroup | tr -d "\0"'
say exec '$R exec one cat /proc/self/cgroup'
say properties 'for p in MemoryMax MemoryLow TasksMax CPUWeight AllowedCPUs DevicePolicy; do get $p; done'
say files 'cd $G; cat memory.max pids.max cpu.weight cpu.max cpuset.cpus'
systemctl daemon-reload
say reloaded 'cd $G; cat memory.max pids.max cpu.weight cpu.max cpuset.cpus'
say null '$R exec one sh -c "echo > /dev/null && echo fine"'
say disk '$R exec one sh -c "mknod /tmp/vda b 254 0 && dd if=/tmp/vda of=/dev/null count=1"'
isle-runtime update --memory 67108864 --pids-limit 30 one
say updated 'get MemoryMax; get TasksMax; cat $G/memory.max $G/pids.max'
isle-runtime pause one
say paused 'isle-runtime state one | grep status'
isle-runtime delete --force one
say left 'systemctl is-active $S; ls -d $G; isle-runtime list -q'
# The same by somebody without privilege, with a systemd of his own.
useradd -m somebody
chown -R somebody /bundle
export XDG_RUNTIME_DIR=/run/user/1000
install -d -m 700 -o somebody $XDG_RUNTIME_DIR
systemd-run -q --unit=own --uid=somebody -p Delegate=yes -p Type=notify -E XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR \
        -E HOME=/home/somebody /lib/systemd/systemd --user
cat > /user.sh <<'end'
#!/bin/sh
exec > /run/user/1000/said 2>&1
I="isle-runtime --systemd-cgroup --root /run/user/1000/isle"
show() { systemctl --user show -P $1 isle-mine.scope; }
$I run -d --config rootless.json mine > /run/user/1000/run 2>&1 < /dev/null
echo user_run=$(cat /run/user/1000/run)
echo user_group=$($I exec mine cat /proc/self/cgroup)
$I update --pids-limit 9 mine
echo user_limits=$(show MemoryMax; show TasksMax)
$I delete --force mine
echo user_delete=$(systemctl --user is-active isle-mine.scope)
end
chmod +x /user.sh
mkdir -p /home/somebody/.config/systemd/user
printf '[Service]\nType=oneshot\nWorkingDirectory=/bundle\nExecStart=/user.sh\n' > /home/somebody/.config/systemd/user/check.service
# From inside of his own part of the tree: only the system's systemd could fetch him from elsewhere.
setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/somebody systemctl --user start check
cat /run/user/1000/said
echo the end
systemctl poweroff --force --force
"""
PLACE_FILES = """
R=/mnt/bundle/rootfs
/bin/busybox mkdir -p $R/bin $R/proc $R/sys $R/dev $R/tmp
/bin/busybox cp /bin/isle-runtime /mnt/usr/bin/
/bin/busybox cp /bin/check.sh /mnt/
/bin/busybox cp /bin/config.json /bin/rootless.json /mnt/bundle/
/bin/busybox cp /bin/busybox $R/bin/
for name in sh cat dd mknod sleep; do /bin/busybox ln -s busybox $R/bin/$name; done
"""


# Half of the boot, and nothing of it matters here.
MASKED = ["systemd-udevd", "systemd-udev-trigger", "systemd-tmpfiles-setup",
          "systemd-tmpfiles-setup-dev", "systemd-tmpfiles-clean.timer", "systemd-journal-flush",
          "systemd-update-utmp", "systemd-random-seed", "systemd-sysctl", "systemd-sysusers",
          "systemd-remount-fs", "systemd-modules-load", "systemd-binfmt", "modprobe@.service"]
MASK = "".join(f" systemd.mask={name}" + ("" if "." in name else ".service") for name in MASKED)


def bundle(path):
    config = default_config(["sleep", "1000"])
    config["root"]["readonly"] = False
    capabilities = config["process"]["capabilities"]
    for names in capabilities:
        capabilities[names] = capabilities[names] + ["CAP_MKNOD"]
    config["linux"]["cgroupsPath"] = "a-b.slice:test:one"
    config["linux"]["resources"].update(
        memory={"limit": 50 << 20, "reservation": 10 << 20}, pids={"limit": 20},
        cpu={"shares": 512, "quota": 20000, "period": 50000, "cpus": "0"})
    path.write_text(json.dumps(config))
    return path


def rootless(path):
    config = default_config(["sleep", "1000"])
    config["root"]["readonly"] = False
    config["mounts"] = [m for m in config["mounts"] if m["type"] in ("proc", "tmpfs")]
    config["process"].pop("rlimits")
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    config["linux"]["resources"] = {"memory": {"limit": 50 << 20}, "pids": {"limit": 20}}
    path.write_text(json.dumps(config))
    return path


def test_scope_on_version_2(tmp_path):
    check = tmp_path / "check.sh"
    check.write_text(CHECK)
    start, last = vm.SWITCH_TO_OVERLAY.rsplit("exec", 1)
    initrd = vm.initrd(tmp_path / "initrd.gz", start + PLACE_FILES + "exec" + last,
                       vm.DISK_MODULES, [check, bundle(tmp_path / "config.json"),
                                         rootless(tmp_path / "rootless.json"),
                                         vm.pathlib.Path(find_program())])
    status, out, errors = vm.run("--cpu", "soft", "--memory", "1g", "--kernel",
                                 vm.debian_kernel(), "--initrd", initrd, "--cmdline",
                                 vm.CMDLINE + MASK + " systemd.run=/check.sh", "--disk",
                                 f"{vm.debian_disk()},ro")
    assert status == 0 and "the end" in out, out[-2000:] + errors
    said = dict(line.split("=", 1) for line in out.replace("\r", "").splitlines() if "=" in line)
    said = {key: value.strip() for key, value in said.items()}
    assert said["group"] == GROUP and said["exec"] == GROUP
    assert said["properties"] == f"{50 << 20} {10 << 20} 20 59 0 strict"
    files = f"{50 << 20} 20 59 20000 50000 0"
    assert said["files"] == files
    assert said["reloaded"] == files
    assert said["null"] == "fine"
    assert "Operation not permitted" in said["disk"]
    assert said["updated"] == f"{64 << 20} 30 {64 << 20} 30"
    assert '"paused"' in said["paused"]
    assert said["left"].startswith("inactive ls: cannot access")
    assert said["user_run"] == ""
    own = "0::/system.slice/own.service/user.slice/isle-mine.scope"
    assert said["user_group"] == own
    assert said["user_limits"] == f"{50 << 20} 9"
    assert said["user_delete"] == "inactive"
