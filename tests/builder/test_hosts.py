"""The ground that tests of a cluster without a shared disk stand on: hosts are really apart."""

from __future__ import annotations

import sys

import pytest
from hosts import NO_HOSTS, can_make_hosts, digests, shared_nothing

pytestmark = pytest.mark.slow

_REACH = """
import socket, sys
from urllib.parse import urlsplit
at = urlsplit(sys.argv[1])
socket.create_connection((at.hostname, at.port), 3).close()
"""


def test_hosts_share_an_object_store_and_nothing_else(tmp_path):
    if not can_make_hosts():
        pytest.skip(NO_HOSTS)
    with shared_nothing(tmp_path) as cluster:
        one, other, store = (cluster.hosts[name] for name in ("w1", "w2", "s3"))
        assert one.run("sh", "-c", "echo mine > note && hostname").stdout == "w1\n"
        assert one.files() == ["./note"]
        assert other.files() == []
        assert not list((tmp_path / "disk").iterdir())
        given = tmp_path / "given.txt"
        given.write_text("everybody's")
        cluster.put("in/given.txt", given)
        assert cluster.objects("in/") == {"given.txt": digests(tmp_path)["given.txt"]}
        reach = sys.executable, "-c", _REACH, store.environment["AWS_ENDPOINT_URL"]
        assert one.run(*reach).returncode == 0
        one.cut_off()
        assert one.run(*reach).returncode != 0
        assert other.run(*reach).returncode == 0
        one.plug_in()
        assert one.run(*reach).returncode == 0
        # nothing of it is in the machine's own network
        assert one.run("ip", "-o", "link").stdout.count("eth0") == 1
