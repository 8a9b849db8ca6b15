"""What is not extended, and what an extension survives: kills, damage, other inputs."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
from pathlib import Path
from pkgutil import resolve_name

import pytest
from growing import Growing, dated, digest, inodes, lines, small_files, text  # noqa: F401 (a fixture of every test here)

from grandbatch.bars import prepare_bars
from grandbatch.builder import extend, history
from grandbatch.errors import InputError, StoreMismatchError
from grandbatch.store.staging import Staging


class Killed(BaseException):
    """Stands for a kill at some instant."""


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("grandbatch.store.staging.Staging.take_file", 0),
        ("grandbatch.store.staging.Staging.take", 3),  # a record of a file that is kept
        ("grandbatch.store.staging.Staging.write_record", 1),
        ("grandbatch.store.staging.Staging.write_file", 1),
        ("grandbatch.builder.builder._finish", 0),
        ("grandbatch.builder.builder.publish", 0),
        ("grandbatch.store.publish.finish_replacement", 0),
        ("grandbatch.builder.builder.remember_files", 0),
        ("grandbatch.builder.builder.keep_records", 0),
    ],
)
@pytest.mark.parametrize(
    ("engine", "order"), [("overlap", {}), ("direct", {"order": "period", "period": "1D"})]
)
def test_a_killed_extension_goes_on_and_harms_nothing(
    tmp_path, monkeypatch, where, calls, engine, order
):
    (bars,) = lines(1700)
    growing = Growing(tmp_path, **order)
    growing.write(a=text(bars[:1200]))
    old = growing.build().store
    before = digest(old.path)
    growing.write(a=text(bars))
    original = resolve_name(where)
    left = calls

    def dies(*args, **kwargs):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(where, dies)
        with pytest.raises(Killed):
            growing.build(engine=engine, partition_bars=300)
    if not where.endswith(("finish_replacement", "keep_records")):
        assert digest(old.path) == before
    after = growing.build(engine=engine, partition_bars=300)
    assert digest(after.store.path) == digest(growing.from_scratch().path)
    assert sorted(p.name for p in (tmp_path / ".grandbatch").iterdir()) == [
        "bars",
        "builds",
        "locks",
    ]
    if not after.reused:
        assert after.kept_chunks + after.resumed_chunks >= old.spec.shard_chunks


def test_a_half_staged_file_is_never_written_through_to_the_old_store(tmp_path, monkeypatch):
    """A link without its record, whose file is then written anew: as after a kill between them."""
    (bars,) = lines(2000)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:1500]))
    old = growing.build().store
    before = digest(old.path)
    growing.write(a=text(bars))
    with monkeypatch.context() as patch:
        patch.setattr("grandbatch.builder.builder._finish", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            growing.build()
    (folder,) = (tmp_path / ".grandbatch" / "s.zarr.building").iterdir()
    Staging(folder, old.spec, durable=False).record_path(0).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(
            "grandbatch.builder.builder.keep_files", lambda *a, **k: extend.Taken(set(), {}, {})
        )
        patch.setattr("grandbatch.builder.builder.publish", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            growing.build()
    assert digest(old.path) == before
    assert old.verify().ok


@pytest.mark.parametrize("known", [False, True], ids=["read", "known"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "swap"])
def test_damaged_files_of_the_old_store_are_not_taken_over(
    tmp_path, caplog, monkeypatch, damage, known
):
    if known:
        monkeypatch.setattr(history, "_TIME_STEP_NS", 0)
    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:2000]))
    old = growing.build().store
    data = old.spec.data
    path = old.path / data.file(1)
    if damage == "flip":
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 3] ^= 4
        path.write_bytes(raw)
    elif damage == "truncate":
        os.truncate(path, path.stat().st_size - 3)
    elif damage == "delete":
        path.unlink()
    else:
        other = old.path / data.file(0)
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
    full = len(old) // (data.shard_chunks * old.chunk_windows)
    lost = 2 if damage == "swap" else 1
    with caplog.at_level(logging.INFO, "grandbatch"):
        after = growing.grow(a=text(bars))
    assert after.kept_chunks == (full - lost) * data.shard_chunks
    assert caplog.text.count("is damaged; written anew") == lost


@pytest.mark.parametrize("case", ["unchanged", "touched", "another store's", "forgotten", "torn"])
def test_files_that_stand_as_they_were_published_are_not_read_again(tmp_path, monkeypatch, case):
    monkeypatch.setattr(history, "_TIME_STEP_NS", 0)
    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:2000]))
    old = growing.build().store
    known = tmp_path / ".grandbatch" / "builds" / "s.zarr.records" / "files.json"
    if case == "touched":
        for number in range(old.spec.data.n_files):
            os.utime(old.path / old.spec.data.file(number))
    elif case == "another store's":
        manifest = old.path / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text())))
    elif case == "forgotten":
        known.unlink()
    elif case == "torn":
        known.write_bytes(known.read_bytes()[:-40])
    read = []
    is_whole = extend.is_whole
    monkeypatch.setattr(extend, "is_whole", lambda *given: read.append(given) or is_whole(*given))
    after = growing.grow(a=text(bars))
    assert after.kept_chunks > 0
    assert bool(read) == (case != "unchanged")
    growing.write(a=text([*bars, *lines(2600)[0][2500:]]))
    read.clear()
    assert growing.build().kept_chunks > after.kept_chunks
    assert not read


def test_a_file_of_the_last_moments_is_read_again(tmp_path, monkeypatch):
    (bars,) = lines(1000)
    growing = Growing(tmp_path)
    growing.write(a=text(bars))
    assert not history.unchanged_files(growing.build().store)
    monkeypatch.setattr(history, "_TIME_STEP_NS", 0)
    store = growing.from_scratch()
    files = {a.file(number) for a in store.spec.arrays for number in range(a.n_files)}
    assert history.unchanged_files(store) == files


def test_a_disk_without_links_gets_copies(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:2000]))
    old = inodes(growing.build().store.path)
    growing.write(a=text(bars))
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    after = growing.build()
    assert after.kept_chunks > 0
    assert not old & inodes(after.store.path)
    assert digest(after.store.path) == digest(growing.from_scratch().path)


def full_builds(case):
    """Old inputs, new inputs, settings, and what the log must say."""
    (bars,) = lines(2500)
    if case == "order":
        early = [line.replace(",S0,", ",AA,") for line in bars[:600]]
        old = text(bars[:2000])
        return {"a": old}, {"a": old, "b": text(early)}, {}, "AA now comes before S0"
    if case == "R":
        wanted = {"overlap": 47, "layout": "rows"}
        return {"a": text(bars[:90])}, {"a": text(bars)}, wanted, "blocks of 51 rows instead of 50"
    if case == "dates":
        # days and months up to 12 only: the old file takes its verdict from the one beside it
        unclear = dated(bars[:2000], month_first=True)
        clear = dated([row.replace("2024-01-0", "2023-11-2") for row in bars[:40]], False)
        later = dated([row.replace("2024-01-0", "2024-01-2") for row in bars[2000:]], True)
        old, new = text(unclear), text(unclear, later)
        return {"a": text(clear), "b": old}, {"a": text(clear), "b": new}, {}, "no file of chunks"
    assert case == "few"
    return {"a": text(bars[:300])}, {"a": text(bars)}, {}, "no file of chunks is full"


@pytest.mark.parametrize("case", ["order", "R", "dates", "few"])
def test_what_forces_a_full_build_is_named(tmp_path, caplog, case):
    old, new, wanted, message = full_builds(case)
    growing = Growing(tmp_path, **wanted)
    growing.write(**old)
    growing.build()
    with caplog.at_level(logging.INFO, "grandbatch"):
        result = growing.grow(**new)
    assert result.kept_chunks == 0
    assert "is built from scratch" in caplog.text
    assert message in caplog.text


def test_compressed_text_that_grew_keeps_the_windows_of_its_old_bars(tmp_path):
    (bars,) = lines(1700)
    source = tmp_path / "a.csv.gz"
    first = gzip.compress(text(bars[:1300]).encode(), mtime=0)
    second = gzip.compress("".join(bars[1300:]).encode(), mtime=0)
    growing = Growing(tmp_path)
    growing.inputs = [source]
    source.write_bytes(first)
    growing.build()
    source.write_bytes(first + second)
    after = growing.build()
    assert after.kept_chunks > 0
    assert digest(after.store.path) == digest(growing.from_scratch().path)


def test_a_last_line_that_was_cut_off_changes_its_own_windows(tmp_path):
    (bars,) = lines(2500)
    whole = text(bars)
    growing = Growing(tmp_path)
    growing.write(a=whole[: whole.index("\n", len(whole) // 2) - 1])
    growing.build()
    assert growing.grow(a=whole).kept_chunks > 0


def test_without_the_cache_of_the_old_bars_a_store_is_built_from_scratch(tmp_path, caplog):
    (bars,) = lines(1700)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:1300]))
    growing.build()
    shutil.rmtree(tmp_path / ".grandbatch" / "bars")
    with caplog.at_level(logging.INFO, "grandbatch"):
        assert growing.grow(a=text(bars)).kept_chunks == 0
    assert "the cache of its bars is not there any more" in caplog.text


def test_an_input_that_changes_during_the_build_is_an_error(tmp_path, monkeypatch):
    (bars,) = lines(1700)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:1300]))
    before = digest(growing.build().store.path)
    growing.write(a=text(bars[:1500]))

    def prepare(*args, **kwargs):
        prepared = prepare_bars(*args, **kwargs)
        growing.write(a=text(bars))
        return prepared

    with monkeypatch.context() as patch:
        patch.setattr("grandbatch.builder.builder.prepare_bars", prepare)
        with pytest.raises(InputError, match=r"a\.csv: the file changed while it was read"):
            growing.build()
    assert digest(tmp_path / "s.zarr") == before
    assert growing.build().kept_chunks > 0


@pytest.mark.parametrize("case", ["changed", "shrunk", "inserted", "renamed", "settings"])
def test_inputs_that_do_not_extend_the_old_ones_need_overwrite(tmp_path, case):
    (bars,) = lines(2000)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:700]), b=text(bars[700:1500]))
    growing.build()
    before = digest(tmp_path / "s.zarr")
    old, rest = text(bars[:700]), text(bars[700:])
    if case == "changed":
        growing.write(a=old, b=text(bars[701:]))
    elif case == "shrunk":
        growing.write(a=old, b=text(bars[700:1400]))
    elif case == "inserted":
        growing.write(a=old, aa=text(bars[700:800]), b=text(bars[800:]))
    elif case == "renamed":
        growing.write(a=old, c=rest)
    else:
        growing.write(a=old, b=rest)
        growing.wanted["chunk"] = 5
    with pytest.raises(StoreMismatchError, match="--overwrite"):
        growing.build()
    assert digest(tmp_path / "s.zarr") == before
    replaced = growing.build(overwrite=True)
    assert digest(replaced.store.path) == digest(growing.from_scratch().path)


def test_overwrite_keeps_what_is_the_same_too(tmp_path):
    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:2000]))
    growing.build()
    changed = [*bars[:1500], bars[1500].replace(",S0,", ",S0,0"), *bars[1501:2000]]
    growing.write(a=text(changed))
    with pytest.raises(StoreMismatchError, match=r"other inputs \(changed: a\.csv\)"):
        growing.build()
    after = growing.build(overwrite=True)
    assert after.kept_chunks > 0
    assert digest(after.store.path) == digest(growing.from_scratch().path)


def test_several_files_may_grow_at_their_ends(tmp_path):
    a, b = lines(1700, symbols=2)
    growing = Growing(tmp_path, order="period", period="1D")
    growing.write(a=text(a[:1440]), b=text(b[:1440]))
    growing.build()
    assert growing.grow(a=text(a), b=text(b)).kept_chunks > 0


@pytest.mark.parametrize("case", ["kept", "gone", "damaged", "another's"])
def test_what_is_known_of_kept_files_is_taken_over_or_found_again(tmp_path, monkeypatch, case):
    (bars,) = lines(2500)
    growing = Growing(tmp_path)
    growing.write(a=text(bars[:2000]))
    growing.build()
    records = tmp_path / ".grandbatch" / "builds" / "s.zarr.records"
    first, second = sorted(records.iterdir())[:2]
    if case == "gone":
        shutil.rmtree(records)
    elif case == "damaged":
        first.write_bytes(first.read_bytes()[:-1] + b"?")
    elif case == "another's":
        first.write_bytes(second.read_bytes())
    computed = []
    direct_rows = extend.direct_rows
    monkeypatch.setattr(extend, "direct_rows", lambda job: computed.append(job) or direct_rows(job))
    assert growing.grow(a=text(bars)).kept_chunks > 0
    assert bool(computed) == (case != "kept")
