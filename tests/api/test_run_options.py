"""What `docker run`'s options do inside the container."""

import os

import pytest

from tests.lib.daemon import until


def run(daemon, *args, **kw):
    return daemon.out("run", "--rm", *args, **kw)


def test_environment_and_directory(daemon, tmp_path):
    envfile = tmp_path / "env"
    envfile.write_text("FROM_FILE=f\n# comment\n")
    out = run(daemon, "-e", "A=1", "-e", "B=two words", "--env-file", str(envfile), "-w", "/made/here",
              "busybox", "sh", "-c", 'echo "$A|$B|$FROM_FILE|$PWD"')
    assert out == "1|two words|f|/made/here"


@pytest.mark.parametrize("user,expected", [
    ("1000", "1000:1001"), ("1000:5", "1000:5"), ("app", "1000:1001"), ("nobody", "65534:65534"),
    ("0:2000", "0:2000")])
def test_user(daemon, user, expected):
    assert run(daemon, "-u", user, "busybox", "sh", "-c", "echo $(id -u):$(id -g)") == expected


def test_unknown_user_is_an_error(daemon):
    done = daemon.docker("run", "--rm", "-u", "nosuchuser", "busybox", "true", check=False)
    assert done.returncode in (125, 126) and "nosuchuser" in done.stderr
    assert daemon.get("/containers/json?all=1").json == []


def test_additional_groups(daemon):
    out = run(daemon, "-u", "app", "--group-add", "nogroup", "--group-add", "777", "busybox", "id",
              "-G")
    assert set(out.split()) >= {"1001", "2000", "65534", "777"}


def test_bind_mounts(daemon, tmp_path):
    (tmp_path / "f").write_text("host")
    assert run(daemon, "-v", f"{tmp_path}:/m", "busybox", "cat", "/m/f") == "host"
    done = daemon.docker("run", "--rm", "-v", f"{tmp_path}:/m:ro", "busybox", "touch", "/m/g",
                         check=False)
    assert done.returncode == 1 and "Read-only" in done.stderr
    run(daemon, "--mount", f"type=bind,src={tmp_path},dst=/m", "busybox", "touch", "/m/made")
    assert (tmp_path / "made").exists()
    done = daemon.docker("run", "--rm", "--mount", "type=bind,src=/no/such,dst=/m", "busybox",
                         "true", check=False)
    assert done.returncode == 125
    assert "bind source path does not exist: /no/such" in done.stderr
    assert daemon.get("/containers/json?all=1").json == []


def test_volumes(daemon):
    run(daemon, "-v", "opt-volume:/data", "busybox", "sh", "-c", "echo kept > /data/f")
    assert run(daemon, "--mount", "type=volume,src=opt-volume,dst=/d", "busybox", "cat",
               "/d/f") == "kept"
    daemon.docker("volume", "rm", "opt-volume")


def test_tmpfs(daemon):
    out = run(daemon, "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", "grep ' /t ' /proc/mounts")
    assert out.startswith("tmpfs /t tmpfs") and "size=1024k" in out


def test_memory_limit_kills(daemon):
    done = daemon.docker("run", "--name", "oom", "-m", "20m", "--memory-swap", "20m", "busybox",
                         "sh", "-c", "x=a; while :; do x=$x$x; done", check=False)
    assert done.returncode == 137
    assert daemon.inspect("oom")["State"]["OOMKilled"]
    daemon.docker("rm", "oom")


def test_pids_limit(daemon):
    done = daemon.docker("run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c",
                         "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", check=False)
    assert "fork" in done.stderr


def test_cpu_limits_reach_the_cgroup(daemon):
    daemon.docker("run", "-d", "--name", "cpu", "--cpus", "0.5", "--cpu-shares", "512",
                  "--cpuset-cpus", "0", "busybox", "sleep", "1000")
    assert daemon.out("exec", "cpu", "grep", "Cpus_allowed_list", "/proc/self/status").endswith("0")
    host = daemon.inspect("cpu")["HostConfig"]
    assert (host["NanoCpus"], host["CpuShares"], host["CpusetCpus"]) == (500000000, 512, "0")
    daemon.docker("rm", "-f", "cpu")


def test_devices(daemon):
    assert "No such file" in daemon.docker("run", "--rm", "busybox", "ls", "/dev/mine",
                                           check=False).stderr
    out = run(daemon, "--device", "/dev/kmsg:/dev/mine:r", "--cap-add", "SYSLOG", "busybox", "sh", "-c",
              "ls -l /dev/mine; dd if=/dev/mine bs=8192 count=1 2>/dev/null >&2 && echo read; "
              "(echo x > /dev/mine) 2>/dev/null || echo refused")
    # root still obeys the device cgroup
    assert "1,  11" in out and "read" in out and "refused" in out
    done = daemon.docker("run", "--rm", "--device", "/dev/nothing", "busybox", "true", check=False)
    assert done.returncode in (125, 126) and "/dev/nothing" in done.stderr


def effective(text):
    return int(text.split()[1], 16)


def test_capabilities(daemon):
    def caps(*args):
        return effective(run(daemon, *args, "busybox", "grep", "CapEff", "/proc/self/status"))
    default = caps()
    assert default == 0xa80425fb
    assert caps("--cap-drop", "ALL") == 0
    assert caps("--cap-drop", "ALL", "--cap-add", "CHOWN") == 1
    assert caps("--cap-add", "SYS_ADMIN") == default | 1 << 21
    assert caps("--privileged") & (1 << 21)


def test_read_only_root(daemon):
    done = daemon.docker("run", "--rm", "--read-only", "--tmpfs", "/t", "busybox", "sh", "-c",
                         "touch /t/x && echo tmp-ok; touch /x", check=False)
    assert done.returncode == 1 and done.stdout == "tmp-ok\n" and "Read-only" in done.stderr


def test_security_options(daemon):
    def status(*args):
        return run(daemon, *args, "busybox", "sh", "-c",
                   "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | awk '{print $2}'").split()
    assert status() == ["0", "2"]
    assert status("--security-opt", "no-new-privileges", "--security-opt",
                  "seccomp=unconfined") == ["1", "0"]
    assert status("--privileged")[1] == "0"


def test_ulimits_and_sysctls(daemon):
    assert run(daemon, "--ulimit", "nofile=123:456", "busybox", "sh", "-c",
               "ulimit -n; ulimit -Hn") == "123\n456"
    assert run(daemon, "--sysctl", "net.ipv4.ip_forward=1", "--network", "none", "busybox", "cat",
               "/proc/sys/net/ipv4/ip_forward") == "1"


def test_hostname(daemon):
    assert run(daemon, "--hostname", "island", "busybox", "sh", "-c",
               "hostname; cat /etc/hostname").split() == ["island", "island"]
    assert "127.0.0.1\tlocalhost" in run(daemon, "busybox", "cat", "/etc/hosts")
    out = daemon.out("run", "-d", "busybox", "sleep", "1000")
    assert daemon.out("exec", out, "hostname") == out[:12]
    daemon.docker("rm", "-f", out)


def test_entrypoint_and_init(daemon):
    assert run(daemon, "--entrypoint", "echo", "busybox", "a", "b") == "a b"
    assert run(daemon, "busybox", "sh", "-c", "echo $$") == "1"


def test_networks(daemon):
    assert run(daemon, "--network", "none", "busybox", "sh", "-c",
               "ls /sys/class/net") == "lo"
    host = set(os.listdir("/sys/class/net"))
    assert set(run(daemon, "--network", "host", "busybox", "ls", "/sys/class/net").split()) >= host - {"bonding_masters"}
    assert run(daemon, "busybox", "ip", "-o", "addr").count("127.0.0.1") == 1


def test_publishing_ports_says_what_to_do(daemon):
    done = daemon.docker("run", "--rm", "-p", "8080:80", "busybox", "true", check=False)
    assert done.returncode == 125 and "--network host" in done.stderr
    assert daemon.get("/containers/json?all=1").json == []


def test_shm_size(daemon):
    out = run(daemon, "--shm-size", "5m", "busybox", "sh", "-c", "grep ' /dev/shm ' /proc/mounts")
    assert "size=5120k" in out


def test_log_driver_none(daemon):
    daemon.docker("run", "--name", "nolog", "--log-driver", "none", "busybox", "echo", "x")
    reply = daemon.get("/containers/nolog/logs?stdout=1")
    assert reply.status == 501
    daemon.docker("rm", "nolog")


def test_cidfile_and_labels(daemon, tmp_path):
    cidfile = tmp_path / "cid"
    out = daemon.out("create", "--cidfile", str(cidfile), "--label", "a=b=c", "--label", "empty", "busybox")
    assert cidfile.read_text() == out
    assert daemon.inspect(out)["Config"]["Labels"] == {"a": "b=c", "empty": "", "org.isle.test": "busybox"}
    daemon.docker("rm", out)


def test_unknown_runtime_and_network_are_refused(daemon):
    done = daemon.docker("run", "--rm", "--network", "nosuch", "busybox", "true", check=False)
    assert done.returncode == 125 and "nosuch" in done.stderr
    done = daemon.docker("run", "--rm", "--runtime", "nosuch", "busybox", "true", check=False)
    assert done.returncode == 125 and "nosuch" in done.stderr
    assert daemon.get("/containers/json?all=1").json == []
