"""Caches of bars in object stores grow as those on disks do; the store itself copies what stays."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from test_bars_growth import FACTS, Folder, looks_of, rows

import grandbatch as gb
from grandbatch.bars import prepare_bars
from grandbatch.bars.cache import keeping, upkeep
from grandbatch.bars.cache.upkeep import clear_caches, iter_bad_rows, list_caches
from grandbatch.errors import UsageError
from grandbatch.files import leases
from grandbatch.files.locations import location_of
from grandbatch.files.objects import Objects
from grandbatch.scheduling import Schedule


class FolderThere(Folder):
    """Inputs in a folder here, the cache that grows at a URL, others here."""

    def __init__(self, path, url, **rules):
        super().__init__(path, **rules)
        self.url = url

    def prepare(self, cache="cache"):
        place = f"{self.url}/bars" if cache == "cache" else self.path / cache
        schedule = Schedule.local("sync")
        return prepare_bars(self.inputs, place, self.rules, schedule, block_bytes=100_000)

    def check(self):
        grown = self.prepare()
        self.scratch += 1
        fresh = self.prepare(f"scratch-{self.scratch}")
        for name in FACTS:
            assert getattr(grown, name) == getattr(fresh, name), name
        there, here = grown.read(0, grown.n_rows), fresh.read(0, fresh.n_rows)
        for name, values in here.items():
            np.testing.assert_array_equal(there[name], values)
        assert list(iter_bad_rows(grown.path)) == list(iter_bad_rows(fresh.path))
        assert (grown.growth is None) == (fresh.growth is None)
        assert {**grown.growth, "from": None, "looks": 0} == {**fresh.growth, "looks": 0}
        assert looks_of(grown) == looks_of(fresh)
        assert not list(grown.problems())
        return grown

    def caches(self):
        return {entry.path.name for entry in list_caches(location_of(f"{self.url}/bars"))}


@pytest.fixture(params=[False, True], ids=["in order", "sorted"])
def there(request, s3, tmp_path):
    return FolderThere(tmp_path, f"s3://bars/{tmp_path.name}/.grandbatch", sort=request.param)


@pytest.fixture
def heard(monkeypatch):
    """What is written and copied by whom."""
    found = {"write": {}, "copy": set()}
    write, copy = Objects.write, Objects.copy

    def note_write(objects, name, data):
        found["write"][f"{objects.url}/{name}".rstrip("/")] = len(data)
        return write(objects, name, data)

    def note_copy(objects, source, target):
        found["copy"].add(f"{objects.url}/{target}")
        return copy(objects, source, target)

    monkeypatch.setattr(Objects, "write", note_write)
    monkeypatch.setattr(Objects, "copy", note_copy)
    return found


@pytest.mark.slow
def test_a_file_each_day_is_read_alone_and_old_parts_are_copied_there(there, heard, caplog):
    caplog.set_level(logging.INFO, "grandbatch")
    names = ("A", "B", "kept")
    for day in range(4):
        bad = ["2024-01-01T00:00,A,1,0,1,1,1\n"] if day % 2 else []
        last = 20_000 * day + (18_000 if day < 2 else 4_000)
        symbols = names if day % 2 == 0 else names[:2]
        there.write(day, *(rows(name, 20_000 * day, last) for name in symbols), bad)
        caplog.clear()
        heard["write"].clear()
        heard["copy"].clear()
        bars = there.check()
        if day:
            assert f"the cache of bars grows: 1 of {day + 1} inputs are read" in caplog.text
            copied = {str(bars.files / part.path) for part in bars.parts} & heard["copy"]
            firsts = {part.symbol: part for part in reversed(bars.parts)}.values()
            assert len(firsts) == len(names)
            assert {str(bars.files / part.path) for part in firsts} <= copied
            assert not copied & heard["write"].keys()
    # small parts were joined, and what nobody needs is gone
    assert len(bars.parts) < 15
    kept = {str(bars.files / part.path) for part in bars.parts}
    found = {f"{bars.files}/{one.name}" for one in Objects(str(bars.files)).list()}
    assert found == {*kept, str(bars.quarantine_path), f"{bars.files}/bars.json"}
    # the one before may be in use still, those before it are not
    assert len(there.caches()) == 2


def test_what_could_change_a_cached_bar_has_all_read_again(there, caplog):
    caplog.set_level(logging.INFO, "grandbatch")
    there.write("b", rows("A", 5_000, 9_000))
    there.check()
    there.write("a", rows("A", 0, 6_000))
    bars = there.prepare()
    assert "all inputs are read again, not the new ones only" in caplog.text
    fresh = there.prepare("scratch")
    assert bars.fingerprint == fresh.fingerprint
    np.testing.assert_array_equal(
        bars.read(0, len(bars))["close"], fresh.read(0, len(fresh))["close"]
    )
    left = {one.name.partition("/")[0] for one in Objects(f"{there.url}/bars").list()}
    assert len([name for name in left if name.startswith(keeping.STAGING)]) == 2


def test_a_damaged_base_is_thrown_away_and_all_is_read(there, caplog):
    there.write("a", rows("A", 0, 9_000))
    first = there.check()
    part = str(first.files / first.parts[0].path)
    data = Objects(part).read("")
    Objects(part).write("", data[:1000] + bytes(8) + data[1008:])
    there.write("b", rows("A", 9_000, 12_000))
    bars = gb.bars.prepare.with_bars(there.prepare, lambda bars: bars.read(0, len(bars)) and bars)
    assert not list(bars.problems())
    np.testing.assert_array_equal(
        bars.read(0, len(bars))["close"], there.prepare("scratch").read(0, len(bars))["close"]
    )


def lock(url, **changes):
    value = {"owner": "other", "who": "process 1 on elsewhere", "seconds": 2, "count": 1}
    Objects(url).write("", json.dumps({**value, "held": True, **changes}).encode())


@pytest.mark.slow
def test_clearing_waits_for_a_sign_of_life_of_who_builds_there(s3, tmp_path, monkeypatch):
    there = FolderThere(tmp_path, f"s3://bars/{tmp_path.name}/.grandbatch")
    there.write("a", rows("A", 0, 2_000))
    there.prepare()
    there.rules = gb.BarRules(max_bad_fraction=1, sort=True)
    there.prepare()
    folder = location_of(f"{there.url}/bars")
    first, second = sorted(there.caches())
    Objects(f"{there.url}/bars").write(f"{keeping.STAGING}gone.1/pieces/0000000.raw", b"left")
    with pytest.raises(UsageError, match="begins with 'zz'"):
        clear_caches(folder, ["zz"])
    living = f"{there.url}/locks/s.zarr.lock"
    lock(living)
    look = leases.look

    def renew(objects):
        lock(living, count=look(objects).version)
        return look(objects)

    with monkeypatch.context() as patch:
        patch.setattr(leases, "look", renew)
        removed, used = clear_caches(folder, [first[:8]])
    assert not removed
    assert {entry.path.name for entry in used} == {first}
    # what is not renewed is of one that is gone
    removed, used = clear_caches(folder, [first[:8]])
    assert [entry.path.name for entry in removed] == [first]
    assert not used
    assert there.caches() == {second}
    clear_caches(folder)
    left = {one.name for one in Objects(f"{there.url}/bars").list()}
    assert not [name for name in left if not name.endswith((".json", ".lease"))]
    assert upkeep.list_caches(folder) == []
