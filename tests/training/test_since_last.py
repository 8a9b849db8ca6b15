"""A training on a store that grew: of what is new each window once, with all that was learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from simulated import write_bars

import grandbatch as gb
from grandbatch.errors import CheckpointError, UsageError

HEAD = "timestamp,symbol,open,high,low,close,volume\n"
ORDERS = [{"overlap": 40}, {"overlap": 47, "order": "period", "period": "1D"}]
CORRECTING = gb.BarRules(sort=True, duplicates="last")


class Recorder:
    """A trainer whose state is a number that every window it saw has changed."""

    def __init__(self):
        self.state = torch.zeros(1, dtype=torch.float64)

    def train_batch(self, batch):
        for value in batch.matrices[:, 0, 0].tolist():
            self.state = self.state * 1.0001 + value
        return {"avg_reward": 0.0, "state": float(self.state)}

    def state_dict(self):
        return {"state": self.state.clone()}

    def load_state_dict(self, state):
        self.state = state["state"].clone()
        self.begun = float(self.state)


class Days:
    """A folder of bars, and the store that is built of it."""

    def __init__(self, folder: Path, order, rules=None):
        self.folder, self.order, self.rules = folder, order, rules or gb.BarRules()
        (folder / "in").mkdir()
        rows = write_bars(folder / "all.csv", 700, symbols=3, seed=5).read_text().splitlines(True)
        self.rows = [rows[1 + 700 * s : 701 + 700 * s] for s in range(3)]

    def add(self, name, *runs):
        """Write a file of the rows first to last of symbols, and build the store."""
        lines = [line for symbol, first, last in runs for line in self.rows[symbol][first:last]]
        lines.sort(key=lambda line: line.split(",")[:2])
        (self.folder / "in" / f"{name}.csv").write_text(HEAD + "".join(lines))
        return self.build()

    def build(self):
        return gb.build_store(
            self.folder / "in", self.folder / "s.zarr", chunk_windows=8, scheduler="sync",
            durable=False, rules=self.rules, **self.order,
        )  # fmt: skip

    def train(self, trainer=None, *, stop_after=None, epochs=1, since_last=True, **options):
        """Train; return what was seen, as (symbol, time), and the processor."""
        store = gb.MatrixStore.open(self.folder / "s.zarr")
        config = gb.BatchConfig(
            batch_size=5, sequence_length=48, overlap=store.overlap, checkpoint_frequency=4
        )
        processor = gb.BatchProcessor(
            store, config, self.folder / "c", epochs=epochs, since_last=since_last, **options
        )
        seen = []
        results = processor.process_batches(trainer or Recorder())
        for number, result in enumerate(results, 1):
            kept = result["batch"].weight > 0
            names = [store.symbols[code] for code in result["batch"].symbol[kept].tolist()]
            seen += zip(names, result["batch"].end_time[kept].tolist(), strict=True)
            if number == stop_after:
                break
        results.close()
        return seen, processor


def windows(store):
    return sorted(zip(np.array(store.symbols)[store.symbol[:]], store.end_time[:], strict=True))


def forget(days, step):
    """Take away the checkpoints behind a step, as if the process had been killed."""
    for path in (days.folder / "c").glob("step-*.ckpt"):
        if int(path.name[5:-5]) > step:
            path.unlink()


@pytest.mark.parametrize("order", ORDERS, ids=["symbol", "period"])
def test_each_stage_has_the_windows_that_those_before_had_not_and_all_that_was_learnt(
    tmp_path, order
):
    days = Days(tmp_path, order)
    trainer = Recorder()
    first = days.add("a", (0, 0, 400), (2, 0, 300))
    seen, processor = days.train(trainer)
    assert sorted(seen) == windows(first)
    before, steps = set(seen), processor.steps
    # twice between two trainings: more of one symbol, and another one, in the middle of time
    days.add("b", (0, 400, 500))
    store = days.add("c", (1, 100, 300), (2, 300, 400))
    again = Recorder()
    seen, processor = days.train(again)
    assert sorted(seen) == sorted(set(windows(store)) - before)
    assert len(seen) > 30
    assert processor.summary["windows"] == len(store)
    assert processor.steps > steps
    assert again.begun == float(trainer.state)
    assert days.train()[0] == []
    assert [stage.step for stage in processor.lineage.stages] == [0, steps]
    assert processor.lineage.last.fingerprint == store.fingerprint


@pytest.mark.parametrize("stop_after", [1, 4, 6, 9])
def test_a_stage_that_was_cut_off_goes_on_as_if_it_had_never_stopped(tmp_path, stop_after):
    runs = []
    for name, cut in (("whole", False), ("left", True), ("killed", True)):
        (tmp_path / name).mkdir()
        days = Days(tmp_path / name, ORDERS[1])
        days.add("a", (0, 0, 300))
        days.train()
        days.add("b", (0, 300, 380), (1, 0, 60))
        seen = []
        if cut:
            seen, processor = days.train(stop_after=stop_after, epochs=2)
        if name == "killed":
            begun = processor.lineage.last.step
            # a checkpoint is saved where 4 divides the steps of all stages
            reached = max(begun, (begun + stop_after) // 4 * 4)
            forget(days, reached)
            seen = seen[: 5 * (reached - begun)]
        last = Recorder()
        more, processor = days.train(last, epochs=2)
        runs.append((seen + more, float(last.state), processor.summary))
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0][0]) > 100


def test_what_was_not_had_to_the_end_comes_again_with_what_is_new(tmp_path):
    days = Days(tmp_path, ORDERS[0])
    days.add("a", (0, 0, 300))
    days.train()
    days.add("b", (0, 300, 500))
    cut, _ = days.train(stop_after=2)
    store = days.add("c", (1, 0, 200))
    seen, _ = days.train()
    assert set(cut) < set(seen)
    had = [w for w in windows(store) if w[0] == "S0" and w not in seen]
    assert sorted(had + seen) == windows(store)
    assert 0 < len(had) < 300


@pytest.mark.parametrize("order", ORDERS, ids=["symbol", "period"])
def test_windows_that_read_a_corrected_bar_are_new_and_few_others(tmp_path, order):
    days = Days(tmp_path, order, CORRECTING)
    first = days.add("a", (0, 0, 500), (1, 0, 500))
    days.train()
    head, _, _ = days.rows[1][250].rpartition(",")
    days.rows[1][250] = head + ",777777\n"
    store = days.add("b", (1, 250, 251))
    assert len(store) == len(first)
    seen, _ = days.train()
    at = store.first_row[:] - 500
    reads = (at - store.attrs["lookback"] <= 250) & (at + 48 >= 250)
    names = np.array(store.symbols)[store.symbol[:]]
    changed = set(zip(names[reads].tolist(), store.end_time[:][reads].tolist(), strict=True))
    assert changed <= set(seen)
    assert len(seen) <= len(changed) + 2 * (-(-48 // store.stride))
    assert {name for name, _ in seen} == {"S1"}
    assert days.train()[0] == []


def test_where_no_record_tells_of_corrections_windows_are_known_by_symbol_and_time(
    tmp_path, caplog
):
    days = Days(tmp_path, ORDERS[1], CORRECTING)
    days.add("a", (0, 0, 300))
    days.train()
    days.add("b", (0, 300, 400))
    (tmp_path / ".grandbatch" / "builds" / "s.zarr.growths.json").unlink()
    seen, processor = days.train()
    assert "no build on record leads from the store" in caplog.text
    assert len(seen) == 100
    assert processor.summary["windows"] == len(processor.store)


def test_a_store_that_grew_by_no_window_leaves_a_training_as_it_is(tmp_path):
    days = Days(tmp_path, {"overlap": 0})
    days.add("a", (0, 0, 300))
    _, processor = days.train()
    days.add("b", (0, 300, 301))
    seen, again = days.train()
    assert seen == []
    assert again.summary == processor.summary
    assert list(again.process_batches(Recorder())) == []
    assert again.summary == processor.summary


def test_filters_hold_for_what_is_new_and_for_what_was_had(tmp_path):
    days = Days(tmp_path, ORDERS[1])
    days.add("a", (0, 0, 300), (1, 0, 300))
    seen, _ = days.train(symbols="S0")
    assert {name for name, _ in seen} == {"S0"}
    store = days.add("b", (0, 300, 350), (1, 300, 350))
    more, _ = days.train()
    assert sorted(seen + more) == windows(store)


def test_what_would_not_be_right_is_refused(tmp_path):
    days = Days(tmp_path, ORDERS[1])
    days.add("a", (0, 0, 400))
    days.train()
    store = days.add("b", (0, 400, 500))
    with pytest.raises(CheckpointError, match=r"new since, give --since-last \(since_last=True\)"):
        days.train(since_last=False)
    days.train()
    with pytest.raises(CheckpointError, match="what was new when its store had grown"):
        days.train(since_last=False, epochs=5)
    splits = gb.split_store(store, {"train": 0.7, "test": 0.3})
    for option in ({"resume": False}, {"splits": splits}, {"subset": splits["train"]}):
        with pytest.raises(UsageError, match="leave out resume=False"):
            days.train(**option)


def test_a_training_that_keeps_a_test_is_not_led_to_learn_it(tmp_path):
    days = Days(tmp_path, ORDERS[1])
    store = days.add("a", (0, 0, 400))
    days.train(since_last=False, splits=gb.split_store(store, {"train": 0.7, "test": 0.3}))
    days.add("b", (0, 400, 500))
    with pytest.raises(UsageError, match=r"keeps windows from learning \(train, test\)"):
        days.train()


def test_single_windows_are_named_by_a_bool_for_each(make_store):
    store = make_store(400, overlap=40)
    chosen = np.arange(len(store)) % 7 == 3
    loader = gb.SlidingWindowDataLoader(store, subset=chosen)
    seen = np.concatenate([batch.index for batch in loader])
    assert sorted(seen.tolist()) == np.flatnonzero(chosen).tolist()
    other = gb.SlidingWindowDataLoader(store, subset=~chosen)
    with pytest.raises(CheckpointError, match="windows is "):
        other.load_state_dict(loader.state_dict())
    for wrong, words in ((chosen[1:], "of shape"), (chosen.astype(int), "a bool for each")):
        with pytest.raises(UsageError, match=words):
            gb.SlidingWindowDataLoader(store, subset=wrong)
