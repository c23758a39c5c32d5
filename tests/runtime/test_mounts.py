"""The file tree of a container: every kind of mount, devices, masks, propagation."""
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.lib.runtime import Bundle


def mounts(text):
    """{mount point: (type, set of options)} of /proc/mounts' text."""
    result = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 4:
            result[fields[1]] = (fields[2], set(fields[3].split(",")))
    return result


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    (directory / "file").write_text("from the host\n")
    return directory


def test_default_tree(runtime, bundle):
    seen = mounts(runtime.output(bundle.sh("cat /proc/mounts")))
    assert "ro" in seen["/"][1]
    assert seen["/proc"][0] == "proc"
    assert seen["/dev"][0] == "tmpfs" and "nosuid" in seen["/dev"][1]
    assert seen["/dev/pts"][0] == "devpts"
    assert "ro" in seen["/sys"][1]
    assert {"ro", "nosuid", "nodev", "noexec"} <= seen["/sys/fs/cgroup/memory"][1]
    assert "ro" in seen["/proc/sys"][1]
    assert not [m for m in seen if m.startswith("/proc/self/fd") or "isle-runtime" in m]


def test_default_devices_and_links(runtime, bundle):
    out = runtime.output(bundle.sh(
        "for d in null zero full random urandom tty; do stat -c '%n %a %t %T' /dev/$d; done;"
        "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done"))
    assert out.splitlines() == [
        "/dev/null 666 1 3", "/dev/zero 666 1 5", "/dev/full 666 1 7", "/dev/random 666 1 8",
        "/dev/urandom 666 1 9", "/dev/tty 666 5 0",
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]


def test_devices_of_the_spec(runtime, bundle):
    bundle.config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
         "uid": 5, "gid": 6},
        {"path": "/dev/deep/er", "type": "c", "major": 1, "minor": 5},
        {"path": "/dev/queue", "type": "p", "fileMode": 0o600},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
    ]
    out = runtime.output(bundle.sh("stat -c '%n %a %u %g %F' /dev/mine /dev/deep/er /dev/queue "
                                   "/dev/null"))
    assert out.splitlines() == [
        "/dev/mine 640 5 6 character special file", "/dev/deep/er 666 0 0 character special file",
        "/dev/queue 600 0 0 fifo", "/dev/null 600 0 0 character special file"]


def test_bind_directory_and_file(runtime, bundle, source):
    bundle.mount("/data", source, options=["bind"])
    bundle.mount("/etc/one", source / "file", options=["bind", "ro"])
    out = runtime.output(bundle.sh("cat /data/file /etc/one; echo x > /etc/one"), check=False)
    assert out == "from the host\n" * 2
    assert (source / "file").read_text() == "from the host\n"
    assert (bundle.rootfs / "data").is_dir()


def test_bind_source_is_relative_to_the_bundle(runtime, bundle):
    (bundle.path / "here").mkdir()
    (bundle.path / "here" / "file").write_text("relative\n")
    bundle.mount("/mnt/deep/er", "here", type="bind")
    assert runtime.output(bundle.sh("cat /mnt/deep/er/file")) == "relative\n"


@pytest.mark.parametrize("option,check", [
    ("ro", "ro"), ("nosuid", "nosuid"), ("nodev", "nodev"), ("noexec", "noexec"),
    ("noatime", "noatime"), ("nodiratime", "nodiratime")])
def test_bind_attributes(runtime, bundle, source, option, check):
    bundle.mount("/data", source, options=["bind", option])
    assert check in mounts(runtime.output(bundle.sh("cat /proc/mounts")))["/data"][1]


def test_ro_is_of_one_mount_and_rro_of_the_tree(runtime, bundle, source):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "sub"], check=True)
    try:
        bundle.mount("/plain", source, options=["rbind", "ro"])
        bundle.mount("/tree", source, options=["rbind", "rro"])
        seen = mounts(runtime.output(bundle.sh("cat /proc/mounts")))
        assert "ro" in seen["/plain"][1] and "rw" in seen["/plain/sub"][1]
        assert "ro" in seen["/tree"][1] and "ro" in seen["/tree/sub"][1]
    finally:
        subprocess.run(["umount", source / "sub"], check=True)


def test_bind_without_recursion_leaves_submounts_out(runtime, bundle, source):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "sub"], check=True)
    try:
        bundle.mount("/data", source, options=["bind"])
        assert "/data/sub" not in mounts(runtime.output(bundle.sh("cat /proc/mounts")))
    finally:
        subprocess.run(["umount", source / "sub"], check=True)


def test_tmpfs_options(runtime, bundle):
    bundle.mount("/work", "tmpfs", "tmpfs", ["size=1m", "mode=750", "uid=7", "noexec"])
    out = runtime.output(bundle.sh("stat -c '%a %u' /work; df -k /work | tail -1; cat /proc/mounts"))
    assert out.splitlines()[0] == "750 7"
    assert out.splitlines()[1].split()[1] == "1024"
    assert "noexec" in mounts(out)["/work"][1]


def test_tmpfs_takes_the_mode_of_what_it_covers(runtime, bundle):
    (bundle.rootfs / "covered").mkdir(mode=0o711)
    (bundle.rootfs / "covered").chmod(0o1731)
    bundle.mount("/covered", "tmpfs", "tmpfs")
    assert runtime.output(bundle.sh("stat -c %a /covered")) == "1731\n"


def test_tmpcopyup(runtime, bundle):
    top = bundle.rootfs / "filled"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "file").write_text("copied\n")
    (top / "sub" / "file").chmod(0o644)
    os.chown(top / "sub" / "file", 12, 34)
    (top / "link").symlink_to("sub/file")
    bundle.mount("/filled", "tmpfs", "tmpfs", ["tmpcopyup", "ro"])
    out = runtime.output(bundle.sh("cat /filled/link; stat -c '%a %u %g' /filled/sub/file; "
                                   "touch /filled/x 2>&1"), check=False)
    assert out.startswith("copied\n644 12 34\n") and "Read-only" in out


def test_read_only_dev_still_has_its_devices(runtime, bundle):
    bundle.config["mounts"][1]["options"].append("ro")
    out = runtime.output(bundle.sh("ls /dev/null /dev/pts/ptmx; touch /dev/x 2>&1"), check=False)
    assert "/dev/null" in out and "Read-only" in out


def test_writable_root(runtime, bundle):
    bundle.config["root"]["readonly"] = False
    runtime.run(bundle.sh("echo written > /file"))
    assert (bundle.rootfs / "file").read_text() == "written\n"


def test_masked_paths(runtime, bundle):
    (bundle.rootfs / "secret-dir").mkdir()
    (bundle.rootfs / "secret-dir" / "inside").write_text("x")
    (bundle.rootfs / "secret-file").write_text("x")
    bundle.config["linux"]["maskedPaths"] += ["/secret-dir", "/secret-file", "/not/there"]
    out = runtime.output(bundle.sh("ls /secret-dir | wc -l; wc -c < /secret-file; "
                                   "wc -c < /proc/keys; touch /secret-dir/x 2>&1"), check=False)
    assert out.split()[:3] == ["0", "0", "0"] and "Read-only" in out


def test_read_only_paths(runtime, bundle):
    bundle.config["root"]["readonly"] = False
    (bundle.rootfs / "fixed").mkdir()
    bundle.config["linux"]["readonlyPaths"] += ["/fixed", "/not/there"]
    out = runtime.output(bundle.sh("touch /fixed/x 2>&1; touch /free 2>&1; "
                                   "echo 1 > /proc/sys/kernel/panic"), check=False)
    assert "Read-only" in out and "/free" not in out


def test_missing_bind_source_is_named(runtime, bundle, leaks):
    bundle.mount("/data", "/no/such/source", options=["bind"])
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert 'error mounting "/no/such/source" to rootfs at "/data"' in error
    assert "No such file or directory" in error
    leaks.check()


def test_bad_file_system_option_is_explained(runtime, bundle, leaks):
    bundle.mount("/work", "tmpfs", "tmpfs", ["nonsense=1"])
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "Unknown parameter 'nonsense'" in error and '"/work"' in error
    leaks.check()


def test_missing_rootfs_is_named(runtime, bundle, leaks):
    bundle.config["root"]["path"] = "nowhere"
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "nowhere" in error and "No such file or directory" in error
    leaks.check()


def test_links_of_the_image_stay_inside(runtime, bundle, tmp_path, source):
    """A mount point that is a link out of the tree is made inside it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (bundle.rootfs / "escape").symlink_to(outside)
    (bundle.rootfs / "up").symlink_to("../../../../../.." + str(outside))
    (bundle.rootfs / "run-link").symlink_to("/run/absent")
    bundle.mount("/escape/a", source, options=["bind"])
    bundle.mount("/up/b", source, options=["bind"])
    bundle.mount("/run-link/c", source, options=["bind"])
    bundle.config["linux"]["devices"] = [
        {"path": "/escape/node", "type": "c", "major": 1, "minor": 3}]
    out = runtime.output(bundle.sh("cat /escape/a/file /up/b/file /run/absent/c/file"))
    assert out == "from the host\n" * 3
    assert os.listdir(outside) == []


@pytest.mark.parametrize("target", ["/proc/self", "/proc/1", "/proc/sys/kernel"])
def test_mounts_inside_proc_are_refused(runtime, bundle, source, target):
    bundle.mount(target, source, options=["bind"])
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "cannot be mounted because it is inside /proc" in error


def test_a_linked_mount_inside_proc_is_refused_too(runtime, bundle, source):
    (bundle.rootfs / "sneaky").symlink_to("/proc")
    bundle.mount("/sneaky/sys", source, options=["bind"])
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "inside /proc" in error


def test_files_that_lxcfs_replaces_may_be_mounted(runtime, bundle, source):
    bundle.mount("/proc/uptime", source / "file", options=["bind"])
    assert runtime.output(bundle.sh("cat /proc/uptime")) == "from the host\n"


def test_proc_must_be_a_real_directory(runtime, bundle):
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "elsewhere").mkdir()
    (bundle.rootfs / "proc").symlink_to("/elsewhere")
    error = runtime.fails("run", "--bundle", bundle.write().path, runtime.new_id(), code=1)
    assert "must be mounted on ordinary directory" in error


def test_nothing_propagates_to_the_host(runtime, bundle, source):
    """The bind's source is on a shared mount; a mount made inside stays inside."""
    subprocess.run(["mount", "--bind", source, source], check=True)
    subprocess.run(["mount", "--make-shared", source], check=True)
    try:
        bundle.mount("/data", source, options=["rbind", "rslave"])
        bundle.config["process"]["capabilities"] = {
            k: ["CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
        out = runtime.output(bundle.sh("mount -t tmpfs tmpfs /data/sub && echo mounted"))
        assert out == "mounted\n"
        assert not os.path.ismount(source / "sub")
    finally:
        subprocess.run(["umount", source], check=True)


def test_shared_propagation_reaches_the_host_when_asked_for(runtime, bundle, source):
    subprocess.run(["mount", "--bind", source, source], check=True)
    subprocess.run(["mount", "--make-shared", source], check=True)
    try:
        bundle.config["linux"]["rootfsPropagation"] = "shared"
        bundle.mount("/data", source, options=["rbind", "rshared"])
        bundle.config["process"]["capabilities"] = {
            k: ["CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
        runtime.run(bundle.sh("mount -t tmpfs tmpfs /data/sub"))
        assert os.path.ismount(source / "sub")
        subprocess.run(["umount", source / "sub"], check=True)
    finally:
        subprocess.run(["umount", source], check=True)


@pytest.mark.parametrize("propagation", ["private", "slave", "shared", "unbindable", "rprivate",
                                         "rslave", "rshared"])
def test_root_propagation(runtime, bundle, propagation):
    bundle.config["linux"]["rootfsPropagation"] = propagation
    root = [line for line in runtime.output(bundle.sh("cat /proc/self/mountinfo")).splitlines()
            if line.split()[4] == "/"][-1]
    tags = root.split(" - ")[0].split()[6:]
    if propagation.endswith("shared"):
        assert any(t.startswith("shared:") for t in tags)
    elif propagation == "unbindable":
        assert "unbindable" in tags
    else:
        assert not any(t.startswith("shared:") for t in tags)


def test_root_that_is_shared_and_has_a_space_in_its_name(runtime, rootfs_template, leaks, tmp_path):
    """The mount that holds it is found, or what is mounted inside would appear on the host."""
    bundle = Bundle(tmp_path / "a b", rootfs_template)
    subprocess.run(["mount", "--bind", bundle.rootfs, bundle.rootfs], check=True)
    subprocess.run(["mount", "--make-shared", bundle.rootfs], check=True)
    try:
        bundle.config["linux"]["rootfsPropagation"] = "shared"
        assert runtime.output(bundle.sh("echo here")) == "here\n"
        inside = [line for line in Path("/proc/self/mountinfo").read_text().splitlines()
                  if "/a\\040b/rootfs/" in line.split()[4]]
        assert not inside
    finally:
        subprocess.run(["umount", "--recursive", bundle.rootfs], check=True)
    leaks.check()


def test_no_pivot(runtime, bundle):
    out = runtime.output(bundle.sh("ls / | sort | tr '\\n' ' '; pwd"), "--no-pivot")
    assert out == "bin dev etc proc root run sys tmp var /\n"


def test_idmapped_bind(runtime, bundle, source):
    os.chown(source / "file", 1000, 1000)
    bundle.config["mounts"].append({
        "destination": "/data", "source": str(source), "options": ["bind"],
        "uidMappings": [{"containerID": 1000, "hostID": 2000, "size": 1}],
        "gidMappings": [{"containerID": 1000, "hostID": 3000, "size": 1}]})
    done = runtime.run(bundle.sh("stat -c '%u %g' /data/file"), check=False)
    if "set mount attributes" in done.stderr:
        pytest.skip("the file system of the test directory cannot be idmapped")
    assert done.stdout == "2000 3000\n"


def test_working_directory_is_made(runtime, bundle):
    bundle.config["process"]["cwd"] = "/not/there/yet"
    assert runtime.output(bundle.sh("pwd")) == "/not/there/yet\n"


def test_bound_symlink_itself(runtime, bundle, source):
    (source / "link").symlink_to("file")
    bundle.mount("/copied", source / "link", options=["bind"])
    assert runtime.output(bundle.sh("cat /copied")) == "from the host\n"


def test_remount_changes_attributes(runtime, bundle):
    bundle.mount("/dev/shm", type="tmpfs", options=["remount", "ro"])
    seen = mounts(runtime.output(bundle.sh("cat /proc/mounts")))
    assert {"ro", "noexec"} <= seen["/dev/shm"][1]


def test_cgroup_mount_shows_only_the_own_groups(runtime, bundle):
    out = runtime.output(bundle.sh("cat /sys/fs/cgroup/memory/cgroup.procs; ls /sys/fs/cgroup"))
    assert out.split()[0] == "1"
    assert {"memory", "pids", "devices", "freezer"} <= set(out.split())


def test_modes_of_what_the_runtime_makes(runtime, bundle):
    """Mount points get fixed modes whatever the caller's umask is."""
    old = os.umask(0o077)
    try:
        bundle.mount("/made/dir", "tmpfs", "tmpfs")
        runtime.run(bundle.sh("true"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((bundle.rootfs / "made").stat().st_mode) == 0o755
