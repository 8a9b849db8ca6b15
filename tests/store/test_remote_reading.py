"""Reading stores in an object store: the wire is told from damage; chunks are kept on a disk."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from object_servers import put_store
from waiting import wait_until

import grandbatch as gb
from grandbatch import config
from grandbatch.errors import (
    DamagedStoreError,
    StoreChangedError,
    StoreError,
    StoreUnreachableError,
    UsageError,
)
from grandbatch.files import kept_files, patience
from grandbatch.files.objects import Objects, Patience
from grandbatch.store import identity, metadata
from grandbatch.store.format import ARRAY_NAMES
from grandbatch.training.guard import Allowance, planned_bytes

pytestmark = pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)
CONFIG = gb.BatchConfig(batch_size=32, overlap=40, cache_bytes=100_000)


@pytest.fixture
def here(request, make_store):
    """A store on the disk."""
    layout = getattr(request, "param", "rows")
    return make_store(700, layout=layout, overlap=40, chunk_windows=8, symbols=2)


def files_of(store):
    """Bytes of each file of chunks."""
    return sorted(
        p.stat().st_size for p in store.path.rglob("*") if p.name.isdigit() and p.is_file()
    )


@pytest.fixture
def url(bucket, here):
    put_store(here.path, f"{bucket}/x.zarr")
    return f"{bucket}/x.zarr"


def epochs(store, n=2, **options):
    loader = gb.SlidingWindowDataLoader(store, CONFIG, seed=5, **options)
    return [(b.index, b.matrices, b.next_return) for _ in range(n) for b in loader]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) or (a != a).any() for a, b in zip(one, other, strict=True))


def kept(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir() if "-" in path.name}


@pytest.mark.parametrize("here", ["windows", "rows"], indirect=True)
@pytest.mark.parametrize("cached", [False, True])
def test_epochs_from_a_url_are_those_of_the_disk(url, here, tmp_path, cached):
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept" if cached else None)
    assert_same(epochs(store), epochs(here))
    assert_same(epochs(pickle.loads(pickle.dumps(store)), 1), epochs(here, 1))
    np.testing.assert_array_equal(store.matrices[5:9], here.matrices[5:9])
    assert store.verify() == here.verify()


def test_the_second_epoch_makes_no_request_for_chunks(url, here, wire, tmp_path):
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    loader = gb.SlidingWindowDataLoader(store, CONFIG, seed=5)
    first = list(loader)
    assert sorted(kept(tmp_path / "kept").values()) == files_of(here)
    before = wire.requests
    second = list(loader)
    # but whether the store is still the one that was opened
    assert wire.requests - before < 10
    assert {int(i) for b in second for i in b.index} == {int(i) for b in first for i in b.index}
    again = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    before = wire.requests
    assert_same(epochs(again, 1), epochs(here, 1))
    assert wire.requests - before < 10


def test_a_bad_copy_is_fetched_anew_and_a_bad_original_is_damage(url, bucket, here, tmp_path):
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    expected = epochs(here, 1)
    assert_same(epochs(store, 1), expected)
    for path in (tmp_path / "kept").iterdir():
        if data := bytearray(path.read_bytes()):
            data[len(data) // 3] ^= 1
            path.write_bytes(data)
    assert_same(epochs(store, 1), expected)
    assert gb.MatrixStore.open(url, cache=tmp_path / "kept").verify().ok
    name = here.spec.data.file(0)
    data = bytearray(Objects(url).read(name))
    data[20] ^= 1
    Objects(url).write(name, bytes(data))
    (problem,) = gb.MatrixStore.open(url, cache=tmp_path / "kept").verify().bad_chunks
    assert problem[:2] == (here.spec.data.name, 0)
    with pytest.raises(DamagedStoreError, match=f"chunk 0 of {here.spec.data.name}"):
        gb.MatrixStore.open(url, cache=tmp_path / "other").read_chunk(0)


def test_the_cache_keeps_within_its_bytes_and_what_is_old_goes(url, here, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    whole = gb.MatrixStore.open(url, cache=folder)
    epochs(whole, 1)
    most = sum(kept(folder).values()) // 2
    for path in folder.iterdir():
        path.unlink()
    half = gb.MatrixStore.open(url, cache=folder, cache_bytes=most)
    assert whole.is_near
    assert not half.is_near
    assert_same(epochs(half), epochs(here))
    assert 0 < sum(kept(folder).values()) <= most
    # another store finds no room while this one is in use, and takes it afterwards
    names = set(kept(folder))
    for path in folder.iterdir():
        os.utime(path, (time.time() - 1e6,) * 2)
    (folder / "another.partial").write_bytes(b"left behind")
    os.utime(folder / "another.partial", (1, 1))
    for path in list(folder.iterdir()):
        if path.name in names:
            path.rename(path.with_name("0" * 32 + path.name[32:]))
    assert_same(epochs(half, 1), epochs(here, 1))
    assert 0 < sum(kept(folder).values()) <= most
    assert any(not name.startswith("0" * 32) for name in kept(folder))
    assert not (folder / "another.partial").exists()


def _epoch_in_child(url, folder, results):
    store = gb.MatrixStore.open(url, cache=folder)
    results.put(float(sum(b.matrices.double().sum() for b in gb.SlidingWindowDataLoader(store))))


def test_several_processes_share_one_copy(url, here, wire, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [
        context.Process(target=_epoch_in_child, args=(url, tmp_path / "kept", results))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    expected = float(sum(b.matrices.double().sum() for b in gb.SlidingWindowDataLoader(here)))
    for child in children:
        child.join()
        assert child.exitcode == 0
        assert results.get() == pytest.approx(expected)
    assert sorted(kept(tmp_path / "kept").values()) == files_of(here)


SLOW = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "how", "cached"),
    [
        ("cut_after", 700, False),
        ("cut_after", 700, True),
        ("down", True, False),
        ("answer", SLOW, True),
    ],
)
def test_a_bad_wire_is_waited_for_and_never_damage(
    url, here, wire, monkeypatch, tmp_path, fault, how, cached
):
    folder = tmp_path / "kept" if cached else None
    store = gb.MatrixStore.open(url, cache=folder)
    monkeypatch.setattr(patience, "PATIENCE", Patience(0.3, 0.2))
    setattr(wire, fault, how)
    wire.drop()
    with pytest.raises(StoreUnreachableError, match=r"x.zarr.*try again") as told:
        store.read_chunk(0)
    assert not isinstance(told.value, DamagedStoreError)
    with pytest.raises(StoreUnreachableError):
        epochs(store, 1)
    with pytest.raises(StoreUnreachableError):
        gb.MatrixStore.open(url)
    monkeypatch.setattr(patience, "PATIENCE", Patience())
    threading.Timer(0.3, wire.well).start()
    assert_same(epochs(store, 1), epochs(here, 1))


def test_refused_credentials_are_no_damage_either(url, monkeypatch):
    store = gb.MatrixStore.open(url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreUnreachableError, match="check the credentials"):
        store.read_chunk(0)
    with pytest.raises(StoreError, match="check the credentials"):
        gb.MatrixStore.open(url)


def test_a_cache_that_cant_be_is_refused(url, tmp_path):
    with pytest.raises(UsageError, match=r"cache of a store .* can't be at a URL"):
        gb.MatrixStore.open(url, cache="s3://bars/kept")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="chunks can't be kept"):
        gb.MatrixStore.open(url, cache=tmp_path / "file").read_chunk(0)


def test_files_on_their_way_come_in_pieces(url, here, tmp_path, monkeypatch):
    put, pieces = kept_files._put, []

    def watched(file, first, at, piece):
        pieces.append(len(piece))
        put(file, first, at, piece)

    monkeypatch.setattr(kept_files, "_put", watched)
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    assert_same(epochs(store, 1), epochs(here, 1))
    assert sorted(kept(tmp_path / "kept").values()) == files_of(here)
    assert sum(pieces) == sum(files_of(here))
    assert max(pieces) * kept_files.FETCHERS <= kept_files.HELD_BYTES


def test_room_for_files_that_come_together_is_taken_together(url, here, tmp_path, monkeypatch):
    look, looks = kept_files.FileKeeper._look_around, []

    def counted(self):
        looks.append(1)
        return look(self)

    monkeypatch.setattr(kept_files.FileKeeper, "_look_around", counted)
    monkeypatch.setattr(kept_files, "_WAIT_SECONDS", 60.0)
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    assert_same(epochs(store, 1), epochs(here, 1))
    assert sorted(kept(tmp_path / "kept").values()) == files_of(here)
    assert len(looks) == 1 < len(files_of(here)) <= kept_files.FETCHERS


def test_a_cache_whose_folder_cant_be_looked_at_once_is_used_afterwards(
    url, here, tmp_path, monkeypatch
):
    look, looks = kept_files.FileKeeper._look_around, []

    def fails_at_first(self):
        looks.append(1)
        if len(looks) == 1:
            raise OSError(5, "Input/output error")
        return look(self)

    monkeypatch.setattr(kept_files.FileKeeper, "_look_around", fails_at_first)
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    assert_same(epochs(store, 2), epochs(here, 2))
    assert sorted(kept(tmp_path / "kept").values()) == files_of(here)


def test_a_full_disk_is_no_error(url, here, tmp_path, monkeypatch, caplog):
    def full(self, source):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_files.FileKeeper, "_fetch", full)
    store = gb.MatrixStore.open(url, cache=tmp_path / "kept")
    assert_same(epochs(store, 1), epochs(here, 1))
    assert "is full" in caplog.text


def test_workers_that_were_forked_read_it_too(url, here, tmp_path):
    store = gb.MatrixStore.open(url, cache=Path(tmp_path / "kept"))
    loader = gb.SlidingWindowDataLoader(store, CONFIG, seed=5)
    expected = epochs(here, 1)
    assert_same(epochs(store, 1), expected)  # this process has its client and threads
    workers = torch.utils.data.DataLoader(loader, batch_size=None, num_workers=2)
    assert_same([(b.index, b.matrices, b.next_return) for b in workers], expected)


@pytest.mark.parametrize("small", [False, True])
def test_neighbouring_chunks_are_one_request(url, here, wire, small, monkeypatch):
    config = gb.BatchConfig(batch_size=32, overlap=40, cache_bytes=1 if small else 100_000)
    store = gb.MatrixStore.open(url)
    before = wire.requests
    found = [b.index for b in gb.SlidingWindowDataLoader(store, config, shuffle=False)]
    # one for the chunks, one for each array of labels, and a look at the manifest
    assert wire.requests - before < 10 < store.n_chunks
    assert torch.equal(torch.cat(found), torch.arange(len(store)))
    expected = [b.matrices for b in gb.SlidingWindowDataLoader(here, config, shuffle=False)]
    got = [b.matrices for b in gb.SlidingWindowDataLoader(store, config, shuffle=False)]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_neighbours_read_at_once_are_checked_one_by_one(url, here, monkeypatch):
    wrong, name = 3, here.spec.data.file(0)
    size = here.n_features * here.block_rows * 4 + 4  # as they are, and a crc32c
    data = bytearray(Objects(url).read(name))
    data[wrong * size + 20] ^= 1
    Objects(url).write(name, bytes(data))
    expected = [b.matrices for b in gb.SlidingWindowDataLoader(here, CONFIG, shuffle=False)]
    got = []
    loader = gb.SlidingWindowDataLoader(
        gb.MatrixStore.open(url), replace(CONFIG, batch_size=4), shuffle=False
    )
    with pytest.raises(DamagedStoreError, match=f"chunk {wrong} of {here.spec.data.name}"):
        got.extend(batch.matrices for batch in loader)
    # all that come before it are handed over
    assert sum(map(len, got)) == wrong * here.chunk_windows
    assert torch.equal(torch.cat(got), torch.cat(expected)[: wrong * here.chunk_windows])


def test_packed_neighbours_are_one_request_and_checked_one_by_one(bucket, make_store, wire):
    here = make_store(20_000, overlap=12, chunk_windows=8)
    url, wrong = f"{bucket}/apart.zarr", 3
    put_store(here.path, url)
    config = gb.BatchConfig(batch_size=4, overlap=12)

    def batches(store):
        for batch in gb.SlidingWindowDataLoader(store, config, shuffle=False):
            yield batch.matrices

    expected = list(batches(here))
    there = gb.MatrixStore.open(url)
    before = wire.requests
    assert all(torch.equal(*pair) for pair in zip(batches(there), expected, strict=True))
    assert wire.requests - before < 10 < there.n_chunks

    data = here.array_reader("matrices")
    content = bytearray(Objects(url).read(here.spec.data.file(0)))
    content[data.offset(wrong) + 100] ^= 1
    Objects(url).write(here.spec.data.file(0), bytes(content))
    got = []
    with pytest.raises(DamagedStoreError, match=f"chunk {wrong} of matrices is damaged"):
        got.extend(batches(gb.MatrixStore.open(url)))
    # all that come before it are handed over
    n_before = wrong * here.chunk_windows // 4
    assert len(got) == n_before
    assert all(torch.equal(*pair) for pair in zip(got, expected[:n_before], strict=True))


@pytest.mark.parametrize("n_bytes", [1, 10_000])
def test_neighbours_whose_file_ends_before_are_damage(url, here, n_bytes):
    name = here.spec.data.file(0)
    Objects(url).write(name, Objects(url).read(name)[:n_bytes])
    with pytest.raises(DamagedStoreError, match="bytes wanted"):
        epochs(gb.MatrixStore.open(url), 1)


@pytest.fixture
def unhurried(monkeypatch):
    """Whether the store is another is looked at no more: how long a test takes makes no request."""
    monkeypatch.setattr(identity, "_LOOK_SECONDS", 1e9)


def in_one_round(wire, begin, n_requests):
    """Hold the wire while something begins; see so many requests wait at once, and none follow."""
    before, wire.stalled = wire.requests, True
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(begin)
        wait_until(lambda: wire.requests - before >= n_requests)
        assert wire.requests - before == n_requests
        wire.well()
        found = result.result()
    assert wire.requests - before == n_requests
    return found


def opened_in_one_round(wire, url):
    """Open a store; none of its requests comes later, not even one that nobody waits for."""
    # the manifest, and what metadata a store may have
    return in_one_round(wire, lambda: gb.MatrixStore.open(url), 1 + 1 + len(ARRAY_NAMES))


@pytest.mark.usefixtures("unhurried")
def test_labels_that_lie_beside_their_chunks_come_in_the_round_of_the_chunks(url, here, wire):
    small = gb.BatchConfig(batch_size=32, overlap=40, cache_bytes=1)
    expected = [b.next_return for b in gb.SlidingWindowDataLoader(here, small, shuffle=False)]
    loader = gb.SlidingWindowDataLoader(opened_in_one_round(wire, url), small, shuffle=False)
    found = in_one_round(wire, lambda: list(loader), 1 + len(here.spec.labels))
    assert_same([(b.next_return,) for b in found], [(one,) for one in expected])


@pytest.mark.parametrize("here", ["rows"], indirect=True)
def test_what_lacks_its_labels_is_read_again_by_the_next_epoch(url, here, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", Patience(0.3, 0.2))
    name = here.spec.labels[0].file(0)
    kept_aside = Objects(url).read(name)
    loader = gb.SlidingWindowDataLoader(gb.MatrixStore.open(url), CONFIG, seed=5)
    Objects(url).delete([name])
    with pytest.raises(DamagedStoreError, match="end_time"):
        list(loader)
    Objects(url).write(name, kept_aside)
    assert_same([(b.index, b.matrices, b.next_return) for b in loader], epochs(here, 1))


@pytest.mark.parametrize("here", ["windows"], indirect=True)
@pytest.mark.usefixtures("unhurried")
def test_chunks_of_a_slice_come_in_one_round(url, here, wire):
    store = opened_in_one_round(wire, url)
    found = in_one_round(wire, lambda: store.matrices[4:100], -(-100 // 8))
    np.testing.assert_array_equal(found, here.matrices[4:100])
    chosen = [150, 3, 77, 4]
    found = in_one_round(wire, lambda: store.matrices[chosen], 3)
    np.testing.assert_array_equal(found, here.matrices[chosen])


@pytest.mark.parametrize("here", ["windows", "rows"], indirect=True)
@pytest.mark.usefixtures("unhurried")
def test_a_context_at_a_url_comes_by_few_requests(url, here, wire):
    def batches(store, slow):
        loader = gb.SlidingWindowDataLoader(
            store, gb.BatchConfig(batch_size=32, overlap=40), seed=5, context={"slow": slow}
        )
        before = wire.requests
        found = [(b.index, b.context["slow"].index, b.context["slow"].matrices) for b in loader]
        return found, wire.requests - before

    found, n_requests = batches(*(opened_in_one_round(wire, url) for _ in range(2)))
    assert_same(found, batches(here, here)[0])
    # chunks and labels of both, and looks at the manifests
    assert n_requests <= 2 * (1 + len(here.spec.labels)) + 4 < here.n_chunks


def test_the_default_bound_is_fourfold_where_chunks_are_requests_and_what_is_given_holds(url, here):
    n_bytes = here.n_chunks * here.block_rows * here.n_features * 4
    default, given = config._Unless(n_bytes // 2), n_bytes // 2
    there = gb.MatrixStore.open(url)

    def loader(store, cache_bytes):
        chosen = replace(CONFIG, cache_bytes=cache_bytes)
        return gb.SlidingWindowDataLoader(store, chosen, seed=5, shuffle_chunks=4)

    held = loader(there, given).buffer_bytes
    assert held < n_bytes
    assert loader(here, default).buffer_bytes == loader(here, given).buffer_bytes == held
    kept_whole = loader(there, default)
    assert n_bytes < kept_whole.buffer_bytes <= 4 * default
    found = [(b.index, b.matrices) for b in kept_whole]
    assert_same(found, [(b.index, b.matrices) for b in loader(here, given)])
    kept_whole.release_cache()
    assert kept_whole.buffer_bytes < n_bytes


def test_what_comes_from_a_url_is_counted_before_a_training_begins(url, here, tmp_path):
    def loader(store):
        return gb.SlidingWindowDataLoader(store, CONFIG, seed=5)

    asked = Allowance(batch_size=32, prefetch_batches=2)
    near, far = loader(here), loader(gb.MatrixStore.open(url))
    n_bytes = sum(files_of(here))
    assert near.coming_bytes == 0
    # an answer, and what it is put together in; of so small a store never more than all
    assert n_bytes < far.coming_bytes <= 3 * n_bytes
    more = far.buffer_bytes - near.buffer_bytes + far.coming_bytes
    assert planned_bytes(far, asked) - planned_bytes(near, asked) == more
    kept = loader(gb.MatrixStore.open(url, cache=tmp_path / "kept"))
    assert n_bytes < kept.coming_bytes <= 3 * n_bytes


@pytest.mark.parametrize("here", ["windows", "rows"], indirect=True)
@pytest.mark.usefixtures("unhurried")
def test_a_store_opens_by_one_round_of_requests_and_an_epoch_reads_by_one(url, here, wire):
    store = opened_in_one_round(wire, url)
    loader = gb.SlidingWindowDataLoader(store, gb.BatchConfig(batch_size=32, overlap=40), seed=5)
    expected = epochs(here, 1)
    n_files = len(files_of(here))
    found = in_one_round(wire, lambda: list(loader), n_files)
    assert_same([(b.index, b.matrices, b.next_return) for b in found], expected)


def test_a_store_that_was_replaced_while_it_was_opened_is_read_whole(url, make_store, monkeypatch):
    other = make_store(500, overlap=44, chunk_windows=8, seed=3)
    read = metadata.Manifest.read_versioned

    def read_then_replaced(folder):
        found = read(folder)
        if not replaced:
            replaced.append(put_store(other.path, url))
        return found

    replaced = []
    monkeypatch.setattr(metadata.Manifest, "read_versioned", read_then_replaced)
    # whichever came with the manifest, never some of both
    opened = gb.MatrixStore.open(url)
    assert replaced
    if opened.overlap == 44:
        np.testing.assert_array_equal(opened.matrices[:], other.matrices[:])
    else:
        with pytest.raises(StoreChangedError):
            opened.matrices[:]
