"""`evaluate` and `walk-forward`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grandbatch.cli import options as o
from grandbatch.cli.learning.contexts import (
    ContextOption,
    Leader,
    MaxAge,
    check_has_one,
    open_contexts,
)
from grandbatch.cli.output import show_lines
from grandbatch.cli.running.loading import loading
from grandbatch.cli.training import make_config
from grandbatch.store.reader import MatrixStore
from grandbatch.values.times import shown

if TYPE_CHECKING:
    from grandbatch.evaluation import Evaluation
    from grandbatch.experiment import Judgement

_log = logging.getLogger("grandbatch")

_BatchSize = Annotated[
    str | None,
    typer.Option(help="Windows in a batch, or auto (32, tactical 64, with a context 256)."),
]
_RunLength = Annotated[int, typer.Option(help="Consecutive windows kept together as a trajectory.")]
_Seeds = Annotated[
    int, typer.Option(min=1, help="Trainings of each pair; fewer than 5 prove nothing.")
]
_TrainLeader = Annotated[
    bool,
    typer.Option(
        "--train-leader",
        help="With --context: first train a leader on its store, on the same stretch of time.",
    ),
]


def evaluate(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store at stride 1.")],
    checkpoint_dir: Annotated[
        list[Path],
        typer.Option(help="Of the training to judge; repeated for more seeds of it."),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoints of another training to show beside; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="A page to write about it.")
    ] = None,
    cost: Annotated[
        float, typer.Option(min=0.0, help="Per unit of exposure changed; 1e-4 is a basis point.")
    ] = 1e-4,
    draws: Annotated[int, typer.Option(min=1, help="Random shifts to compare with.")] = 999,
    seed: Annotated[int, typer.Option(help="Seed of these.")] = 0,
    level: Annotated[float, typer.Option(help="The p-value that counts as skill.")] = 0.05,
    context: ContextOption = None,
    max_age: MaxAge = None,
    as_json: o.Json = False,
) -> None:
    """Trade the bars that a training has not seen, and tell whether the result is luck.

    The best checkpoint counts where the training was validated, or else the latest. Of a training
    with --split the test is traded; of one without, bars later than all that it has seen.

    Example: grandbatch evaluate bars.zarr --checkpoint-dir run -o evaluation.html
    """
    with loading():
        from grandbatch.experiment import judge_trainings
        from grandbatch.report.page import refuse_folder

    if out is not None:
        refuse_folder(out)
    judged = judge_trainings(
        MatrixStore.open(store),
        checkpoint_dir,
        against or (),
        open_contexts(context),
        max_age=max_age,
        cost=cost,
        draws=draws,
        seed=seed,
        level=level,
    )
    for warning in judged.warnings:
        _log.warning("%s", warning)
    if out is not None:
        write_page(judged, store, out)
    show_lines(_as_json(judged, out), _lines(judged.evaluation, out), as_json=as_json)


def walk_forward(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="To trade: at stride 1.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of checkpoints, evaluation.json and .html.")
    ],
    learn_from: Annotated[
        Path | None, typer.Option(help="Another store of the same bars and set (STORE).")
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="Pairs of training and test.")] = 3,
    seeds: _Seeds = 5,
    embargo: Annotated[str, typer.Option(help="Time left out before each test, e.g. 1D.")] = "0",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over each training split.")] = 1,
    batch_size: _BatchSize = None,
    run_length: _RunLength = 8,
    cost: Annotated[
        float, typer.Option(min=0.0, help="Per unit of exposure changed; 1e-4 is a basis point.")
    ] = 1e-4,
    draws: Annotated[int, typer.Option(min=1, help="Random shifts to compare with.")] = 999,
    context: ContextOption = None,
    max_age: MaxAge = None,
    leader: Leader = None,
    train_leader: _TrainLeader = False,
    as_json: o.Json = False,
) -> None:
    """Train on each stretch of time over several seeds, and trade the one that follows.

    Each training starts anew, and keeps checkpoints of its own; the same command again goes on
    where it ended, and retrains nothing that is finished.

    Example: grandbatch walk-forward bars.zarr --out walk --embargo 1D

    A team that sees coarser bars, too, with a leader for each training: grandbatch walk-forward
    fast.zarr --out walk --context strategic=slow.zarr --train-leader
    """
    with loading():
        from grandbatch.experiment import judge_walk_forward
        from grandbatch.report.judgement import keep_walk_forward

    opened = MatrixStore.open(store)
    learning = opened if learn_from is None else MatrixStore.open(learn_from)
    pairs = open_contexts(context)
    if leader is not None or train_leader:
        check_has_one(len(pairs))
    leading = [make_config(slow, None, None, seed=0) for slow in pairs.values() if train_leader]
    result = judge_walk_forward(
        learning,
        opened,
        make_config(learning, batch_size, None, seed=0, is_paired=bool(pairs)),
        out,
        folds=folds,
        seeds=seeds,
        embargo=embargo,
        cost=cost,
        draws=draws,
        context=pairs or None,
        max_age=max_age,
        leader=leader,
        leading=leading[0] if leading else None,
        epochs=epochs,
        run_length=run_length,
    )
    facts = {"store": store, "learnt from": learning.path, "folds": folds, "seeds": seeds,
             "embargo": embargo, "epochs": epochs,
             "leader": leader or ("one for each training" if leading else "none")}  # fmt: skip
    page = keep_walk_forward(result, out, store.name, facts)
    show_lines({**result.to_json(), "path": str(page)}, _lines(result, page), as_json=as_json)


def write_page(judged: Judgement, store: Path, out: Path) -> None:
    """Write the page about a judgement."""
    from grandbatch.report.judgement import write_judgement

    result, own = judged.evaluation, judged.candidates
    facts = {
        "store": store,
        "checkpoints": ", ".join(f"{one.path} (step {one.step:,})" for one in own),
        "traded from": shown(int(result.times[0])),
        "cost": f"{1e4 * result.cost:g} bp per unit of exposure changed",
    }
    write_judgement(result, out, f"{own[0].folder.name} on {store.name}", facts, judged.warnings)


def _as_json(judged: Judgement, out: Path | None) -> dict[str, Any]:
    return {
        **judged.evaluation.to_json(),
        "checkpoints": [str(candidate.path) for candidate in judged.candidates],
        "hardly_trained": judged.warning is not None,
        "stopped": any(candidate.stopped for candidate in judged.candidates),
        "path": out and str(out),
    }


def _lines(result: Evaluation, out: Path | None) -> list[str]:
    lines = [str(result)]
    if len(result.symbols) > 1:
        for title, some in zip(("best", "worst"), result.best_and_worst, strict=True):
            said = ", ".join(f"{one.symbol} {100 * one.total_return:+.2f} %" for one in some)
            if said:
                lines.append(f"{title} symbols: {said}")
    if out is not None:
        lines.append(f"the page: {out}")
    return lines
