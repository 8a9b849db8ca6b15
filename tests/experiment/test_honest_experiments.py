"""What is judged was not learnt from, nor chosen by: through the command line and in Python."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from crash_server import CrashServer
from simulated import write_bars

import grandbatch as gb
from grandbatch.checkpoint import CheckpointManager, read_checkpoint
from grandbatch.errors import CheckpointError, StoreMismatchError, UsageError
from grandbatch.experiment import hardly_trained, judge_trainings, wire_training
from grandbatch.mappo import BatchStrategicTrainer
from grandbatch.mappo.team import Team
from grandbatch.report.judgement import write_judgement
from grandbatch.splits import read_spans
from grandbatch.training.provenance import Provenance

SERVER = CrashServer("grandbatch.experiment", "grandbatch.report.judgement")
SPLIT = ("--split", "0.6,0.2,0.2", "--embargo", "1h")


@pytest.fixture(scope="module", autouse=True)
def server():
    with SERVER:
        yield


def run(*arguments, check=0):
    done = SERVER.run([str(argument) for argument in arguments])
    assert done.code == check, done.err
    assert "Traceback" not in done.err
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store to learn from, one with a window at every bar, and two trainings with a test."""
    path = tmp_path_factory.mktemp("experiment")
    write_bars(path / "bars.csv", 1200, symbols=2)
    gb.build_store(path / "bars.csv", path / "learn.zarr", overlap=44, durable=False)
    gb.build_store(path / "bars.csv", path / "every.zarr", overlap=47, layout="rows", durable=False)
    for seed in (0, 1):
        run("train", "strategic", "--store", path / "learn.zarr", "--checkpoint-dir",
            path / f"seed-{seed}", "--seed", seed, "--epochs", 2, *SPLIT)  # fmt: skip
    return path


def provenance(folder):
    found = Provenance.of_checkpoint(
        read_checkpoint(CheckpointManager(folder, content_id="").latest())
    )
    assert found is not None
    return found


@pytest.mark.slow
def test_evaluate_trades_windows_whose_bars_no_epoch_and_no_validation_read(folder):
    done = run("evaluate", folder / "every.zarr", "--checkpoint-dir", folder / "seed-0",
               "--draws", 20, "--json")  # fmt: skip
    found = json.loads(done.out)
    saved = provenance(folder / "seed-0")
    learn, every = (gb.MatrixStore.open(folder / f"{name}.zarr") for name in ("learn", "every"))
    seen = [
        window
        for name in ("train", "validation")
        for batch in gb.SlidingWindowDataLoader(learn, subset=saved.splits[name])
        for window in batch.index.tolist()
    ]
    _, last_read = read_spans(learn, 0, len(learn))
    traded = gb.evaluate(
        lambda m, e: np.zeros(len(m)), every, saved.splits["test"], draws=1
    ).windows
    first_read, _ = read_spans(every, 0, len(every))
    assert found["n_windows"] == len(traded) > 100
    assert first_read[traded].min() - last_read[seen].max() > 3600 * 10**9


def test_the_best_checkpoint_of_the_validation_is_the_one_that_is_judged(folder):
    rated = {
        info.path: info.metrics["val_avg_reward"]
        for info in CheckpointManager(folder / "seed-0", content_id="").list()
        if "rating" in info.metrics
    }
    judged = judge_trainings(
        gb.MatrixStore.open(folder / "every.zarr"), [folder / "seed-0"], draws=5
    )
    assert len(rated) == 2
    assert judged.candidates[0].path == max(rated, key=rated.get)


def test_several_seeds_and_another_training_stand_side_by_side_with_units(folder):
    page = folder / "page.html"
    done = run(
        "evaluate", folder / "every.zarr", "--checkpoint-dir", folder / "seed-0",
        "--checkpoint-dir", folder / "seed-1", "--against", folder / "seed-1", "--draws", 30,
        "-o", page,
    )  # fmt: skip
    assert done.err.startswith("hardly trained: ")
    for text in (
        "mean of 2 seeds",
        "buy and hold",
        " bp ",
        " %",
        "seed 1: return",
        "best symbols: S",
    ):
        assert text in done.out
    html = page.read_text()
    assert html.index("Hardly trained: ") < html.index("RANDOM" if "RANDOM" in html else "random")
    for section in ("verdict", "equity", "figures", "symbols", "made-of"):
        assert f'<section id="{section}">' in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_a_training_on_all_bars_is_refused_and_later_bars_are_judged(folder, tmp_path):
    run(
        "train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir", tmp_path / "all"
    )
    done = run("evaluate", folder / "every.zarr", "--checkpoint-dir", tmp_path / "all", check=2)
    assert "nothing is left to judge it by" in done.err
    assert "--split 0.7,0.15,0.15" in done.err
    write_bars(tmp_path / "longer.csv", 1500, symbols=2)
    later = gb.build_store(tmp_path / "longer.csv", tmp_path / "l.zarr", overlap=47, durable=False)
    result = judge_trainings(later, [tmp_path / "all"], draws=5).evaluation
    first_read, _ = read_spans(later, 0, len(later))
    last_bar = gb.MatrixStore.open(folder / "learn.zarr").attrs["last_time"]
    assert first_read[result.windows].min() > last_bar
    assert len(result.windows) > 300


@pytest.mark.slow
def test_weights_that_have_seen_the_test_are_refused(folder, tmp_path):
    run(
        "train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir", tmp_path / "all"
    )
    flags = ("train", "strategic", "--store", folder / "learn.zarr")
    warm = ("--checkpoint-dir", tmp_path / "warm", "--init-from")
    done = run(*flags, *warm, tmp_path / "all", *SPLIT, check=2)
    assert "is to be judged by windows that read bars" in done.err
    assert not (tmp_path / "warm").exists()
    run(*flags, *warm, folder / "seed-0", *SPLIT)
    assert provenance(tmp_path / "warm").seen == provenance(folder / "seed-0").seen


def test_seeds_with_other_splits_are_not_judged_together(folder, tmp_path):
    run("train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir", tmp_path / "r",
        "--split", "0.9,0.1")  # fmt: skip
    done = run("evaluate", folder / "every.zarr", "--checkpoint-dir", folder / "seed-0",
               "--checkpoint-dir", tmp_path / "r", check=2)  # fmt: skip
    assert "the same splits" in done.err


def test_a_training_goes_on_only_with_the_splits_it_began_with(folder):
    same = ("train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir",
            folder / "seed-1", "--seed", 1, "--epochs", 2)  # fmt: skip
    assert "nothing was left to train on" in run(*same, *SPLIT).err
    assert "give the same splits" in run(*same, check=1).err
    assert "give the same splits" in run(*same, "--split", "0.6,0.4", check=1).err


def test_times_make_splits_too_and_what_lies_between_is_validated_on(folder, tmp_path):
    flags = ("train", "strategic", "--store", folder / "learn.zarr", "--json")
    done = run(*flags, "--checkpoint-dir", tmp_path / "a", "--train-until", "2024-01-03",
               "--test-from", "2024-01-04")  # fmt: skip
    splits = json.loads(done.out)["splits"]
    day = int(np.datetime64("2024-01-03", "ns").astype(int))
    assert list(splits) == ["train", "validation", "test"]
    assert (splits["train"]["stop"], splits["validation"]["start"]) == (day, day)
    both = ("--train-until", "2024-01-03", "--test-from", "2024-01-03")
    done = run(*flags, "--checkpoint-dir", tmp_path / "b", *both)
    assert list(json.loads(done.out)["splits"]) == ["train", "test"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--split", "0.7"), "0.7,0.15,0.15"),
        (("--split", "a,b,c"), "got 'a,b,c'"),
        (("--split", "0.7,0.4"), "add up to at most 1"),
        (("--train-until", "2024-01-03"), "belong together"),
        (("--split", "0.8,0.2", "--test-from", "2024-01-03"), "give one"),
        (("--embargo", "1D"), "give --split"),
    ],
)
def test_splits_that_make_no_sense_are_wrong_usage(folder, tmp_path, flags, said):
    done = run("train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir",
               tmp_path / "x", *flags, check=2)  # fmt: skip
    assert said in done.err
    assert not (tmp_path / "x").exists()


def test_stores_that_a_team_does_not_know_are_refused(folder, make_store):
    with pytest.raises(StoreMismatchError, match="trained on 48 rows of price_change"):
        judge_trainings(make_store(600, feature_set="tactical", overlap=59), [folder / "seed-0"])
    with pytest.raises(StoreMismatchError, match="--overlap 47 --layout rows"):
        judge_trainings(gb.MatrixStore.open(folder / "learn.zarr"), [folder / "seed-0"])


def test_a_team_comes_back_whole_calibration_and_all(folder):
    path = CheckpointManager(folder / "seed-0", content_id="", metric="rating").best()
    store = gb.MatrixStore.open(folder / "every.zarr")
    matrices = torch.from_numpy(store.matrices[:200])
    learnt = BatchStrategicTrainer.for_store(store)
    learnt.load_state_dict(read_checkpoint(path).trainer_state)
    team = Team.from_checkpoint(folder / "seed-0")
    assert team.is_calibrated
    found, wanted = team.predict(matrices), learnt.predict(matrices)
    assert torch.equal(found.confidence, wanted.confidence)
    assert torch.equal(team.act(matrices).actions, learnt.act(matrices).actions)
    learnt.load_weights(folder / "seed-0")
    assert not learnt.is_calibrated
    assert not torch.equal(learnt.predict(matrices).confidence, found.confidence)


def test_a_state_that_is_no_teams_is_refused():
    state = BatchStrategicTrainer().state_dict()
    with pytest.raises(CheckpointError, match="settings differ in later"):
        Team.from_checkpoint({**state, "config": {**state["config"], "later": 1}})
    with pytest.raises(CheckpointError, match="not a MAPPO trainer's state"):
        Team.from_checkpoint({})


def test_a_checkpoint_that_says_nothing_of_its_bars_is_not_judged(folder, tmp_path, monkeypatch):
    store = gb.MatrixStore.open(folder / "learn.zarr")
    monkeypatch.setattr(Provenance, "to_state", lambda self: {})
    processor, trainer = wire_training(store, gb.BatchConfig(), tmp_path / "old")
    next(processor.process_batches(trainer))
    with pytest.raises(CheckpointError, match="doesn't say which bars it was trained on"):
        judge_trainings(gb.MatrixStore.open(folder / "every.zarr"), [tmp_path / "old"])


def test_splits_name_what_is_learnt_from(folder):
    store = gb.MatrixStore.open(folder / "learn.zarr")
    splits = gb.split_store(store, {"train": 0.8, "test": 0.2})
    processor = gb.BatchProcessor(store, splits=splits)
    assert processor.loader.n_windows == splits["train"].n_windows
    with pytest.raises(UsageError, match="must be called 'train', got test"):
        gb.BatchProcessor(store, splits={"test": splits["test"]})
    with pytest.raises(UsageError, match="not the split called 'train'"):
        gb.BatchProcessor(store, splits=splits, subset=splits["test"])
    with pytest.raises(UsageError, match="the same splits"):
        gb.BatchProcessor(store, splits={"train": splits["test"], "test": splits["test"]})


def test_figures_are_those_of_a_plain_loop_over_symbols(folder):
    store = gb.MatrixStore.open(folder / "every.zarr")
    result = gb.evaluate(lambda m, e: np.sign(m[:, -1, 0]), store, cost=1e-3, draws=3,
                         against={"long": lambda m, e: np.ones(len(m))})  # fmt: skip
    exposure = result.seeds[0].exposure
    symbol, returns = store.symbol[result.windows], store.next_return[result.windows]
    for one in result.symbols:
        capital, held = 1.0, 0.0
        mine = np.flatnonzero(symbol == store.symbols.index(one.symbol))
        for place in mine:
            cost = abs(exposure[place] - held) + (abs(exposure[place]) if place == mine[-1] else 0)
            held = exposure[place]
            capital *= 1 + held * returns[place] - 1e-3 * cost
        assert one.total_return == pytest.approx(capital - 1)
        assert one.n_windows == len(mine)
    assert result.others["long"].performance == result.buy_and_hold.performance
    assert re.search(r"Sharpe ratio.*-?\d", str(result))
    assert all(len(line) <= 80 for line in str(result).splitlines()[:9])
    with pytest.raises(UsageError, match="called so already"):
        gb.evaluate(lambda m, e: np.ones(len(m)), store, against={"flat": lambda m, e: e})


def test_a_walk_forward_is_that_of_python_and_a_second_run_trains_nothing(folder, tmp_path):
    flags = ("walk-forward", folder / "every.zarr", "--learn-from", folder / "learn.zarr", "--out",
             tmp_path / "walk", "--folds", 2, "--seeds", 2, "--embargo", "1h", "--draws", 20,
             "--json")  # fmt: skip
    done = run(*flags)
    first = json.loads(done.out)
    saved = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}
    assert {path.parent.relative_to(tmp_path / "walk").as_posix() for path in saved} == {
        f"fold-{fold}/seed-{seed}" for fold in (0, 1) for seed in (0, 1)
    }
    assert (tmp_path / "walk" / "evaluation.html").read_text().count("seed 1") == 1
    pairs = gb.walk_forward(gb.MatrixStore.open(folder / "every.zarr"), 2, embargo="1h")
    for number, (split, test) in enumerate(pairs):
        saved_splits = provenance(tmp_path / "walk" / f"fold-{number}" / "seed-0").splits
        assert saved_splits == {"train": split, "test": test}
    assert json.loads(run(*flags).out) == first
    assert {path: path.stat().st_mtime_ns for path in saved} == saved


def test_shares_that_leave_windows_out_say_how_many(folder, tmp_path):
    flags = ("train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir")
    done = run(*flags, tmp_path / "some", "--split", "0.6,0.2")
    assert "--split 0.6,0.2 leaves the last 20 % of the windows out" in done.err


def test_a_training_that_was_stopped_is_judged_as_one(folder, tmp_path):
    store = gb.MatrixStore.open(folder / "learn.zarr")
    splits = gb.split_store(store, {"train": 0.8, "test": 0.2})
    processor, trainer = wire_training(store, gb.BatchConfig(), tmp_path / "cut", splits, epochs=3)
    batches = processor.process_batches(trainer)
    for _ in range(2):
        next(batches)
    batches.close()
    page = tmp_path / "page.html"
    flags = ("evaluate", folder / "every.zarr", "--checkpoint-dir", tmp_path / "cut", "--draws", 5)
    done = run(*flags, "-o", page, "--json")
    said = f"stopped before its end, after 2 steps, in epoch 1 of 3 of {len(processor.loader)}"
    assert said in done.err
    assert said in page.read_text()
    assert json.loads(done.out)["stopped"]
    for _ in processor.process_batches(trainer):
        pass
    done = run(*flags, "--json")
    assert "stopped" not in done.err
    assert not json.loads(done.out)["stopped"]


def test_a_training_of_few_steps_is_told_how_many_epochs_make_enough(folder):
    done = run("train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir",
               folder / "seed-0", "--epochs", 2, *SPLIT)  # fmt: skip
    told = re.search(
        r"hardly trained: (\d+) steps.*aim at ([\d,]+): train with --epochs (\d+) of (\d+) steps",
        done.err,
    )
    assert told, done.err
    assert "windows out" not in done.err
    steps, aim, epochs, each = (int(number.replace(",", "")) for number in told.groups())
    assert steps == 2 * each
    assert (epochs - 1) * each < aim <= epochs * each
    assert hardly_trained(epochs * each, aim, None) is None


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "every.zarr", "--checkpoint-dir", "nope"),
        ("evaluate", "every.zarr", "--checkpoint-dir", "seed-0", "--against", "nope"),
        ("report", "learn.zarr", "--checkpoint-dir", "nope"),
        ("serve", "--checkpoint-dir", "nope"),
        ("train", "strategic", "--store", "learn.zarr", "--checkpoint-dir", "new", "--init-from",
         "nope"),
    ],
    ids=["evaluate", "against", "report", "serve", "init-from"],
)  # fmt: skip
def test_checkpoints_that_are_not_there_are_refused_in_one_way(folder, command, tmp_path):
    places = {name: folder / name for name in ("every.zarr", "learn.zarr", "seed-0")}
    places["new"] = tmp_path / "new"
    done = run(*(places.get(part, part) for part in command), check=2)
    assert done.err.splitlines()[-1] == (
        "error: nope can't be read: there is no folder, nor a checkpoint; name the folder that a "
        "training saved into"
    )


def test_the_nanosecond_behind_the_last_bar_is_not_written(folder, tmp_path):
    for name, shares in (("one", "0.6,0.4"), ("two", "0.7,0.3")):
        run("train", "strategic", "--store", folder / "learn.zarr", "--checkpoint-dir",
            tmp_path / name, "--split", shares)  # fmt: skip
    done = run("evaluate", folder / "every.zarr", "--checkpoint-dir", tmp_path / "one",
               "--against", tmp_path / "two", check=2)  # fmt: skip
    assert "the same splits" in done.err
    assert re.search(r"bars from \d{4}-\d\d-\d\dT\d\d:\d\d:00Z to ", done.err)
    assert ".0000" not in done.err


def test_a_curve_keeps_its_colour_whatever_is_shown_beside(folder, tmp_path):
    store = gb.MatrixStore.open(folder / "every.zarr")
    colours = []
    for others in ([], [folder / "seed-1"]):
        judged = judge_trainings(store, [folder / "seed-0"], others, draws=3)
        write_judgement(judged.evaluation, tmp_path / "page.html", "", {}, judged.warnings)
        html = (tmp_path / "page.html").read_text()
        keys = re.findall(r'<path class="(l\d)"[^>]*/><text [^>]*>([^<]+)<', html)
        colours.append({name: kind for kind, name in keys})
    assert len(colours[1]) == len(colours[0]) + 1
    assert colours[0].items() <= colours[1].items()
