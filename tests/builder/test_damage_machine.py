"""Builds, kills, damage, growth and reads in any order: a store is the model's, or an error.

The model is a dictionary: for each input and layout the matrices of the naive oracle, the labels
as plain numpy gives them, and the bytes of one undisturbed build. A larger search by hand::

    GRANDBATCH_EXAMPLES=500 pytest tests/builder/test_damage_machine.py
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sabotage import Killed, Saboteur, sabotaged
from simulated import write_bars

import grandbatch as gb
from grandbatch.builder.builder import BuildOptions, BuildResult, build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.errors import DamagedStoreError, StoreMismatchError, StoreNotFoundError
from grandbatch.scheduling import Schedule
from grandbatch.store.publish import beside

# each grows from the one before it, but for the last
INPUTS = {"young": 150, "grown": 260, "old": 380, "other": 260}
GROWS_TO = {"young": ("grown", "old"), "grown": ("old",), "old": (), "other": ()}
LENGTH, OVERLAP, LOOKBACK = 48, 42, 40
LABELS = ("first_row", "symbol", "close_price", "next_return", "end_time")
EXAMPLES = int(os.environ.get("GRANDBATCH_EXAMPLES", "12"))


@dataclass(frozen=True)
class Wanted:
    """A store that may be asked for: of which input, in which layout and codec."""

    source: str
    layout: str
    codec: str

    def extends(self, other: Wanted) -> bool:
        same = (self.layout, self.codec) == (other.layout, other.codec)
        return same and self.source in GROWS_TO[other.source]


@dataclass(frozen=True, eq=False)
class Model:
    """What a store must hold, and its bytes by path."""

    matrices: np.ndarray
    labels: dict[str, np.ndarray]
    files: dict[str, str]

    def labels_are(self, labels: dict[str, np.ndarray]) -> bool:
        return all(np.array_equal(labels[n], self.labels[n], equal_nan=True) for n in LABELS)


WANTED = st.builds(
    Wanted,
    st.sampled_from(sorted(INPUTS)),
    st.sampled_from(["windows", "rows"]),
    st.sampled_from(["none", "zstd"]),
)


@cache
def scratch() -> Path:
    """Return the folder that all of this module's files are in."""
    return Path(tempfile.mkdtemp(prefix="machine-"))


@pytest.fixture(autouse=True, scope="module")
def small_files():
    """Files of a few chunks, so that few bars fill many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grandbatch.store.format._FILE_BYTES", 10_000)
        yield
    shutil.rmtree(scratch(), ignore_errors=True)


@cache
def source_of(name: str) -> Path:
    """Return an input; all have the same file name, as a file that grew has."""
    folder = scratch() / name
    folder.mkdir()
    path = write_bars(folder / "b.csv", max(INPUTS.values()), seed=name == "other")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: 1 + INPUTS[name]]))
    return path


def target_of(wanted: Wanted, store: Path) -> Request:
    made = make_settings("strategic", None, OVERLAP, wanted.layout, 4, wanted.codec, None)
    return Request.of(source_of(wanted.source), store, made, gb.BarRules())


def build_store(wanted: Wanted, store: Path, *, overwrite: bool = False) -> BuildResult:
    options = BuildOptions(
        schedule=Schedule.local("sync"), overwrite=overwrite, durable=False, partition_bars=90
    )
    return build(target_of(wanted, store), options)


def tree(folder: Path) -> dict[str, str]:
    """sha256 of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@cache
def matrices_of(source: str) -> np.ndarray:
    return oracles.windows([bars_of(source)], "strategic", LENGTH, OVERLAP)


def bars_of(source: str) -> dict[str, list[float]]:
    rows = [line.split(",") for line in source_of(source).read_text().splitlines()[1:]]
    names = ("open", "high", "low", "close", "volume")
    return {name: [float(row[2 + i]) for row in rows] for i, name in enumerate(names)}


@cache
def model_of(wanted: Wanted) -> Model:
    n_rows = INPUTS[wanted.source]
    first = np.arange(LOOKBACK, n_rows - LENGTH + 1, LENGTH - OVERLAP)
    last = first + LENGTH - 1
    close = np.array([*bars_of(wanted.source)["close"], np.nan])
    start = np.datetime64("2024-01-01", "ns")
    labels = {
        "first_row": first,
        "symbol": np.zeros(len(first), np.int32),
        "close_price": close[last],
        "next_return": (close[last + 1] - close[last]) / close[last],
        "end_time": (start + np.timedelta64(5, "m") * last).astype(np.int64),
    }
    undisturbed = scratch() / f"{wanted.source}-{wanted.layout}-{wanted.codec}" / "s.zarr"
    build_store(wanted, undisturbed)
    return Model(matrices_of(wanted.source), labels, tree(undisturbed))


def harm_file(path: Path, harm: str, place: int, other: Path) -> None:
    """Damage a file: flip a bit, cut it, delete it, or swap it with another."""
    data = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
        return
    if harm == "flip" and data:
        data[place % len(data)] ^= 1 << (place % 8)
    elif harm == "cut":
        data = data[: place % max(1, len(data))]
    elif harm == "swap":
        replacement = other.read_bytes()
        replace(other, bytes(data))
        data = bytearray(replacement)
    replace(path, bytes(data))


def replace(path: Path, data: bytes) -> None:
    """Give a name other bytes; the old ones stay as they are where another name has them too."""
    path.unlink()
    path.write_bytes(data)


HARM = st.sampled_from(["flip", "cut", "delete", "swap"])
PLACE = st.integers(0, 2**20)


class DamageMachine(RuleBasedStateMachine):
    """One path, and all that can happen to it.

    `candidates` are the stores that may stand there: one, but for a while after a kill, when it is
    known only that it is the one before or the one that was to come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=scratch()))
        self.path = self.folder / "s.zarr"
        self.candidates: set[Wanted | None] = {None}
        self.cut_off: tuple[Wanted, bool] | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_damaged(self) -> bool:
        """Whether a store stands there that is none of the model's."""
        models = [model_of(wanted).files for wanted in self.candidates if wanted]
        return self.path.exists() and tree(self.path) not in models

    # building

    @rule(wanted=WANTED, overwrite=st.booleans())
    def build(self, wanted: Wanted, overwrite: bool) -> None:
        """Build, extend, replace or reuse: whatever the command comes to."""
        damaged = self.is_damaged()
        is_store = not damaged or (self.path / "manifest.json").exists()
        try:
            result = build_store(wanted, self.path, overwrite=overwrite)
        except StoreMismatchError:
            # what is no store, or no longer, is never replaced
            assert not overwrite or not is_store
            self.candidates -= {b for b in self.candidates if is_store and may_follow(wanted, b)}
            assert self.candidates
            return
        except DamagedStoreError:
            assert damaged
            assert not overwrite
            return
        assert overwrite or any(may_follow(wanted, before) for before in self.candidates)
        assert not result.reused or wanted in self.candidates
        stays_damaged = damaged and result.reused and not overwrite
        assert stays_damaged or tree(self.path) == model_of(wanted).files
        self.candidates = {wanted}
        left = sorted(path.name for path in beside(self.path).iterdir())
        assert set(left) - {"builds"} == {"bars", "locks"}
        # a reuse reads no bars, and so leaves the cache of bars as another build's end left it
        assert result.reused or not list((beside(self.path) / "bars").glob(".staging*/"))
        assert stays_damaged or not list(self.folder.rglob("*.partial"))

    @rule(wanted=WANTED, overwrite=st.booleans(), at=st.integers(1, 200))
    def kill(self, wanted: Wanted, overwrite: bool, at: int) -> None:
        """Start a build, and let it die right before one of its changes of files."""
        model_of(wanted)
        before = self.candidates
        try:
            with sabotaged(Saboteur(below=str(self.folder), at=at, act="raise")):
                self.build(wanted, overwrite)
        except Killed:
            self.candidates = before | {wanted}
            self.cut_off = wanted, overwrite

    @precondition(lambda self: self.cut_off is not None)
    @rule(harm=HARM, number=PLACE, place=PLACE, is_harmed=st.booleans())
    def go_on(self, harm: str, number: int, place: int, is_harmed: bool) -> None:
        """Run what was cut off again, be what it left harmed or not."""
        if is_harmed:
            self.damage_staged(harm, number, place)
        self.build(*self.cut_off)
        self.cut_off = None

    # damage

    @rule(harm=HARM, number=PLACE, place=PLACE)
    def damage(self, harm: str, number: int, place: int) -> None:
        """Harm a file of the store."""
        self._harm(files_below(self.path), harm, number, place)

    @rule(harm=HARM, number=PLACE, place=PLACE)
    def damage_staged(self, harm: str, number: int, place: int) -> None:
        """Harm a file of an unfinished build, unless it is finished but for its name."""
        work = beside(self.path) / "s.zarr.building"
        if not (work / "journal").exists():
            self._harm(files_below(work), harm, number, place)

    def _harm(self, files: list[Path], harm: str, number: int, place: int) -> None:
        if files:
            harm_file(files[number % len(files)], harm, place, files[place % len(files)])

    # reading

    @invariant()
    def a_reader_sees_a_store_of_the_model_or_an_error(self) -> None:
        try:
            store = gb.MatrixStore.open(self.path)
            matrices = store.matrices[:]
            labels = {name: getattr(store, name)[:] for name in LABELS}
        except StoreNotFoundError:
            assert None in self.candidates or len(self.candidates) > 1 or self.is_damaged()
        except (DamagedStoreError, StoreMismatchError):
            assert self.is_damaged()
        else:
            models = [model_of(wanted) for wanted in self.candidates if wanted]
            (model,) = [m for m in models if m.labels_are(labels)][:1]
            oracles.assert_agrees(matrices, model.matrices)

    @rule()
    def verify(self) -> None:
        """The command that looks at every chunk finds damage wherever there is any."""
        try:
            ok = gb.MatrixStore.open(self.path).verify().ok
        except StoreNotFoundError:
            return
        except (DamagedStoreError, StoreMismatchError):
            ok = False
        assert ok == (not self.is_damaged())


def may_follow(wanted: Wanted, before: Wanted | None) -> bool:
    """Whether a build needs no leave to overwrite: it builds, reuses or extends."""
    return before is None or wanted == before or wanted.extends(before)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_whatever_happens_a_store_is_the_models_or_an_error():
    run_state_machine_as_test(
        DamageMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
