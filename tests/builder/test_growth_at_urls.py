"""A store in an object store whose inputs grew: what stays is neither read nor put again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from growing import Growing, by_time, lines, small_files, text  # noqa: F401 (a fixture)

import grandbatch as gb
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.builder.reuse import Request
from grandbatch.errors import StoreChangedError, StoreNotFoundError
from grandbatch.files.objects import Objects


class Killed(BaseException):
    """Stands for a kill: from then on nothing is changed any more."""


class Heard:
    """What is asked of object stores, but for leases; dead from some change on."""

    CHANGES = ("write", "copy", "_put_if", "delete")

    def __init__(self, patch, dies_at=None):
        self.changes, self.read, self.dies_at = [], [], dies_at
        self.lock = threading.Lock()
        for verb in self.CHANGES:
            self.patch(patch, verb, self.changes)
        for verb in ("read_version", "read_ranges"):
            self.patch(patch, verb, self.read)

    def patch(self, patch, verb, told):
        whole = getattr(Objects, verb)

        def ask(objects, *args, **named):
            if "/locks" not in objects.url:
                names = [args[0]] if isinstance(args[0], str) else list(args[0])
                with self.lock:
                    if told is self.changes and len(told) == self.dies_at:
                        raise Killed
                    told.append((verb, *(f"{objects.url}/{name}".rstrip("/") for name in names)))
            return whole(objects, *args, **named)

        patch.setattr(Objects, verb, ask)

    def of(self, verb, beginning):
        places = [name for what, *names in (*self.changes, *self.read) if what == verb
                  for name in names]  # fmt: skip
        return {name for name in places if name.startswith(beginning)}


class GrowingThere(Growing):
    """Inputs in a folder here, and the store at a URL."""

    def __init__(self, folder, url, **wanted):
        super().__init__(folder, **wanted)
        self.url = url

    def build(self, **options):
        here = self.target()
        there = Request.of(self.inputs, f"{self.url}/s.zarr", here.settings, here.rules)
        return build(there, BuildOptions(**options))

    def here(self):
        """Bytes of the files of a local store from scratch."""
        folder = self.from_scratch().path
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def there(self):
        place = Objects(f"{self.url}/s.zarr")
        return {found.name: place.read(found.name) for found in place.list()}

    def versions(self):
        return {found.name: found.version for found in Objects(f"{self.url}/s.zarr").list()}


@pytest.fixture
def growing(s3, request, tmp_path):
    wanted = getattr(request, "param", {})
    return GrowingThere(tmp_path, f"s3://bars/{tmp_path.name}", **wanted)


BY_DAY = {"order": "period", "period": "1D", "overlap": 30, "chunk": 8}
KINDS = {"windows": {}, "rows": {"layout": "rows"}, "by day": {**BY_DAY, "layout": "rows"}}


@pytest.mark.slow
@pytest.mark.parametrize("growing", KINDS.values(), ids=KINDS, indirect=True)
def test_files_that_stay_are_neither_read_nor_written_again(growing, monkeypatch):
    first, second = lines(1600, symbols=2)
    old = text(by_time(first[:1400], second[:1400]))
    growing.write(a=old)
    growing.build()
    reader = gb.MatrixStore.open(f"{growing.url}/s.zarr")
    before = growing.versions()
    growing.write(a=old, b=text(by_time(first[1400:], second[1400:])))
    with monkeypatch.context() as patch:
        heard = Heard(patch)
        result = growing.build()
    assert growing.there() == growing.here()
    assert result.store.verify().ok
    assert result.kept_chunks >= 2 * reader.spec.shard_chunks
    kept = range(result.kept_chunks // reader.spec.shard_chunks)
    kept = {f"{growing.url}/s.zarr/{reader.spec.data.file(number)}" for number in kept}
    for verb in ("write", "read_version", "read_ranges"):
        assert not kept & heard.of(verb, growing.url)
    assert not kept & {name.replace("/.grandbatch", "") for name in heard.of("copy", growing.url)}
    same = {name for name, version in growing.versions().items() if before.get(name) == version}
    assert {name.removeprefix(f"{growing.url}/s.zarr/") for name in kept} <= same
    with pytest.raises(StoreChangedError):
        np.asarray(reader.matrices[:])
    assert growing.build().reused
    work = [found.name for found in Objects(growing.url).list() if ".building" in found.name]
    assert not work


@pytest.mark.slow
def test_a_growth_that_is_killed_anywhere_leaves_old_or_new_whole(growing, monkeypatch):
    (rows,) = lines(700)
    growing.write(a=text(rows[:600]))
    growing.build()
    old = growing.there()
    place = Objects(growing.url)
    standing = {found.name: place.read(found.name) for found in place.list()}
    growing.write(a=text(rows))
    new = growing.here()
    with monkeypatch.context() as patch:
        heard = Heard(patch)
        growing.build()
    n_changes = len(heard.changes)
    copies = [at for at, change in enumerate(heard.changes) if change[0] == "copy"]
    between = [at for at, change in enumerate(heard.changes) if change[0] == "copy"
               and "/s.zarr.building/" in change[1]]  # fmt: skip
    assert len(between) > 3
    away = 0
    for at in [*range(1, between[0], 25), *range(between[0] - 2, n_changes, 5)]:
        place.delete([found.name for found in place.list()])
        for name, data in standing.items():
            place.write(name, data)
        with monkeypatch.context() as patch:
            Heard(patch, dies_at=at)
            with pytest.raises(Killed):
                growing.build()
        try:
            gb.MatrixStore.open(f"{growing.url}/s.zarr")
        except StoreNotFoundError:
            away += 1
        else:
            there = growing.there()
            assert {name: there[name] for name in old} in (old, {n: new[n] for n in old}), at
        again = growing.build()
        assert growing.there() == new, at
        assert again.store.verify().ok
    # only while the store copies what is new
    assert 0 < away <= len(between) // 5 + 2
    assert len(copies) > len(between)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_file_that_is_not_what_was_written_is_written_anew(growing, damage, caplog):
    (rows,) = lines(1200)
    growing.write(a=text(rows[:1100]))
    store = growing.build().store
    name = store.spec.data.file(1)
    place = Objects(f"{growing.url}/s.zarr")
    if damage == "gone":
        place.delete([name])
    else:
        data = place.read(name)
        place.write(name, data[:50] + bytes([data[50] ^ 1]) + data[51:])
    growing.write(a=text(rows))
    growing.build()
    assert growing.there() == growing.here()
    assert f"{name} is damaged; written anew" in caplog.text


@pytest.mark.slow
def test_a_growth_whose_notes_are_lost_reads_what_it_keeps(growing, monkeypatch):
    (rows,) = lines(1200)
    growing.write(a=text(rows[:1100]))
    store = growing.build().store
    notes = Objects(f"{growing.url}/.grandbatch/builds")
    notes.delete([found.name for found in notes.list()])
    growing.write(a=text(rows))
    with monkeypatch.context() as patch:
        heard = Heard(patch)
        result = growing.build()
    assert result.kept_chunks
    file = f"{growing.url}/s.zarr/{store.spec.data.file(0)}"
    assert file in heard.of("read_version", growing.url)
    assert file not in heard.of("write", growing.url)
    assert growing.there() == growing.here()


@pytest.mark.slow
def test_other_inputs_replace_what_they_touch_and_the_old_store_stands_until_then(growing):
    (rows,) = lines(1200)
    growing.write(a=text(rows))
    growing.build()
    changed = [*rows[:1100], rows[1100].rpartition(",")[0] + ",123456\n", *rows[1101:]]
    growing.write(a=text(changed))
    with pytest.raises(gb.errors.StoreMismatchError):
        growing.build()
    result = growing.build(overwrite=True)
    assert 0 < result.kept_chunks < result.store.n_chunks
    assert growing.there() == growing.here()
    # fewer than before: nothing of the longer one is left
    growing.write(a=text(rows[:900]))
    growing.build(overwrite=True)
    assert growing.there() == growing.here()


@pytest.mark.slow
def test_objects_of_the_store_that_go_meanwhile_are_seen_before_it_is_replaced(
    growing, monkeypatch
):
    (rows,) = lines(1200)
    growing.write(a=text(rows[:1100]))
    store = growing.build().store
    growing.write(a=text(rows))
    write = Objects.write

    def strike(objects, name, data):
        if name == "manifest.json":
            Objects(f"{growing.url}/s.zarr").delete([store.spec.data.file(0)])
        return write(objects, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", strike)
        with pytest.raises(gb.errors.StoreError, match="is missing"):
            growing.build()
    growing.build()
    assert growing.there() == growing.here()


@pytest.mark.slow
def test_trainings_learn_what_a_growth_corrected(growing):
    from grandbatch.builder.growth import corrected_since

    (rows,) = lines(1200)
    growing.write(a=text(rows[:1100]))
    before = growing.build().store
    growing.write(a=text(rows))
    after = growing.build().store
    assert corrected_since(after.path, before.content_id, after.content_id) == {}
