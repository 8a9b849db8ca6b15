"""What a small growth takes over besides whole files: folders, and values of windows."""

from __future__ import annotations

import pytest
from growing import Growing, by_time, digest, lines, small_files, text  # noqa: F401 (a fixture of every test here)

import grandbatch as gb
from grandbatch.builder import labels

BY_DAY = {"order": "period", "period": "1D", "overlap": 30, "chunk": 8}
MARK = 0o750


def growing_by_day(folder, stops, **wanted):
    """A store that has grown to numbers of rows of three symbols, and the texts of its files."""
    runs = lines(max(stops), symbols=3)
    texts = {
        f"f{stop:04d}": text(by_time(*(run[start:stop] for run in runs)))
        for start, stop in zip([0, *stops], stops, strict=False)
    }
    growing = Growing(folder, **{**BY_DAY, **wanted})
    for n_files in range(1, len(stops)):
        growing.write(**dict(list(texts.items())[:n_files]))
        growing.build()
    return growing, texts


def empty_folders(store):
    return [path for path in store.rglob("*") if path.is_dir() and not any(path.iterdir())]


def folders_kept(folder):
    return folder / ".grandbatch" / "builds" / "s.zarr.folders"


@pytest.mark.parametrize("layout", ["windows", "rows"])
def test_a_growth_takes_the_folders_of_the_store_before_the_last_which_hold_no_file(
    tmp_path, layout
):
    growing, texts = growing_by_day(tmp_path, [1440, 1500, 1600], layout=layout)
    kept = folders_kept(tmp_path)
    assert not any(path.is_file() for path in kept.rglob("*"))
    (of_first,) = kept.glob("*/c/0")
    of_first.chmod(MARK)
    store = growing.grow(**texts).store
    assert (store.path / of_first.relative_to(kept)).stat().st_mode & 0o777 == MARK
    assert not empty_folders(store.path)


def test_what_others_put_into_a_store_does_not_come_back_with_its_folders(tmp_path):
    growing, texts = growing_by_day(tmp_path, [1440, 1500])
    outside = tmp_path / "outside"
    (outside / "0").mkdir(parents=True)
    (outside / "mine").touch()
    store = tmp_path / "s.zarr"
    (store / "matrices" / "c" / "999").symlink_to(outside)
    (store / "symbol" / "c" / "777").mkdir()
    (store / "notes" / "of" / "mine").mkdir(parents=True)
    growing.grow(**texts)
    for n_rows in (1550, 1600):
        runs = lines(1600, symbols=3)
        texts["g"] = text(by_time(*(run[1500:n_rows] for run in runs)))
        store = growing.grow(**texts).store.path
        assert not [*store.rglob("999"), *store.rglob("777"), *store.rglob("notes")]
        assert not empty_folders(store)
    assert (outside / "mine").exists()
    assert (outside / "0").is_dir()


def test_a_store_that_has_fewer_files_takes_no_folder_of_those_it_has_not(tmp_path):
    growing, texts = growing_by_day(tmp_path, [1440, 1900, 2000])
    growing.write(**texts)
    growing.build()
    growing.write(f1440=texts["f1440"])
    shrunk = growing.build(overwrite=True)
    assert shrunk.kept_chunks
    assert not empty_folders(shrunk.store.path)
    assert shrunk.store.verify().ok


@pytest.mark.parametrize("other", ["end_time/c", "matrices/c/none", "end_time/c/1", "notes"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_folders_that_are_not_as_they_were_kept_are_done_without(tmp_path, other, is_folder):
    growing, texts = growing_by_day(tmp_path, [1440, 1500, 1600])
    place = folders_kept(tmp_path) / other
    if place.exists():
        place.rmdir()
    place.mkdir() if is_folder else place.write_text("no folder")
    store = growing.grow(**texts).store.path
    assert not place.is_file()
    assert not empty_folders(store)
    assert not (store / "notes").exists()


@pytest.mark.parametrize("layout", ["windows", "rows"])
@pytest.mark.parametrize("damaged", [False, True])
def test_of_a_chunk_of_values_that_begins_as_before_only_the_rest_is_computed(
    tmp_path, monkeypatch, layout, damaged
):
    targets = (gb.forward_return(5),)
    growing, texts = growing_by_day(tmp_path, [1430, 1600], layout=layout, targets=targets, chunk=2)
    store = gb.MatrixStore.open(tmp_path / "s.zarr")
    step, n_windows = store.spec.label_chunk_windows, len(store)
    if damaged:
        for path in store.path.glob("close_price/c/*"):
            path.write_bytes(path.read_bytes()[:-5] + b"?" + path.read_bytes()[-4:])
    growing.write(**texts)
    from_scratch = growing.from_scratch()
    compute, first = labels.window_labels, []

    def heard(spec, chunks, *more):
        first.append(chunks.windows[0])
        return compute(spec, chunks, *more)

    monkeypatch.setattr(labels, "window_labels", heard)
    grown = growing.build().store
    assert digest(grown.path) == digest(from_scratch.path)
    within = [number for number in first if number % step]
    assert within == [] if damaged else 0 < min(first) == within[0] < n_windows
