#!/usr/bin/python3
"""Claim: `isle-runtime run` of busybox `true` takes at most 5 ms, 0.6 x crun and 0.2 x runc."""

import json
import os
import pathlib
import shutil
import sys
import tempfile

import frame
import peers

peers.enter_private_cgroups()

ROUNDS = int(os.environ.get("ROUNDS", "50"))


def applies(includes):
    """Calls of this architecture that need no capability."""
    return not includes.get("caps") and "amd64" in includes.get("arches", ["amd64"])


def bundle(home, program=("true",), seccomp=False):
    """A directory with runc's example spec; `seccomp` adds the policy of Debian's
    containers-common, which is docker's."""
    frame.install("busybox-static", "runc", "crun", "golang-github-containers-common")
    home = pathlib.Path(home)
    home.mkdir(exist_ok=True)
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
        (home / "rootfs" / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", home / "rootfs/bin/busybox")
    for name in ("true", "sleep"):
        (home / "rootfs/bin" / name).symlink_to("busybox")
    frame.run_quietly(["runc", "spec", "-b", home])
    config = json.loads((home / "config.json").read_text())
    config["process"]["args"] = list(program)
    config["process"]["terminal"] = False
    config["root"]["readonly"] = False
    if seccomp:
        policy = json.loads(pathlib.Path("/usr/share/containers/seccomp.json").read_text())
        config["linux"]["seccomp"] = {
            "defaultAction": policy["defaultAction"],
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{key: call[key] for key in ("names", "action", "args", "errnoRet")
                          if call.get(key)}
                         for call in policy["syscalls"]
                         if not call.get("excludes") and applies(call.get("includes") or {})]}
    config["process"].pop("rlimits", None)  # raising them needs CAP_SYS_RESOURCE
    (home / "config.json").write_text(json.dumps(config))
    return home


def main():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        where = bundle(home)
        runtimes = {"isle-runtime": frame.built("isle-runtime"), "crun": "crun", "runc": "runc"}
        figures = frame.interleave({
            label: frame.timed([program, "--root", f"{home}/state-{label}", "run", "-b", where,
                                f"bench-{label}"])
            for label, program in runtimes.items()
        }, ROUNDS, warmup=3)
    return frame.report(
        "runtime-start", "runtime run of the default spec, busybox true (wall time)", figures,
        goals=[("<= 5 ms", lambda m: m["isle-runtime"] <= 0.005),
               ("<= 0.6 x crun", lambda m: m["isle-runtime"] <= 0.6 * m["crun"]),
               ("<= 0.2 x runc", lambda m: m["isle-runtime"] <= 0.2 * m["runc"])])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
