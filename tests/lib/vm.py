"""Kernels, initial ramdisks and runs of isle-vmm for tests and benches."""

import fcntl
import gzip
import os
import pathlib
import shutil
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]
VMM = TOP / "build" / "src" / "bin" / "isle-vmm"
CACHE = pathlib.Path("/var/cache/isle-test")

# Quiet, without two seconds of cryptography testing itself, and a panic ends the machine.
CMDLINE = "console=ttyS0 quiet cryptomgr.notests panic=-1"

# In front of a test kernel's code, which starts at `start` in 32-bit mode.
MULTIBOOT = """
.code32
.section .text
.align 4
.long 0x1badb002, 0, -0x1badb002
.globl start
start:
"""

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
"""


def debian_kernel():
    """vmlinuz of Debian's cloud kernel: the package unpacked aside, not installed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = sorted((CACHE / "kernel" / "boot").glob("vmlinuz-*"))
        if found:
            return found[-1]
        depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"],
                                 capture_output=True, text=True, check=True).stdout
        package = next(line.split()[-1] for line in depends.splitlines()
                       if "Depends: linux-image" in line)
        staging = CACHE / "kernel.new"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        download = ["apt-get", "download", "-qq", package]
        if subprocess.run(download, cwd=staging, check=False, capture_output=True).returncode != 0:
            # The lists are older than the mirror.
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(download, cwd=staging, check=True)
        archive = next(staging.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, staging], check=True)
        archive.unlink()
        staging.rename(CACHE / "kernel")
        return next((CACHE / "kernel" / "boot").glob("vmlinuz-*"))


def _entry(number, name, mode, data=b""):
    header = "070701" + "".join(f"{value:08x}" for value in (
        number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0))
    head = header.encode() + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


SERIAL_LOGIN = """#!/bin/sh
set -e
cp -a "$2" "$1/usr/lib/modules"
: > "$1/etc/machine-id"
sed -i "s/^root:[^:]*:/root::/" "$1/etc/shadow"
cat > "$1/etc/systemd/system/poweroff-when-up.service" <<end
[Unit]
ConditionKernelCommandLine=poweroff-when-up
After=multi-user.target getty.target
[Service]
Type=oneshot
ExecStart=/bin/systemctl poweroff
[Install]
WantedBy=graphical.target
end
chroot "$1" systemctl -q enable poweroff-when-up.service
"""


def debian_disk():
    """An ext4 image with a minimal Debian that systemd boots: root has no password at the
    serial port; with `poweroff-when-up` on the kernel's command line it goes off when up."""
    modules = debian_kernel().parents[1] / "lib" / "modules"
    with open(CACHE / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = CACHE / "debian.ext4"
        if found.exists():
            return found
        tree, image = CACHE / "debian.new", CACHE / "debian.ext4.new"
        shutil.rmtree(tree, ignore_errors=True)
        hook = CACHE / "hook"
        hook.write_text(SERIAL_LOGIN)
        hook.chmod(0o755)
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase",
                        "--include=systemd,systemd-sysv,udev,kmod,iproute2",
                        f"--customize-hook={hook} $1 {modules}", "bookworm", tree], check=True)
        image.unlink(missing_ok=True)
        subprocess.run(["truncate", "-s", "1G", image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-d", tree, image], check=True)
        shutil.rmtree(tree)
        image.rename(found)
        return found


# For initrd(): what it takes to go on from a disk, as it is or under a layer in memory.
DISK_MODULES = ("virtio_pci", "virtio_blk", "ext4", "overlay", "virtio_net", "autofs4")
SWITCH_TO_DISK = """
/bin/busybox mount -t ext4 /dev/vda /mnt
exec /bin/busybox switch_root /mnt /sbin/init
"""
SWITCH_TO_OVERLAY = """
/bin/busybox mkdir /lower /layer
/bin/busybox mount -t ext4 -o ro /dev/vda /lower
/bin/busybox mount -t tmpfs none /layer
/bin/busybox mkdir /layer/upper /layer/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work o /mnt
exec /bin/busybox switch_root /mnt /sbin/init
"""


def module_files(names):
    """The modules of Debian's kernel and what they depend on, in the order of loading."""
    root = next((debian_kernel().parents[1] / "lib" / "modules").iterdir())
    known = {path.stem.replace("-", "_"): path for path in root.rglob("*.ko")}
    inside = {pathlib.Path(line).stem.replace("-", "_")
              for line in (root / "modules.builtin").read_text().splitlines()}
    order = {}

    def add(name):
        if name in order or name in inside:
            return
        assert name in known, f"Debian's kernel has no module {name}"
        data = known[name].read_bytes()
        depends = data.split(b"\0depends=", 1)[1].split(b"\0", 1)[0].decode()
        for needed in filter(None, depends.split(",")):
            add(needed.replace("-", "_"))
        order[name] = data

    for name in names:
        add(name)
    return order


def guest_program(path, name):
    """A static program from tests/vm/guest."""
    subprocess.run(["cc", "-static", "-O1", "-Wall", "-Werror", "-o", path,
                    TOP / "tests" / "vm" / "guest" / f"{name}.c"], check=True)
    return path


def initrd(path, script, modules=(), programs=()):
    """A gzipped newc archive with busybox, programs in /bin, and an /init that loads modules
    and runs `script`."""
    entries = [(name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "lib", "mnt")]
    entries.append(("bin/busybox", 0o100755, pathlib.Path("/bin/busybox").read_bytes()))
    entries += [(f"bin/{program.name}", 0o100755, program.read_bytes()) for program in programs]
    load = ""
    for name, data in module_files(modules).items():
        entries.append((f"lib/{name}.ko", 0o100644, data))
        load += f"/bin/busybox insmod /lib/{name}.ko\n"
    entries.append(("init", 0o100755, (INIT + load + script).encode()))
    archive = b"".join(_entry(i + 1, *entry) for i, entry in enumerate(entries))
    archive += _entry(0, "TRAILER!!!", 0)
    with gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as out:
        out.write(archive)
    return path


def assemble(path, source, address=0x100000):
    """A multiboot image at 1 MiB or elsewhere from GNU assembler text for 32-bit mode."""
    obj = str(path) + ".o"
    subprocess.run(["as", "--32", "-o", obj, "-"], input=(MULTIBOOT + source).encode(), check=True)
    subprocess.run(["ld", "-m", "elf_i386", f"-Ttext={address:#x}", "-e", "start", "-N", "-o", path,
                    obj], check=True)
    return path


def run(*args, timeout=120, **kwargs):
    """Runs isle-vmm to its end: (exit status, output, errors)."""
    done = subprocess.run([VMM, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=timeout, check=False, **kwargs)
    return (done.returncode, done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"))


def machine_pid(process):
    """The process that runs the machine, of an isle-vmm whose guest runs."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])
