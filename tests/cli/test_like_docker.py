"""The same commands by `isle` and by the stock docker CLI, on the same daemon: output and
exit status agree. Where ours is meant to differ, it is said here."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.cli.conftest import Isle
from tests.lib.daemon import until

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="the docker CLI is not installed")


@pytest.fixture(scope="module")
def both(daemon, tmp_path_factory):
    """Containers to look at, and the function that runs a line with both programs."""
    home = tmp_path_factory.mktemp("home")
    isle = Isle(daemon.host, home)
    isle.out("run", "-d", "--name", "web", "-l", "a=b", "-l", "c=d", "-e", "X=1", "-m", "64m",
             "busybox", "sh", "-c", 'echo out; echo err >&2; echo "a \\"b\\"" >/new; sleep 1000')
    isle("run", "--name", "done", "busybox", "sh", "-c", "exit 3")
    isle.out("volume", "create", "--label", "a=b", "vol")
    until(lambda: "out" in isle("logs", "web").stdout)

    def run(line):
        env = {**isle.env, "DOCKER_CLI_HINTS": "0", "DOCKER_HOST": daemon.host}
        return [subprocess.run([program, *shlex.split(line)], capture_output=True, text=True,
                               env=env, cwd=home, stdin=subprocess.DEVNULL, timeout=60)
                for program in ("docker", isle.command()[0])]
    yield run
    isle("rm", "-f", "web", "done")
    isle("volume", "rm", "vol")


AGE = r"(\d+|About an?|Less than a) (second|minute|hour)s?"


def plain(text):
    """Without what must differ: our name, the hints, names and numbers made up for a run."""
    text = re.sub(r"\n\n(Usage:.*\n\n)?S?(Run|See) 'docker.*", "", text)
    text = re.sub(r"\nSee 'isle.*", "", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", text)
    text = re.sub(r"start container [a-z]+_[a-z]+", "start container NAME", text)
    text = re.sub(AGE, "AGE", text)
    text = re.sub(r"^\S+\s+(?=AGE ago|\"|busybox)", "", text, flags=re.M)
    return text.replace("docker", "isle").rstrip()


def ages(text):
    return [found[0] for found in re.finditer(AGE, text)]


SAME = r"""
ps
ps -a --no-trunc
ps -as
ps -aq
ps -n 1
ps -l
ps -a --format '{{.Names}}\t{{.Label "a"}}\t{{.State}}'
ps -a --format 'table {{.Names}}\t{{.Label "a"}}\t{{.Image}}'
ps -a --format json
ps -a --filter status=exited
ps --filter name=web --format {{.Names}}
ps --filter foo=bar
ps --format {{.Names
container ls -a
images
images -q
images --no-trunc
images --digests
images busybox
images nope
image ls -a
logs web
logs -t web
logs --tail 1 web
logs nope
exec web echo hi
exec web sh -c 'exit 5'
exec web /etc
exec -w /tmp web pwd
exec -e A=1 web sh -c 'echo $A'
exec -u 1 web id
exec -d web true
exec -it web true
exec done true
exec nope true
inspect web
inspect --format {{.State.Status}} web
inspect -f {{.Foo}} web
inspect -f '{{json .Config.Labels}}' web
inspect -f '{{range .Config.Env}}{{println .}}{{end}}' web
inspect -f '{{if .State.Health}}h{{else}}none{{end}}' web
inspect -f '{{.HostConfig.Memory}} {{.State.Running}} {{.Config.Cmd}}' web
inspect -f '{{index .Config.Labels "a"}}' web
inspect -f {{.Id}} nope web
inspect -f {{.Id web
inspect nope
inspect busybox
inspect vol
inspect --type image web
image inspect busybox
image inspect nope
container inspect nope
volume inspect vol
volume inspect nope
volume ls
volume ls -q
volume ls --format json
volume ls --filter dangling=true
history busybox
history --no-trunc busybox
history -q busybox
history -H=false busybox
history --format json busybox
top web -o comm
top done
diff web
system df
info -f {{.NCPU}}
version -f {{.Server.Version}}
stats --no-stream --format '{{.Name}} {{.ID}} {{.PIDs}}' web
stats --no-stream nope
wait done
run --rm busybox sh -c 'exit 7'
run --rm busybox nosuch
run --rm busybox /etc
run --rm busybox /etc/passwd
run --rm busybox sh -c 'kill -9 $$'
run --rm busybox sh -c 'echo o; echo e >&2'
run --name web busybox true
run --rm --pull never nope:1 true
run --rm Bad true
run -it --rm busybox sh
run --rm --network foo busybox true
run --rm -m 1 busybox true
run --rm --runtime foo busybox true
run --rm -u nouser busybox true
run --rm -w relative busybox true
run --rm --ulimit nofile=5:4 busybox true
run --rm --name /bad/name busybox true
run --rm --pids-limit x busybox true --foo
run --rm -d -a stdin busybox
run --rm --restart always busybox true
run --rm --hostname foo busybox hostname
run --rm --read-only busybox touch /x
run --rm -w /a/b busybox pwd
run --rm -u 1000:1000 busybox id
run --rm --security-opt seccomp=/nope busybox true
run --rm --env-file /nope busybox true
run --rm -p x busybox true
run --foo
run
create
create --name web busybox
create -p x busybox
start nope
stop nope
kill -s FOO web
pause done
rm nope
rm -f nope
rm web
rename nope tt
update web
update --memory 1 web
tag busybox BAD
tag nope x
rmi nope
rmi -f nope
rmi busybox
volume rm nope
volume rm -f nope
attach done
attach nope
cp nope:/x ./x
cp web:/nonexist ./x
cp a b
cp a:b c:d
export nope -o x.tar
save nope -o y.tar
push nope
logout localhost:1
container prune -f --filter label=nope
image prune -f
system prune -f --filter label=nope
volume prune -f
foo
container foo
ps x
exec web
ps --filter foo
""".strip().split("\n")

# Numbers are refused in other words, and strerror(3) starts with a capital.
OTHER_WORDS = {"run --rm --pids-limit x busybox true --foo", "ps --format {{.Names",
               "run --rm --security-opt seccomp=/nope busybox true",
               "run --rm --env-file /nope busybox true"}


@pytest.mark.parametrize("line", SAME)
def test_the_same(both, line):
    docker, isle = both(line)
    if ages(docker.stdout) != ages(isle.stdout):  # a second began between the two
        docker, isle = both(line)
    assert isle.returncode == docker.returncode, (docker, isle)
    assert plain(isle.stdout) == plain(docker.stdout)
    if line not in OTHER_WORDS:
        assert plain(isle.stderr) == plain(docker.stderr)


def test_help_names_every_option_of_ours_that_docker_has(both):
    """Nothing is called differently: each long option of a command exists in docker's, but for
    those that are our own."""
    own = {"json", "sig-proxy", "time", "net", "vm", "vm-rootfs", "cpu-model"}
    docker_has = lambda name, text: re.search(rf"--{re.escape(name)}\b", text)
    for command in ("run", "create", "exec", "ps", "logs", "images", "events", "stats", "cp",
                    "update", "save", "load", "import", "start", "attach", "rmi", "rm", "pull",
                    "push", "volume create", "volume ls", "system df", "system prune"):
        docker, isle = both(command + " --help")
        for name in re.findall(r"^\s+(?:-\w, )?--([a-z-]+)", isle.stdout, flags=re.M):
            assert name in own or docker_has(name, docker.stdout), f"{command} --{name}"
