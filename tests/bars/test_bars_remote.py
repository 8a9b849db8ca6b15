"""Inputs by URL: in memory, and on an S3 server on this machine."""

import gzip
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.inputs.digests import known_digests, remember_digest
from grandbatch.bars.inputs.files import refuse_changed, resolve_inputs
from grandbatch.bars.inputs.in_objects import expand_objects
from grandbatch.bars.inputs.opening import open_raw
from grandbatch.errors import InputError
from grandbatch.files import patience
from grandbatch.files.locations import location_of
from grandbatch.files.objects import Objects, Patience
from grandbatch.files.verbs import each
from grandbatch.scheduling import Schedule

HEADER = "timestamp,open,high,low,close,volume"
N_ROWS = 3000


def rows_text(n_rows=N_ROWS, start=0):
    times = np.datetime64("2024-01-01T00:00") + np.arange(start, start + n_rows)
    lines = (f"{time},10.5,12,9.25,11,{i}" for i, time in enumerate(times.tolist(), start))
    return "\n".join(line.replace("T", " ", 1) for line in lines) + "\n"


TEXT = f"{HEADER}\n{rows_text()}".encode()


def read(inputs, tmp_path, block_bytes=None, workers=2, **rules):
    schedule = Schedule.local("threads", workers)
    return prepare_bars(inputs, tmp_path / "cache", BarRules(**rules), schedule, block_bytes)


def assert_whole(bars):
    np.testing.assert_array_equal(bars.read(0, len(bars))["volume"], np.arange(N_ROWS))


@pytest.mark.parametrize("block_bytes", [4096, None])
def test_text_is_read_in_blocks_from_where_it_lies(place, block_bytes, tmp_path):
    system, folder = place
    system.pipe(f"{folder}/x.csv", TEXT)
    bars = read(f"{folder}/x.csv", tmp_path, block_bytes)
    assert_whole(bars)
    (tmp_path / "x.csv").write_bytes(TEXT)
    assert read(tmp_path / "x.csv", tmp_path).fingerprint == bars.fingerprint


def test_gzip_and_parquet_are_read_too(place, tmp_path):
    system, folder = place
    system.pipe(f"{folder}/x.csv.gz", gzip.compress(TEXT))
    assert_whole(read(f"{folder}/x.csv.gz", tmp_path))
    (tmp_path / "x.csv").write_bytes(TEXT)
    columns = read(tmp_path / "x.csv", tmp_path).read(0, N_ROWS)
    del columns["symbol"]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=1000)
    system.put(str(tmp_path / "x.parquet"), f"{folder}/x.parquet")
    assert_whole(read(f"{folder}/x.parquet", tmp_path, 30_000))


def test_patterns_and_folders_stand_for_their_files(place, tmp_path):
    system, folder = place
    for i in (1, 0, 2):
        text = f"{HEADER}\n{rows_text(N_ROWS // 3, i * N_ROWS // 3)}"
        system.pipe(f"{folder}/in/{i}.csv", text.encode())
    system.pipe(f"{folder}/in/notes.md", b"no bars")
    for inputs in (f"{folder}/in", f"{folder}/in/*.csv"):
        bars = read(inputs, tmp_path)
        assert [entry["name"] for entry in bars.source] == ["0.csv", "1.csv", "2.csv"]
        assert_whole(bars)


def test_a_file_is_read_again_only_when_it_changed(place, tmp_path):
    system, folder = place
    system.pipe(f"{folder}/x.csv", TEXT)
    before = resolve_inputs(f"{folder}/x.csv")
    first = read(f"{folder}/x.csv", tmp_path)
    assert resolve_inputs(f"{folder}/x.csv") == before
    assert read(f"{folder}/x.csv", tmp_path).path == first.path
    system.pipe(f"{folder}/x.csv", TEXT.replace(b"10.5", b"10.4"))
    assert not before[0].is_unchanged()
    assert read(f"{folder}/x.csv", tmp_path).fingerprint != first.fingerprint


def test_a_store_is_built_from_s3_and_reused(s3, tmp_path):
    s3.pipe("s3://bars/build.csv", TEXT)
    store = gb.build_store("s3://bars/build.csv", tmp_path / "s.zarr", durable=False)
    (tmp_path / "build.csv").write_bytes(TEXT)
    local = gb.build_store(tmp_path / "build.csv", tmp_path / "t.zarr", durable=False)
    assert store.fingerprint == local.fingerprint
    again = gb.build_store("s3://bars/build.csv", tmp_path / "s.zarr", durable=False)
    assert again.fingerprint == store.fingerprint


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://bars/none.csv", "no such file"),
        ("s3://nowhere/*.csv", "no such bucket"),
        ("s3://bars/none*.csv", "no file matches"),
        ("memory://none.csv", "no such file"),
        ("nothing://x.csv", "Protocol not known"),
    ],
)
def test_a_url_that_leads_nowhere_is_an_error(s3, url, text, tmp_path):
    with pytest.raises(InputError, match=text):
        read(url, tmp_path)


def test_a_file_url_is_a_local_path(tmp_path):
    (tmp_path / "x.csv").write_bytes(TEXT)
    url = f"file://{tmp_path}/x.csv"
    assert resolve_inputs(url) == resolve_inputs(tmp_path / "x.csv")


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)
def test_an_input_is_read_on_where_the_wire_was_cut(bucket, wire, tmp_path, monkeypatch):
    text = f"{HEADER}\n{rows_text(12_000)}".encode()
    Objects(bucket).write("x.csv", text)
    wire.cut_after = 200_000
    bars = read(f"{bucket}/x.csv", tmp_path, workers=1)
    np.testing.assert_array_equal(bars.read(0, len(bars))["volume"], np.arange(12_000))
    monkeypatch.setattr(patience, "PATIENCE", Patience(1, 0.3))
    wire.cut_after = 10
    with pytest.raises(InputError, match=r"x.csv: no whole answer .*try again") as told:
        read(f"{bucket}/x.csv", tmp_path / "other")
    assert "credentials" not in str(told.value)


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("in", ["a.csv", "b[1].csv", "symbol=ES/year=2024/c.csv"]),
        ("in/", ["a.csv", "b[1].csv", "symbol=ES/year=2024/c.csv"]),
        ("in/*.csv", ["a.csv", "b[1].csv"]),
        ("in/?.csv", ["a.csv"]),
        ("in/[b-c]*", ["b[1].csv"]),
        ("in/*/*/c.csv", ["deep/er/c.csv", "symbol=ES/year=2024/c.csv"]),
        ("i*/deep/*/*.csv", ["deep/er/c.csv"]),
        ("in/**/c.csv", ["deep/c.csv", "deep/er/c.csv", "symbol=ES/year=2024/c.csv"]),
        ("in/a.csv", ["a.csv"]),
    ],
)
def test_what_a_url_stands_for_in_an_object_store(bucket, entry, names):
    # `memory` is none of the kinds that inputs are read from by the store's own client
    for name in (
        "in/a.csv", "in/b[1].csv", "in/empty.csv", "in/deep/c.csv", "in/deep/er/c.csv",
        "in/symbol=ES/year=2024/c.csv", "in-beside/a.csv",
    ):  # fmt: skip
        Objects(bucket).write(name, b"" if "empty" in name else TEXT)
    found, is_folder = expand_objects(f"{bucket}/{entry}")
    expected = [f"{bucket}/in/{name}" for name in names]
    if entry == "in/*.csv":
        expected.append(f"{bucket}/in/empty.csv")
    assert list(found) == sorted(expected)
    assert is_folder == (entry.strip("/") == "in")


@pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)
def test_an_input_that_is_replaced_while_it_is_read_is_told(bucket):
    Objects(bucket).write("x.csv", TEXT)
    with open_raw(f"{bucket}/x.csv", 100) as file:
        assert file.read(100) == TEXT[:100]
        Objects(bucket).write("x.csv", TEXT[::-1])
        with pytest.raises(InputError, match=r"x.csv: the file was replaced while it was read"):
            file.read(100)


@pytest.mark.parametrize("bucket", ["s3", "seaweed"], indirect=True)
def test_of_files_that_are_listed_none_is_asked_for_by_itself(bucket, monkeypatch):
    names = [f"in/{number}.csv" for number in range(5)]
    for number, name in enumerate(names):
        Objects(bucket).write(name, TEXT * (number + 1))
    by_themselves = resolve_inputs([f"{bucket}/{name}" for name in names])
    assert all(file.is_unchanged() for file in by_themselves)
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "head", None)
        for entry in ("in", "in/*.csv", "in/**/*.csv"):
            assert resolve_inputs(f"{bucket}/{entry}") == by_themselves
    Objects(bucket).write(names[2], TEXT)
    with pytest.raises(InputError, match=r"in/2\.csv: the file changed while it was read"):
        refuse_changed(by_themselves)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_what_is_asked_of_many_files_is_asked_of_several_at_once(bucket, monkeypatch):
    names = [f"in/{number}.csv" for number in range(8)]
    for name in names:
        Objects(bucket).write(name, TEXT)
    cache = location_of(f"{bucket}/cache")

    def together(verb):
        """Let requests go on only once four wait: one after the other they never do."""
        wait, ask = threading.Barrier(4), getattr(Objects, verb)

        def meet(*values):
            wait.wait(timeout=60)
            return ask(*values)

        monkeypatch.setattr(Objects, verb, meet)

    together("head")
    files = resolve_inputs([f"{bucket}/{name}" for name in names])
    refuse_changed(files)
    for number, file in enumerate(files):
        remember_digest(file, f"{number}", cache)
    together("read_version")
    assert known_digests(files, cache) == [f"{number}" for number in range(8)]


def test_where_several_calls_fail_the_first_by_its_place_is_told():
    def call(value):
        if value % 10 == 3:
            raise ValueError(value)
        return value

    for far in (True, False):
        with pytest.raises(ValueError, match=r"^3$"):
            each(call, range(100), far=far)
        assert each(call, [1, 2], far=far) == [1, 2]
