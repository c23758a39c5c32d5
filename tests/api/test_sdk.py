"""The Python SDK of Docker, as Portainer's and Testcontainers' kin use the API."""

import io
import tarfile

import docker
import pytest


@pytest.fixture(scope="module")
def sdk(daemon):
    client = docker.DockerClient(base_url=daemon.host, version="auto", timeout=60)
    yield client
    client.close()


def test_version_and_info(sdk):
    assert sdk.ping() and sdk.version()["ApiVersion"] == "1.47"
    assert sdk.info()["Driver"] == "overlay2"


def test_run(sdk):
    assert sdk.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        sdk.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert failed.value.exit_status == 3 and failed.value.stderr == b"bad\n"


def test_life_of_a_container(sdk):
    c = sdk.containers.run("busybox", ["sh", "-c", "echo ready; sleep 1000"], detach=True,
                           name="sdk", labels={"by": "sdk"}, mem_limit="64m",
                           environment={"A": "1"})
    assert c.status in ("created", "running")
    c.reload()
    assert c.status == "running" and c.labels["by"] == "sdk" and c.image.tags == ["busybox:latest"]
    assert [x.name for x in sdk.containers.list(filters={"label": "by=sdk"})] == ["sdk"]
    code, output = c.exec_run(["sh", "-c", "echo $A; exit 4"])
    assert (code, output) == (4, b"1\n")
    code, (out, err) = c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
    assert (out, err) == (b"o\n", b"e\n")
    assert next(c.logs(stream=True)) == b"ready\n"
    assert c.top()["Processes"]
    assert c.stats(stream=False)["memory_stats"]["usage"] > 0
    c.pause()
    c.unpause()
    c.rename("sdk2")
    c.restart(timeout=0)
    c.stop(timeout=0)
    assert c.wait()["StatusCode"] == 137
    c.remove()
    with pytest.raises(docker.errors.NotFound):
        sdk.containers.get("sdk2")


def test_archives(sdk):
    c = sdk.containers.create("busybox")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"text"))
    assert c.put_archive("/root", data.getvalue())
    stream, stat = c.get_archive("/root/f")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("f").read() == b"text"
    assert stat["size"] == 4
    assert {"Kind": 1, "Path": "/root/f"} in c.diff()
    c.remove()


def test_images_and_volumes(sdk):
    image = sdk.images.get("busybox")
    assert image.tag("sdk/name", "1") and "sdk/name:1" in sdk.images.get("sdk/name:1").tags
    sdk.images.remove("sdk/name:1")
    loaded = sdk.images.load(b"".join(image.save(named=True)))
    assert loaded[0].id == image.id
    assert image.history()
    volume = sdk.volumes.create("sdk-volume", labels={"a": "b"})
    assert volume.attrs["Labels"] == {"a": "b"}
    volume.remove()
    with pytest.raises(docker.errors.ImageNotFound):
        sdk.images.get("nothing-here")


def test_errors(sdk):
    with pytest.raises(docker.errors.ImageNotFound):
        sdk.containers.create("nothing-here")
    c = sdk.containers.create("busybox", name="sdk-twice")
    with pytest.raises(docker.errors.APIError) as conflict:
        sdk.containers.create("busybox", name="sdk-twice")
    assert conflict.value.status_code == 409
    c.remove()
