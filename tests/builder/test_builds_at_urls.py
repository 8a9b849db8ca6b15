"""Builds whose bars, staging and store are in an object store: the same as on a disk."""

from __future__ import annotations

import gzip
import json
import pickle
import secrets
import threading
import time
from functools import partial

import numpy as np
import pytest
from distributed import Client, LocalCluster
from simulated import write_bars
from typer.testing import CliRunner

import grandbatch as gb
from grandbatch.bars import BarRules, prepare_bars
from grandbatch.bars.cache import bars as bars_cache
from grandbatch.bars.cache.upkeep import iter_bad_rows
from grandbatch.cli.main import app
from grandbatch.cli.output import explain
from grandbatch.errors import (
    DamagedBarsError,
    GrandbatchError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    UsageError,
)
from grandbatch.files import leases
from grandbatch.files.objects import Objects
from grandbatch.scheduling import origin
from grandbatch.scheduling.turns import turn
from grandbatch.store.staging import Staging

SETTINGS = {"overlap": 40, "chunk_windows": 4, "codec": "none", "durable": False}


@pytest.fixture
def url(s3, request):
    """An empty folder of a bucket."""
    return f"s3://bars/{request.node.name.split('[')[0]}/{id(request)}"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A file of bars of two symbols, and an own working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_bars(tmp_path / "bars.csv", 1_500, symbols=2)


def objects(url):
    return {found.name: Objects(url).read(found.name) for found in Objects(url).list()}


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(bars):
    return {name: values.tobytes() for name, values in bars.read(0, len(bars)).items()}


def text_of(n_rows, *, bad=0, extra=False, step=60):
    """Bars of one symbol as text: some with a high below the low, some columns with gaps."""
    random = np.random.default_rng(0)
    close = 100 + random.normal(0, 0.1, n_rows).cumsum()
    lines = ["timestamp,symbol,open,high,low,close,volume" + (",oi,iv" if extra else "")]
    for at in range(n_rows):
        high = close[at] - 1 if bad and at % bad == 5 else close[at] + 0.5
        more = f",{at if at % 7 else ''},{0.5 if at % 5 else ''}" if extra else ""
        numbers = f"{close[at]:.4f},{high:.4f},{close[at] - 0.5:.4f},{close[at]:.4f},{at % 90 + 1}"
        lines.append(f"{1_600_000_000 + step * at},A{at % 2},{numbers}{more}")
    return lines


CASES = {
    "bad rows": ({"max_bad_fraction": 0.5}, lambda: text_of(3_000, bad=11)),
    "sorted": (
        {"sort": True, "duplicates": "last", "max_bad_fraction": 0.5},
        lambda: [(text := text_of(3_000))[0], *text[:0:-1], *text[1:300]],
    ),
    "columns with gaps": (
        {"extra": ("oi", "iv"), "fill": {"oi": "zero", "iv": "last"}},
        lambda: text_of(3_000, extra=True),
    ),
    "leaps": (
        {"max_jump": 0.5, "max_bad_fraction": 0.5},
        lambda: [
            line if at % 500 != 250 else line.replace(",1", ",9", 1)
            for at, line in enumerate(text_of(3_000))
        ],
    ),
    "coarser": ({"resample": "30min"}, lambda: text_of(3_000)),
    "large blocks": ({"symbol": "X"}, lambda: text_of(20_000)),
}


@pytest.mark.parametrize("case", CASES)
def test_bars_in_an_object_store_are_those_on_a_disk(case, url, source, tmp_path):
    fields, text = CASES[case]
    path = tmp_path / "in.csv"
    path.write_text("\n".join(text()) + "\n")
    rules = BarRules(**fields)
    blocks = None if case == "large blocks" else 40_000
    here = prepare_bars(path, tmp_path / "cache", rules, block_bytes=blocks)
    there = prepare_bars(path, f"{url}/cache", rules, block_bytes=blocks)
    assert rows_of(there) == rows_of(here)
    assert there.fingerprint == here.fingerprint
    assert there.quarantined == here.quarantined
    assert list(iter_bad_rows(there.path)) == list(iter_bad_rows(here.path))
    assert not list(there.problems())
    assert rows_of(prepare_bars(path, f"{url}/cache", rules)) == rows_of(here)
    # nothing is left but what caches are made of, and nothing was written in the working folder
    kinds = {name.rpartition(".")[2] for name in objects(f"{url}/cache")}
    assert kinds == {"json", "parquet", "lease"}
    assert not list((tmp_path / "here").iterdir())


def test_packed_inputs_are_unpacked_by_a_task(url, source, tmp_path):
    packed = tmp_path / "bars.csv.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    there = prepare_bars(packed, f"{url}/cache")
    assert rows_of(there) == rows_of(prepare_bars(source, tmp_path / "cache"))
    assert not [name for name in objects(f"{url}/cache") if name.endswith(".csv")]


def test_damaged_bars_in_an_object_store_are_read_again(url, source, tmp_path):
    first = prepare_bars(source, f"{url}/cache")
    part = str(first.files / first.parts[0].path)
    data = Objects(part).read("")
    Objects(part).write("", data[:1000] + bytes(8) + data[1008:])
    with pytest.raises(DamagedBarsError, match="is not what was written"):
        prepare_bars(source, f"{url}/cache").read(0, 100)
    built = gb.build_store(source, f"{url}/s.zarr", cache=f"{url}/cache", **SETTINGS)
    assert objects(f"{url}/s.zarr") == files(
        gb.build_store(source, tmp_path / "s.zarr", **SETTINGS).path
    )
    assert built.verify().ok
    Objects(part).delete([""])
    again = prepare_bars(source, f"{url}/cache")
    assert rows_of(again) == rows_of(prepare_bars(source, tmp_path / "cache"))


@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_a_store_built_there_is_the_one_built_here(layout, url, source, tmp_path):
    here = gb.build_store(source, tmp_path / "s.zarr", layout=layout, **SETTINGS)
    there = gb.build_store(source, f"{url}/s.zarr", layout=layout, **SETTINGS)
    assert objects(f"{url}/s.zarr") == files(here.path)
    assert there.verify() == here.verify()
    assert not list((tmp_path / "here").iterdir())
    left = {name.partition("/")[0] for name in objects(f"{url}/.grandbatch")}
    assert left == {"bars", "builds", "locks"}


def test_workers_have_turns_where_tasks_wait_for_an_object_store(
    url, source, tmp_path, monkeypatch
):
    seen = []

    def told(per_thread):
        seen.append(per_thread)
        return turn(per_thread)

    monkeypatch.setattr(origin, "turn", told)

    def turns_of(place, **options):
        seen.clear()
        build = partial(gb.build_store, source, client=client, **SETTINGS)
        build(f"{place}/s.zarr", cache=f"{place}/cache", **options)
        return set(seen)

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert turns_of(url) == {2}
        assert turns_of(f"{url}/overlap", engine="overlap") == {2, 1}
        assert turns_of(tmp_path / "disk") == {1}
    here = files(tmp_path / "disk" / "s.zarr")
    assert objects(f"{url}/s.zarr") == objects(f"{url}/overlap/s.zarr") == here


class Rounds:
    """Counts the requests of this process that begin while no other is under way."""

    def __init__(self, patch):
        self.n = self.under_way = 0
        self.lock, self.ask = threading.Lock(), Objects._ask

        def ask(objects, name, request):
            return self.count(objects, name, request)

        patch.setattr(Objects, "_ask", ask)

    def count(self, *args):
        with self.lock:
            self.n += not self.under_way
            self.under_way += 1
        try:
            time.sleep(0.03)
            return self.ask(*args)
        finally:
            with self.lock:
                self.under_way -= 1


def test_a_builders_own_requests_go_at_once_where_none_needs_another(url, source, monkeypatch):
    lines = source.read_text().splitlines(keepends=True)
    for number, at in enumerate(range(1, len(lines), 500)):
        part = lines[0] + "".join(lines[at : at + 500])
        Objects(f"{url}/in").write(f"{number}.csv", part.encode())
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
        monkeypatch.context() as patch,
    ):
        gb.build_store(source, f"{url}/first/s.zarr", client=client, **SETTINGS)
        counted, rounds = Rounds(patch), []
        for inputs in (f"{url}/in/0.csv", f"{url}/in"):
            counted.n = 0
            place = f"{url}/{secrets.token_hex(4)}"
            gb.build_store(inputs, f"{place}/s.zarr", client=client, **SETTINGS)
            rounds.append(counted.n)
    one, six = rounds
    assert one <= 38, "53 where each waits for the one before"
    assert six <= one + 3, "files are looked into at once"


class CutOff:
    """Lets all writes into an object store fail from some one on."""

    def __init__(self, patch, after):
        self.n, self.write = 0, Objects.write
        patch.setattr(Objects, "write", lambda *args: self.count(after, *args))

    def count(self, after, objects, name, data):
        if self.n >= after:
            raise ConnectionError("the line is dead")
        self.n += 1
        return self.write(objects, name, data)


@pytest.mark.slow
def test_a_build_that_is_cut_off_anywhere_goes_on(url, source, tmp_path, monkeypatch):
    here = files(gb.build_store(source, tmp_path / "s.zarr", **SETTINGS).path)
    with monkeypatch.context() as patch:
        whole = CutOff(patch, 10**9)
        gb.build_store(source, f"{url}/whole.zarr", **SETTINGS)
    resumed = []
    for after in range(1, whole.n - 1, whole.n // 5):
        store = f"{url}/{after}/s.zarr"
        with monkeypatch.context() as patch:
            CutOff(patch, after)
            with pytest.raises(OSError, match="the line is dead"):
                gb.build_store(source, store, **SETTINGS)
        with pytest.raises(StoreNotFoundError):
            gb.MatrixStore.open(store)
        told = []
        gb.build_store(
            source, store, progress=lambda *what, told=told: told.append(what), **SETTINGS
        )
        resumed.append(next(done for stage, done, _ in told if stage == "chunks"))
        assert objects(store) == here
        assert not [name for name in objects(f"{url}/{after}") if ".building" in name]
    assert max(resumed) > 0
    assert resumed[0] == 0


def test_a_replacement_that_is_cut_off_leaves_no_mixture(url, source, tmp_path, monkeypatch):
    store = f"{url}/s.zarr"
    gb.build_store(source, store, layout="rows", **SETTINGS)
    reader = gb.MatrixStore.open(store)
    changed = {**SETTINGS, "overlap": 30}
    with pytest.raises(StoreMismatchError, match="overlap"):
        gb.build_store(source, store, layout="rows", **changed)
    with monkeypatch.context() as patch:
        CutOff(patch, 12)
        with pytest.raises(OSError, match="the line is dead"):
            gb.build_store(source, store, overwrite=True, **changed)
    with pytest.raises(StoreNotFoundError):
        gb.MatrixStore.open(store)
    # of other settings again: what the second left is not taken for the third's
    last = {**SETTINGS, "overlap": 20}
    gb.build_store(source, store, **last)
    assert objects(store) == files(gb.build_store(source, tmp_path / "s.zarr", **last).path)
    with pytest.raises(gb.errors.StoreChangedError):
        reader.matrices[:]


def test_what_is_not_ours_is_never_removed(url, source):
    Objects(url).write("s.zarr/notes.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(StoreMismatchError, match="no grandbatch store"):
            gb.build_store(source, f"{url}/s.zarr", overwrite=overwrite, **SETTINGS)
    assert objects(f"{url}/s.zarr") == {"notes.txt": b"mine"}
    # put beside a store's own files, it stays when that is replaced
    gb.build_store(source, f"{url}/t.zarr", **SETTINGS)
    Objects(url).write("t.zarr/notes.txt", b"mine")
    Objects(url).write("t.zarr/matrices/c/notes", b"mine")
    gb.build_store(source, f"{url}/t.zarr", overwrite=True, **{**SETTINGS, "overlap": 30})
    kept = objects(f"{url}/t.zarr")
    assert kept["notes.txt"] == kept["matrices/c/notes"] == b"mine"
    assert gb.MatrixStore.open(f"{url}/t.zarr").verify().ok


def test_values_of_windows_are_put_beside_each_other(url, source, monkeypatch):
    arrays = ("end_time", "symbol", "close_price", "next_return", "first_row")
    # a write goes on once all five wait: one after the other they never do
    wait, write, met = threading.Barrier(len(arrays)), Objects.write, []

    def meet(objects, name, data):
        if any(f"s.zarr/{array}/c/" in objects.url for array in arrays):
            met.append(objects.url)
            wait.wait(timeout=60)
        return write(objects, name, data)

    monkeypatch.setattr(Objects, "write", meet)
    store = gb.build_store(source, f"{url}/s.zarr", scheduler="sync", **SETTINGS)
    assert len(met) == len(set(met)) == 5
    monkeypatch.undo()
    assert store.verify().ok


@pytest.mark.slow
def test_a_builder_that_lost_its_lease_publishes_nothing(url, source, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    lock = Objects(f"{url}/.grandbatch/locks/s.zarr.lock")

    def steal(stage, done, total):
        if stage == "chunks" and done == total:
            value = {"owner": "other", "who": "process 1 on elsewhere", "seconds": 2, "count": 1}
            lock.write("", json.dumps({**value, "held": True}).encode())

    with pytest.raises(StoreError, match=r"no longer.*process 1 on elsewhere"):
        gb.build_store(source, f"{url}/s.zarr", progress=steal, **SETTINGS)
    with pytest.raises(StoreNotFoundError):
        gb.MatrixStore.open(f"{url}/s.zarr")
    assert gb.build_store(source, f"{url}/s.zarr", **SETTINGS).verify().ok


def test_a_store_that_came_meanwhile_is_not_replaced(url, source, tmp_path):
    other = gb.build_store(source, f"{url}/other.zarr", **{**SETTINGS, "overlap": 30})
    manifest = Objects(str(other.path)).read("manifest.json")

    def publish(stage, done, total):
        if stage == "chunks" and done == total:
            Objects(f"{url}/s.zarr").write("manifest.json", manifest)

    with pytest.raises(StoreError, match="another store was published there meanwhile"):
        gb.build_store(source, f"{url}/s.zarr", progress=publish, **SETTINGS)
    assert Objects(f"{url}/s.zarr").read("manifest.json") == manifest


def test_what_is_left_of_a_build_of_bars_goes_with_the_next_of_the_same(url, source):
    cache = f"{url}/cache"
    prepare_bars(source, cache)
    key = next(name for name in objects(cache) if name.endswith(".lease"))
    key = key.removeprefix("locks/bars-build-").removesuffix(".lease")
    Objects(cache).write(f".staging-{key}.dead/pieces/0000000.raw", b"left")
    Objects(cache).write(".staging-of-another.dead/pieces/0000000.raw", b"another's")
    first = prepare_bars(source, cache)
    Objects(cache).delete([f"{first.fingerprint}/bars.json"])
    second = prepare_bars(source, cache)
    left = {name.split("/")[0] for name in objects(cache) if name.startswith(".staging-")}
    assert left == {second.files.name, ".staging-of-another.dead"}
    assert second.files != first.files


def test_commands_take_bars_in_an_object_store(url, source, tmp_path):
    lines = source.read_text().splitlines()
    lines[5] = lines[5].replace(",", ",x", 2)
    source.write_text("\n".join(lines) + "\n")

    def run(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    build = ["strategic", source, "--store", f"{url}/s.zarr", "--overlap", 40]
    assert run("plan", *build)["fits"]
    assert not run("build", *build)["reused"]
    assert run("build", *build)["reused"]
    assert run("plan", *build)["exact"]
    (entry,) = run("cache", "list", "--cache", f"{url}/.grandbatch/bars")["caches"]
    assert entry["n_rows"] == 2_999
    assert entry["bytes"] > 2_999 * 48
    cleared = run("cache", "clear", url)
    assert cleared["removed"] == [entry["fingerprint"]]
    assert not run("cache", "list", url)["caches"]
    assert run("build", *build)["reused"]


def test_a_cache_at_a_url_of_no_object_store_is_refused(source):
    with pytest.raises(UsageError, match="can't be at a URL"):
        prepare_bars(source, "memory://cache")


def test_bars_there_are_named_by_their_url_in_a_pickle_and_opened_when_used(url, source):
    bars = prepare_bars(source, f"{url}/cache")
    copy = pickle.loads(pickle.dumps(bars))
    manifest = Objects(str(bars.path)).read("bars.json")
    Objects(str(bars.path)).delete(["bars.json"])
    assert copy.fingerprint == bars.fingerprint
    with pytest.raises(DamagedBarsError, match="is not there"):
        copy.read(0, 10)
    Objects(str(bars.path)).write("bars.json", manifest)
    assert rows_of(pickle.loads(pickle.dumps(bars))) == rows_of(bars)


@pytest.mark.slow
def test_commands_about_caches_and_stores_take_urls_or_say_what_to_do(url, s3, monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    def found(*arguments):
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    bars, store = f"{url}/in/a.csv", f"{url}/out/s.zarr"
    assert found("simulate", bars, "--rows", 1_500, "--symbols", 2)["rows"] == 1_500
    lines = Objects(bars).read("").decode().splitlines()
    assert len(lines) == 1_501
    Objects(bars).write("", "\n".join([*lines, lines[-1].replace(",", ",x", 2)]).encode())
    found("build", "strategic", f"{url}/in/*.csv", "--store", store, "--overlap", 40)
    (entry,) = found("cache", "list", f"{url}/out")["caches"]
    assert entry["stores"] == ["s.zarr"]
    assert entry["path"] == f"{url}/out/.grandbatch/bars/{entry['fingerprint']}"
    checked = found("verify", entry["path"])
    assert checked["ok"]
    assert checked["checked_parts"] == 2
    for place in (store, f"{url}/out", entry["path"]):
        (row,) = found("quarantine", place)["rows"]
        assert row["line"] == 1_502
    page = f"{url}/out/report.html"
    assert found("report", store, "-o", page) == {
        "path": page, "bytes": Objects(page).head("").n_bytes,
    }  # fmt: skip
    assert found("inspect", store)["n_rows"] == 1_500
    healthy = found("doctor", "--folder", f"{url}/out")
    assert healthy["objects"]["request_seconds"] > 0
    assert healthy["disk"] == {}
    assert not [name for name in objects(f"{url}/out") if "doctor" in name or "check" in name]
    part = next(name for name in objects(f"{url}/out") if name.endswith("00.parquet"))
    Objects(f"{url}/out").write(part, b"another")
    result = run("doctor", "--folder", f"{url}/out")
    assert isinstance(result.exception, GrandbatchError)
    assert "has 7 bytes" in str(result.exception)
    # what is there no more, or can't be there, is one line
    for arguments, told in {
        ("quarantine", f"{url}/nothing"): "no bars cache belongs to it",
        ("verify", f"{url}/nothing"): "there is no store at",
        ("doctor", "--folder", "s3://nowhere/x"): "there is no such bucket",
        ("doctor", "--folder", "memory://x"): "s3://, gs:// or az://",
        ("cache", "clear", "memory://x"): "s3://, gs:// or az://",
        ("report", store, "-o", "memory://x.html"): "s3://, gs:// or az://",
        ("simulate", "memory://x.csv"): "s3://, gs:// or az://",
        ("simulate", f"{url}/a.parquet"): "plain CSV",
    }.items():
        result = run(*arguments)
        assert isinstance(result.exception, GrandbatchError), arguments
        assert told in str(result.exception)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionError) as refused:
        Objects(bars).read("")
    assert explain(refused.value).startswith("s3://bars: no credentials are found; set AWS_ACCESS")
    assert "another path" not in explain(refused.value)


def test_bars_of_which_a_part_is_gone_are_not_published(url, source, monkeypatch):
    read = bars_cache.built_manifest

    def once_a_part_is_gone(built):
        place = Objects(str(built))
        place.delete([one.name for one in place.list() if one.name.endswith(".parquet")][:1])
        return read(built)

    with monkeypatch.context() as patch:
        patch.setattr(bars_cache, "built_manifest", once_a_part_is_gone)
        with pytest.raises(DamagedBarsError, match="is missing"):
            prepare_bars(source, f"{url}/cache")
    assert not [name for name in objects(url) if name.endswith("bars.json")]
    assert prepare_bars(source, f"{url}/cache").n_rows == 3_000


def test_all_files_of_a_store_are_listed_once_and_before_it_is_published(url, source, monkeypatch):
    seen, listed, made = [], Objects.list, Objects.create

    def list_told(self, folder=""):
        seen.append(("list", self.url))
        return listed(self, folder)

    def create_told(self, name, data):
        seen.append(("create", name))
        return made(self, name, data)

    monkeypatch.setattr(Objects, "list", list_told)
    monkeypatch.setattr(Objects, "create", create_told)
    gb.build_store(source, f"{url}/s.zarr", **SETTINGS)
    assert seen.count(("list", f"{url}/s.zarr")) == 1
    assert seen.index(("list", f"{url}/s.zarr")) < seen.index(("create", "manifest.json"))


def test_records_of_files_are_read_beside_each_other(url, source, monkeypatch):
    read, meet = Staging.read_record, threading.Barrier(2, timeout=60)

    def read_with_another(self, number):
        if number < 2:
            meet.wait()
        return read(self, number)

    monkeypatch.setattr(Staging, "read_record", read_with_another)
    small = {**SETTINGS, "overlap": 47, "chunk_windows": 1}
    store = gb.build_store(source, f"{url}/s.zarr", **small)
    assert store.spec.data.n_files >= 2


def test_a_record_whose_file_never_came_finishes_nothing(url, source, tmp_path, monkeypatch):
    here = files(gb.build_store(source, tmp_path / "s.zarr", **SETTINGS).path)
    write, recorded = Objects.write, threading.Event()

    def cut(objects, name, data):
        if "/matrices/c/" in objects.url:
            recorded.wait(timeout=60)
            raise ConnectionError("the line is dead")
        version = write(objects, name, data)
        if objects.url.endswith(".record"):
            recorded.set()
        return version

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", cut)
        with pytest.raises(OSError, match="the line is dead"):
            gb.build_store(source, f"{url}/s.zarr", **SETTINGS)
    assert recorded.is_set()
    assert [name for name in objects(url) if name.endswith(".record")]
    gb.build_store(source, f"{url}/s.zarr", **SETTINGS)
    assert objects(f"{url}/s.zarr") == here
