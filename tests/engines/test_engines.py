"""Engines from Debian with isle-runtime in the place of their own runtime: podman, containerd
and dockerd. Each is started here on directories of its own, in a mount namespace of its own
and, where it would set up networks, in a network namespace of its own."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from tests.lib import images, vm
from tests.lib.daemon import program, until


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def archive(home):
    path = home / "busybox.tar"
    images.docker_archive(path, ["docker.io/library/busybox:latest"], [images.busybox_layer()],
                          images.BUSYBOX_CONFIG)
    return path


@pytest.fixture(scope="module", autouse=True)
def parents_of_groups():
    """Engines leave the empty groups that held their containers."""
    yield
    for controller in pathlib.Path("/sys/fs/cgroup").iterdir():
        for name in ("docker", "libpod_parent", "default"):
            try:
                (controller / name).rmdir()
            except OSError:
                pass  # not there, or somebody's


class Client:
    """Runs an engine's command line."""

    def __init__(self, command, env=None):
        self.command = [str(word) for word in command]
        self.env = {**os.environ, **(env or {})}

    def __call__(self, *words, check=True, input=None):
        done = subprocess.run([*self.command, *map(str, words)], env=self.env, text=True,
                              capture_output=True, timeout=60, input=input,
                              stdin=subprocess.DEVNULL if input is None else None)
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def out(self, *words, **how):
        return self(*words, **how).stdout.rstrip("\n")


def stop(process):
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(params=["container", "vm"])
def kind(request, monkeypatch):
    if request.param == "vm":
        monkeypatch.setenv("ISLE_VM_KERNEL", str(vm.debian_kernel()))
    return request.param


@pytest.fixture
def runtime(kind, tmp_path):
    """The program, by the name that decides what it makes."""
    link = tmp_path / ("isle-runtime-vm" if kind == "vm" else "isle-runtime")
    link.symlink_to(program("isle-runtime"))
    return link


def docker_like(client, runtime_of, kind):
    """What docker's command line and podman's have in common."""
    assert client.out("run", "--rm", "--network", "none", "busybox", "echo", "hello") == "hello"
    assert client("run", "--rm", "--network", "none", "busybox", "sh", "-c", "exit 7",
                  check=False).returncode == 7
    assert client.out("run", "-i", "--rm", "--network", "none", "busybox", "cat",
                      input="through\n") == "through"
    id = client.out("run", "-d", "--name", "box", "--network", "none", "-m", "64m", "--pids-limit",
                    "50", "busybox", "sleep", "1000")
    assert "isle-runtime" in runtime_of(id)
    assert client.out("exec", "box", "cat", "/proc/1/comm") == "sleep"
    assert client.out("exec", "-e", "A=b", "-w", "/tmp", "box", "sh", "-c", "echo $A $PWD"
                      ) == "b /tmp"
    client("pause", "box")
    assert client.out("inspect", "-f", "{{.State.Status}}", "box") == "paused"
    client("unpause", "box")
    assert client.out("exec", "box", "echo", "on") == "on"
    own = client.out("exec", "box", "uname", "-r") != os.uname().release
    assert own == (kind == "vm")
    client("update", "--cpu-shares", "512", "box")
    if kind == "container":  # they look for processes on the host
        assert "sleep" in client.out("top", "box")
    client("stop", "-t", "1", "box")
    assert client.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box") == "exited 137"
    client("start", "box")
    client("kill", "box")
    client("rm", "-f", "box")
    assert id[:12] not in client.out("ps", "-aq")


def bridged(client, enter, publish, tmp_path):
    """An engine's own network: the container is at its bridge, and is reached at its address and,
    where the engine has that, at a published port. `enter` goes to the engine's own network."""
    shown = client.out("run", "--rm", "busybox", "sh", "-c",
                       "cat /sys/class/net/eth0/address; ip -o -4 address show dev eth0; ip route;"
                       " cat /etc/resolv.conf /etc/hosts; hostname")
    lines = shown.splitlines()
    address = lines[1].split("inet ")[1].split("/")[0]
    assert "default via" in shown and "nameserver" in shown
    assert [address, lines[-1]] in [line.split()[:2] for line in lines]  # in its /etc/hosts
    client("run", "-d", "--name", "web", *publish, "busybox", "sh", "-c",
           "mkdir /www; hostname > /www/name; httpd -h /www; exec sleep 1000")
    address, mac, gateway = client.out(
        "inspect", "-f", "{{with .NetworkSettings}}{{.IPAddress}} {{.MacAddress}} {{.Gateway}}{{end}}",
        "web").split()
    assert client.out("exec", "web", "cat", "/sys/class/net/eth0/address") == mac

    def get(url):
        return subprocess.run([*enter, "curl", "-s", "-m", "5", url], capture_output=True, text=True,
                              check=False).stdout.strip()

    name = client.out("exec", "web", "hostname")
    until(lambda: get(f"http://{address}/name") == name, 20, "an answer from inside")
    if publish:
        assert get("http://127.0.0.1:8080/name") == name
    assert client.out("run", "--rm", "busybox", "wget", "-q", "-O", "-", f"http://{address}/name"
                      ) == name
    (tmp_path / "file").write_text("from outside")
    server = subprocess.Popen([*enter, "python3", "-m", "http.server", "--bind", gateway, "-d",
                               tmp_path, "8081"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: get(f"http://{gateway}:8081/file"), 20, "the server outside")
        assert client.out("exec", "web", "wget", "-q", "-O", "-", f"http://{gateway}:8081/file"
                          ) == "from outside"
    finally:
        stop(server)
    client("kill", "web")
    client("rm", "-f", "web")
    links = subprocess.run([*enter, "ip", "-br", "link"], capture_output=True, text=True, check=True)
    assert "veth" not in links.stdout and "tap" not in links.stdout


@pytest.fixture
def own_network():
    """Words that go before a command which is to run in namespaces of its own."""
    # Its own /run/netns, too, for what it keeps there has the host's names.
    holder = subprocess.Popen(["unshare", "-m", "-n", "sh", "-c", "mount --make-rprivate / && mkdir -p"
                               " /run/netns && mount -t tmpfs none /run/netns && ip link set lo up &&"
                               " echo ready && exec sleep infinity"], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"ready\n"
    yield ["nsenter", "-t", str(holder.pid), "-m", "-n"]
    stop(holder)


@pytest.fixture
def enter():
    return []


@pytest.fixture
def podman(archive, runtime, enter):
    base = pathlib.Path(tempfile.mkdtemp(prefix="isle-podman-"))  # its paths must be short
    (base / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    # Its defaults raise limits, which needs a capability that the machine may not give.
    (base / "containers.conf").write_text(
        '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
        f'conmon_env_vars=["PATH={os.environ["PATH"]}","ISLE_VM_KERNEL={vm.debian_kernel()}"]\n'
        '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n')
    client = Client([*enter, "podman", "--root", base / "root", "--runroot", base / "run", "--tmpdir",
                     base / "tmp", "--storage-driver", "overlay", "--runtime",
                     runtime], {"CONTAINERS_CONF": str(base / "containers.conf")})
    try:
        client("load", "-q", "-i", archive)
        yield client
    finally:
        client("system", "reset", "-f", check=False)
        shutil.rmtree(base, ignore_errors=True)


def test_podman(podman, kind):
    docker_like(podman, lambda id: podman.out("inspect", "-f", "{{.OCIRuntime}}", id), kind)


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_podman_with_layers(podman):
    """The layers and the writable layer are podman's own: found by the mount, and left as it wants
    them."""
    podman("run", "--name", "box", "--network", "none", "--annotation", "isle.vm.rootfs=erofs",
           "busybox", "sh", "-c",
           "rm -r /home; mkdir /home; date >> /home/times; wc -l < /home/times; mount | head -n 1")
    assert podman.out("logs", "box").startswith("1\noverlay on / type overlay")
    assert podman.out("start", "-a", "box").splitlines()[0] == "1"
    assert "A /home/times" in podman.out("diff", "box")
    podman("commit", "-q", "box", "made")
    assert podman.out("run", "--rm", "--network", "none", "--annotation", "isle.vm.rootfs=erofs",
                      "made", "ls", "/home") == "times"
    podman("rm", "box")


class TestPodmanNetwork:
    @pytest.fixture
    def enter(self, own_network):
        return own_network

    def test_bridge(self, podman, enter, tmp_path):
        bridged(podman, enter, ["-p", "8080:80"], tmp_path)


@pytest.mark.parametrize("kind", ["container"], indirect=True)
def test_podman_checkpoint(podman, tmp_path):
    """In place, and by a file under another name, which gets what podman adds to the images."""
    def last(name):
        return int(podman.out("logs", "--tail", "1", name) or 0)

    podman("run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c",
           "echo kept >/file; while :; do i=$((i+1)); echo $i; usleep 20000; done")
    until(lambda: last("box") > 3, what="the counter to count")
    podman("container", "checkpoint", "box")
    assert podman.out("inspect", "-f", "{{.State.Status}}", "box") == "exited"
    stopped_at = last("box")
    podman("container", "restore", "box")
    until(lambda: last("box") > stopped_at, what="the counter to go on")
    podman("container", "checkpoint", "-e", tmp_path / "box.tar.gz", "box")
    stopped_at = last("box")
    podman("rm", "-f", "box")
    podman("container", "restore", "-i", tmp_path / "box.tar.gz", "-n", "other")
    until(lambda: last("other") > stopped_at, what="the imported counter to go on")
    assert podman.out("exec", "other", "cat", "/file") == "kept"
    podman("rm", "-f", "other")


@pytest.fixture
def containerd(tmp_path, kind):
    """Made after `kind`, whose environment it hands on."""
    base = tmp_path / "containerd"
    base.mkdir()
    socket = f"/tmp/isle-test-containerd-{os.getpid()}.sock"
    config = base / "config.toml"
    config.write_text(f'version = 2\nroot = "{base}/root"\nstate = "/run/isle-test-{os.getpid()}"\n'
                      f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                      f'[grpc]\naddress = "{socket}"\n')
    with open(base / "log", "wb") as log:
        process = subprocess.Popen(["containerd", "-c", config, "-l", "warn"], stdout=log, stderr=log)
    try:
        until(lambda: os.path.exists(socket), 30, "containerd's socket")
        yield Client(["ctr", "-a", socket])
    finally:
        stop(process)
        subprocess.run(["rm", "-rf", f"/run/isle-test-{os.getpid()}", socket], check=False)


def test_containerd(containerd, archive, runtime):
    ctr = containerd
    ctr("images", "import", archive)
    image = "docker.io/library/busybox:latest"
    run = ("run", "--runtime", "io.containerd.runc.v2", "--runc-binary", runtime)
    try:
        assert ctr.out(*run, "--rm", image, "one", "echo", "hello") == "hello"
        ctr(*run, "-d", image, "box", "sleep", "1000")
        assert "RUNNING" in ctr.out("tasks", "ls")
        assert ctr.out("tasks", "exec", "--exec-id", "e1", "box", "cat", "/proc/1/comm") == "sleep"
        ctr("tasks", "pause", "box")
        assert "PAUSED" in ctr.out("tasks", "ls")
        ctr("tasks", "resume", "box")
        assert "memory" in ctr.out("tasks", "metrics", "box")
        ctr("tasks", "kill", "-s", "SIGKILL", "box")
        until(lambda: "STOPPED" in ctr.out("tasks", "ls"), what="the end")
        ctr("tasks", "rm", "box", check=False)
    finally:
        ctr("tasks", "kill", "-s", "SIGKILL", "box", check=False)
        ctr("tasks", "rm", "-f", "box", check=False)
        ctr("containers", "rm", "box", check=False)
    assert "box" not in ctr.out("containers", "ls")


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_containerd_with_layers(containerd, archive, runtime):
    ctr = containerd
    ctr("images", "import", archive)
    out = ctr.out("run", "--rm", "--runtime", "io.containerd.runc.v2", "--runc-binary", runtime,
                  "--annotation", "isle.vm.rootfs=erofs", "docker.io/library/busybox:latest", "layers",
                  "sh", "-c", "rm -r /home; mkdir /home; ls -A /home; mount | head -n 1")
    assert out.startswith("overlay on / type overlay")


@pytest.fixture
def dockerd(tmp_path, runtime):
    base = tmp_path / "dockerd"
    base.mkdir()
    socket = f"/tmp/isle-test-docker-{os.getpid()}.sock"
    state = f"/run/isle-test-docker-{os.getpid()}"
    (base / "daemon.json").write_text(json.dumps(
        {"runtimes": {"isle": {"path": str(runtime)}}, "default-runtime": "isle"}))
    script = (f"mount --make-rprivate /; ip link set lo up; exec dockerd --config-file {base}/daemon.json"
              f" --data-root {base}/data --exec-root {state} -p {base}/pid -H unix://{socket}"
              " --storage-driver overlay2 --iptables=false --ip-masq=false"
              " --exec-opt native.cgroupdriver=cgroupfs --log-level error")
    with open(base / "log", "wb") as log:
        process = subprocess.Popen(["unshare", "-m", "-n", "sh", "-c", script], stdout=log,
                                   stderr=log, stdin=subprocess.DEVNULL)
    client = Client(["docker", "-H", f"unix://{socket}"], {"DOCKER_CONFIG": str(base)})
    try:
        client.pid = process.pid
        until(lambda: client("version", check=False).returncode == 0, 60,
              lambda: f"dockerd: {(base / 'log').read_text()[-2000:]}")
        yield client
    finally:
        stop(process)
        subprocess.run(["rm", "-rf", state, socket], check=False)


def test_dockerd(dockerd, archive, kind):
    dockerd("load", "-q", "-i", archive)
    docker_like(dockerd, lambda id: json.loads(dockerd.out("info", "-f", "{{json .Runtimes}}"))
                [dockerd.out("inspect", "-f", "{{.HostConfig.Runtime}}", id)]["path"], kind)


@pytest.fixture
def layers_for_all(monkeypatch):
    monkeypatch.setenv("ISLE_VM_ROOTFS", "erofs")


@pytest.mark.parametrize("kind", ["vm"], indirect=True)
def test_dockerd_with_layers(layers_for_all, dockerd, archive):
    """Debian's knows no annotations: its environment decides."""
    dockerd("load", "-q", "-i", archive)
    out = dockerd.out("run", "--name", "box", "--network", "none", "busybox", "sh", "-c",
                      "rm -r /home; mkdir /home; echo > /home/new; mount | head -n 1")
    assert out.startswith("overlay on / type overlay")
    assert "A /home/new" in dockerd.out("diff", "box")
    dockerd("rm", "box")


def test_dockerd_network(dockerd, archive, tmp_path):
    dockerd("load", "-q", "-i", archive)
    bridged(dockerd, ["nsenter", "-t", str(dockerd.pid), "-n"], ["-p", "8080:80"], tmp_path)
