"""Stores at URLs: in memory, and on an S3 server on this machine."""

import json
import os
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from simulated import write_bars
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.cli.main import app
from grandbatch.errors import (
    DamagedStoreError,
    StoreBusyError,
    StoreChangedError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    UsageError,
)
from grandbatch.files.locations import location_of
from grandbatch.store import upload

# only what is no object store is uploaded to
elsewhere = pytest.mark.parametrize("place", ["memory"], indirect=True)

SETTINGS = {"overlap": 40, "chunk_windows": 16, "durable": False}


@pytest.fixture
def bars(tmp_path):
    path = tmp_path / "bars.csv"
    write_bars(path, 500, seed=3)
    return path


@pytest.fixture
def url(place, request):
    system, bucket = place
    name = request.node.name.split("[")[0]
    yield f"{bucket}/{name}/x.zarr"
    if system.exists(f"{bucket}/{name}"):
        system.rm(f"{bucket}/{name}", recursive=True)


@pytest.fixture
def build(bars, tmp_path, monkeypatch):
    """Build a store as from a folder of one's own."""
    monkeypatch.chdir(tmp_path)
    return lambda store, source=bars, **options: gb.build_store(
        source, store, **{**SETTINGS, **options}
    )


def names(system, url):
    return {name.partition("x.zarr/")[2] for name in system.find(url)}


@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_a_store_at_a_url_is_the_one_in_a_folder(place, url, build, tmp_path, layout):
    there, here = build(url, layout=layout), build(tmp_path / "here.zarr", layout=layout)
    assert there.fingerprint == here.fingerprint
    assert str(there.path) == url
    expected = {
        path.relative_to(here.path).as_posix(): path.read_bytes()
        for path in here.path.rglob("*")
        if path.is_file()
    }
    assert names(place[0], url) == set(expected)
    assert all(place[0].cat_file(f"{url}/{name}") == data for name, data in expected.items())
    np.testing.assert_array_equal(there.matrices[:], here.matrices[:])
    np.testing.assert_array_equal(there.next_return[:], here.next_return[:])
    assert there.verify() == here.verify()
    assert not list((tmp_path / ".grandbatch").rglob("x.zarr"))


def test_a_url_without_credentials_is_one_line(bars, tmp_path):
    own = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    others = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FSSPEC_"))}
    url = "s3://nobodys-bucket/x.zarr"
    done = subprocess.run(
        [sys.executable, "-m", "grandbatch", "build", "strategic", bars, "--store", url],
        cwd=tmp_path,
        env={**others, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {url} can't be reached: ")
    assert "no credentials are found; set AWS_ACCESS_KEY_ID" in done.stderr
    assert done.stderr.count("\n") == 1


def test_training_batches_come_from_a_url(url, build, tmp_path):
    there, here = build(url), build(tmp_path / "here.zarr")
    config = gb.BatchConfig(batch_size=32, overlap=40)
    batches = [list(gb.SlidingWindowDataLoader(store, config, seed=5)) for store in (there, here)]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a.matrices, b.matrices)
        assert torch.equal(a.index, b.index)
    copy = pickle.loads(pickle.dumps(there))
    np.testing.assert_array_equal(copy.matrices[3], here.matrices[3])


def test_the_second_build_finds_it_there(place, url, build):
    first = build(url)
    place[0].invalidate_cache()
    written = place[0].info(f"{url}/manifest.json")
    assert build(url).fingerprint == first.fingerprint
    place[0].invalidate_cache()
    assert place[0].info(f"{url}/manifest.json") == written
    with pytest.raises(StoreMismatchError, match="overlap"):
        build(url, overlap=30)
    assert build(url, overlap=30, overwrite=True).overlap == 30


@pytest.mark.slow
def test_grown_inputs_are_no_extension_there(url, build, bars, tmp_path):
    build(url)
    write_bars(bars, 600, seed=3)
    with pytest.raises(StoreMismatchError, match="inputs"):
        build(url)
    grown = build(url, overwrite=True)
    assert grown.fingerprint == build(tmp_path / "here.zarr").fingerprint
    assert grown.verify().ok


def test_a_reader_of_a_store_that_is_replaced_is_told(url, build):
    reader = build(url)
    build(url, overlap=30, overwrite=True)
    with pytest.raises(StoreChangedError, match="was replaced"):
        reader.matrices[:]


def test_a_damaged_or_missing_chunk_is_an_error_that_names_it(place, url, build):
    store = build(url)
    path = f"{url}/{store.spec.data.file(0)}"
    data = bytearray(place[0].cat_file(path))
    data[10] ^= 1
    place[0].pipe_file(path, bytes(data))
    with pytest.raises(DamagedStoreError, match="chunk 0 of matrices"):
        store.read_chunk(0)
    place[0].rm_file(path)
    with pytest.raises(DamagedStoreError, match="chunk 0 of matrices"):
        gb.MatrixStore.open(url).read_chunk(0)
    assert not gb.MatrixStore.open(url).verify().ok
    assert build(url, overwrite=True).verify().ok


def cut_off(system, monkeypatch, after):
    """Let uploads fail after so many files."""
    put, done = system.put, 0

    def failing(sources, targets):
        nonlocal done
        for source, target in zip(sources, targets, strict=True):
            if done == after:
                raise ConnectionError("the line is dead")
            put([source], [target])
            done += 1

    monkeypatch.setattr(system, "put", failing)


@elsewhere
@pytest.mark.parametrize("after", [0, 3])
def test_an_upload_that_is_cut_off_is_no_store_and_starts_again(
    place, url, build, monkeypatch, after
):
    with monkeypatch.context() as patch:
        cut_off(place[0], patch, after)
        with pytest.raises(StoreError, match=r"the line is dead.*only its upload starts anew"):
            build(url)
    with pytest.raises(StoreNotFoundError):
        gb.MatrixStore.open(url)
    assert build(url).verify().ok
    assert upload.LOCK_MARK not in names(place[0], url)


@elsewhere
def test_a_replacement_that_is_cut_off_leaves_no_mixture(place, url, build, monkeypatch):
    build(url)
    with monkeypatch.context() as patch:
        cut_off(place[0], patch, 4)
        with pytest.raises(StoreError, match="the line is dead"):
            build(url, overlap=30, overwrite=True)
    with pytest.raises(StoreNotFoundError):
        gb.MatrixStore.open(url)
    assert build(url, overlap=30).verify().ok


def mark_of(process, host=None):
    value = {"host": host or socket.gethostname(), "process": process, "since": "2026-01-01"}
    return json.dumps(value).encode()


@elsewhere
def test_one_uploads_at_a_time(place, url, build):
    mark = f"{url}/{upload.LOCK_MARK}"
    for held in (mark_of(os.getppid()), mark_of(1, host="elsewhere"), b"?"):
        place[0].pipe_file(mark, held)
        with pytest.raises(StoreBusyError, match="remove"):
            build(url)
    place[0].pipe_file(mark, mark_of(2**22 + 1))  # there is no such process
    assert build(url).verify().ok


def test_what_is_no_store_is_left_alone(place, url, build):
    place[0].pipe_file(f"{url}/notes.txt", b"mine")
    with pytest.raises(StoreMismatchError, match="no grandbatch store"):
        build(url, overwrite=True)
    assert names(place[0], url) == {"notes.txt"}


def test_a_url_that_nothing_opens_is_named():
    with pytest.raises(UsageError, match="nowhere:"):
        location_of("nowhere://x.zarr")


def test_paths_and_urls_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert location_of("x.zarr") == tmp_path / "x.zarr"
    assert location_of(f"file://{tmp_path}/x.zarr") == tmp_path / "x.zarr"
    assert str(location_of("memory://b/x.zarr/")) == "memory://b/x.zarr"


def test_commands_take_urls(url, bars, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    call = ["build", "strategic", bars, "--store", url, "--overlap", 40, "--no-durable"]
    assert [run(*call)["reused"] for _ in range(2)] == [False, True]
    assert run("plan", "strategic", bars, "--store", url, "--overlap", 40)["fits"]
    assert run("verify", url)["ok"]
    assert run("inspect", url)["n_windows"] == run("stream", url)["windows"]
    page = tmp_path / "page.html"
    run("report", url, "--output", page)
    assert "x.zarr" in page.read_text()


def test_a_bucket_that_is_not_there_is_an_error(s3, build):
    with pytest.raises(StoreError, match="no-such-bucket"):
        build("s3://no-such-bucket/x.zarr")
