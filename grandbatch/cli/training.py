"""`train`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from grandbatch.cli import options as o
from grandbatch.cli.learning import contexts as c
from grandbatch.cli.learning import splits as s
from grandbatch.cli.output import show
from grandbatch.cli.running.loading import loading
from grandbatch.cli.running.progress import Stages
from grandbatch.config import BatchConfig
from grandbatch.errors import StoreMismatchError
from grandbatch.features import resolve_feature_set
from grandbatch.features.built_in import BUILT_IN
from grandbatch.files.refusals import refuse_inside_store
from grandbatch.files.whole import room_for
from grandbatch.ranks import join_ranks
from grandbatch.splits import Split
from grandbatch.store.reader import CACHE_BYTES, MatrixStore
from grandbatch.training.interrupts import Ending, HeldInterrupts
from grandbatch.training.provenance import Goal
from grandbatch.values.texts import strict_json
from grandbatch.values.times import moment

if TYPE_CHECKING:
    from grandbatch.processor import BatchProcessor

_BATCHES = {one: getattr(BatchConfig, one) for one in ("strategic", "tactical", c.HIERARCHICAL)}
"""Settings for batches of the sets that have their own, and of the team that sees two."""

_log = logging.getLogger("grandbatch")

_Store = Annotated[Path, typer.Option("--store", help="A finished store.")]
_CheckpointDir = Annotated[
    Path, typer.Option(help="Where checkpoints lie: a folder, or a URL such as s3://bucket/run.")
]
_Epochs = Annotated[int, typer.Option(min=1, help="Epochs of the whole training.")]
_BatchSize = Annotated[
    str | None,
    typer.Option(help="Windows in a batch, or auto (32, tactical 64, hierarchical 256)."),
]
_Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on from the last checkpoint.")
]
_SinceLast = Annotated[
    bool,
    typer.Option(
        "--since-last", help="Train on what is new since the last training, for --epochs epochs."
    ),
]
_CheckpointFrequency = Annotated[
    int | None,
    typer.Option(help="Steps between checkpoints (100, tactical 200)."),
]
_RunLength = Annotated[int, typer.Option(help="Consecutive windows kept together as a trajectory.")]
_Weights = Annotated[
    str | None,
    typer.Option(
        help="Draw windows with replacement: symbol draws every symbol equally often; or as "
        "often as an array of the store says, by its name."
    ),
]
_Seed = Annotated[int, typer.Option(help="Seed of order, weights and actions.")]
_MaxMemoryPercent = Annotated[
    float | None,
    typer.Option(help="Percent of the limit that may be used (80, strategic 75)."),
]
_MetricsPort = Annotated[
    int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1.")
]
_InitFrom = Annotated[
    Path | None,
    typer.Option(help="Begin with the weights of this checkpoint, where nothing is resumed."),
]
_Threads = Annotated[
    int,
    typer.Option(min=1, help="Threads of torch: 1 is fastest for networks of this size."),
]
_Trace = Annotated[
    Path | None,
    typer.Option(help="Append a JSON line for each batch: step, windows. Rank 1: PATH.1."),
]


@dataclass(frozen=True, kw_only=True)
class LearningFlags:
    """The flags about how is learnt, as a shell has them."""

    epochs: _Epochs = 1
    batch_size: _BatchSize = None
    checkpoint_frequency: _CheckpointFrequency = None
    run_length: _RunLength = 8
    weights: _Weights = None
    seed: _Seed = 0
    max_memory_percent: _MaxMemoryPercent = None
    threads: _Threads = 1

    def config(self, store: MatrixStore, *, is_paired: bool = False) -> BatchConfig:
        """Make the settings for a store's batches."""
        asked = self.batch_size, self.checkpoint_frequency, self.seed, self.max_memory_percent
        return make_config(store, *asked, is_paired=is_paired)

    def options(self) -> dict[str, Any]:
        """Return what else `wire_training` takes of them."""
        return {
            "trainer_options": {"torch_threads": self.threads},
            "epochs": self.epochs,
            "run_length": self.run_length,
            "weights": self.weights,
        }


def with_learning_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags about how is learnt, as `learning`."""
    return o.gathering(command, "learning", LearningFlags, lambda flags: flags)


@with_learning_flags
def train(
    set_name: o.SetName,
    store: _Store,
    checkpoint_dir: _CheckpointDir,
    learning: LearningFlags,
    resume: _Resume = True,
    since_last: _SinceLast = False,
    split: s.SplitShares = None,
    train_until: s.TrainUntil = None,
    test_from: s.TestFrom = None,
    embargo: s.Embargo = "0",
    memory_limit: o.MemoryLimitOption = None,
    metrics_port: _MetricsPort = None,
    init_from: _InitFrom = None,
    context: c.ContextOption = None,
    max_age: c.MaxAge = None,
    leader: c.Leader = None,
    trace: _Trace = None,
    store_cache: o.StoreCache = None,
    store_cache_bytes: o.StoreCacheBytes = CACHE_BYTES,
    as_json: o.Json = False,
) -> None:
    """Train MAPPO on a store; Ctrl-C saves a checkpoint, the same command goes on.

    With --split (or --train-until and --test-from) each epoch ends with a validation, the best
    checkpoint is the one that does best there, and grandbatch evaluate judges it on the test.

    Example: grandbatch train strategic --store bars.zarr --checkpoint-dir run --split 0.8,0.2

    A team that sees coarser bars, too: grandbatch train hierarchical --store fast.zarr --context
    strategic=slow.zarr ...

    In two processes: torchrun --nproc-per-node 2 -m grandbatch train strategic ...; --batch-size is
    that of each process.
    """
    opened = MatrixStore.open(store, store_cache, store_cache_bytes)
    pairs = c.open_contexts(context)
    is_paired = c.sees_two(set_name, len(pairs), leader)
    if not is_paired:
        check_holds(opened, set_name)
    if trace is not None:
        refuse_inside_store(trace, "the trace (--trace)")
    splits = s.make_splits(opened, split, train_until, test_from, embargo)
    with loading():
        from grandbatch.experiment import take_weights, wire_training

    # of several ranks, one that SIGTERM is to end waits for the others
    with join_ranks() as ranks, Ending() if ranks.size == 1 else nullcontext():
        processor, trainer = wire_training(
            opened,
            learning.config(opened, is_paired=is_paired),
            checkpoint_dir,
            splits,
            ranks=ranks,
            context=pairs or None,
            max_age=max_age,
            leader=leader,
            resume=resume,
            since_last=since_last,
            memory_limit=memory_limit,
            metrics_port=metrics_port,
            **learning.options(),
        )
        if init_from is not None and not (resume and processor.checkpoints.latest()):
            take_weights(processor, trainer, init_from)
        is_new = _follow(processor, trainer, trace, ranks.rank)
    if ranks.rank == 0:
        _show_result(processor, trainer.config.schedule_batches, is_new=is_new, as_json=as_json)


def train_since_last(
    checkpoint_dir: Path, learning: LearningFlags, memory_limit: str | None, store: MatrixStore
) -> dict[str, Any] | None:
    """Train on what is new in a store since the last training of a folder.

    Returns
    -------
    dict or None
        What `train` shows; None where nothing was left to train on.

    Raises
    ------
    GrandbatchError
        As of `wire_training` and `BatchProcessor.process_batches`.
    """
    from grandbatch.experiment import wire_training

    processor, trainer = wire_training(
        store,
        learning.config(store),
        checkpoint_dir,
        since_last=True,
        memory_limit=memory_limit,
        **learning.options(),
    )
    is_new = _follow(processor, trainer, None, 0)
    return _describe(processor, trainer.config.schedule_batches) if is_new else None


def _show_result(processor: BatchProcessor, schedule: int, *, is_new: bool, as_json: bool) -> None:
    from grandbatch.experiment import hardly_trained

    stage, splits = processor.lineage.last, processor.provenance.splits
    if not is_new and processor.epochs == stage.epoch:
        _log.info("no window is new since the last training")
    elif not is_new:
        _log.info(
            "nothing was left to train on; --epochs %d would go on, --no-resume start again",
            processor.loader.epoch - stage.epoch + 1,
        )
    hardly = hardly_trained(processor.steps, schedule, _goal_of(processor))
    if not as_json and hardly:
        _log.warning("%s", hardly)
    if not splits:
        _log.info(
            "nothing was kept to judge it by; training with --split 0.7,0.15,0.15 into another "
            "folder keeps a test for grandbatch evaluate"
        )
    shown = _describe(processor, schedule)
    if not as_json:
        shown["splits"] = {name: _period(part) for name, part in splits.items()}
    show(shown, as_json=as_json, title=f"trained on {processor.store.path}")


def _describe(processor: BatchProcessor, schedule: int) -> dict[str, Any]:
    from grandbatch.experiment import hardly_trained

    splits = processor.provenance.splits
    best = processor.checkpoints.best() if "validation" in splits else None
    return {
        **processor.summary,
        # more than asked for, where an earlier run did more
        "epochs": processor.loader.epoch,
        "hardly_trained": bool(hardly_trained(processor.steps, schedule, None)),
        "splits": {name: part.to_json() for name, part in splits.items()},
        "best_checkpoint": best and str(best),
        "checkpoint_dir": str(processor.checkpoints.directory),
    }


def _goal_of(processor: BatchProcessor) -> Goal | None:
    """Return how far a training is to go; None where --epochs counts only those of what is new."""
    goal = Goal(processor.epochs, len(processor.loader))
    return goal if len(processor.lineage.stages) == 1 else None


def _period(split: Split) -> str:
    return f"{split.n_windows:,} windows from {moment(split.start)} to {moment(split.stop)}"


def _follow(processor: BatchProcessor, trainer: Any, trace: Path | None, rank: int) -> bool:
    """Train to the end, or to the batch in which Ctrl-C is pressed; tell if there was a batch."""
    if rank:
        # one of them tells how far all are
        logging.getLogger("grandbatch").setLevel(logging.WARNING)
        trace = trace and trace.with_name(f"{trace.name}.{rank}")
    stage = processor.lineage.last
    steps = max(1, stage.step + len(processor.loader) * (processor.epochs - stage.epoch))
    is_new = False
    with ExitStack() as stack:
        stages = stack.enter_context(Stages())
        if trace:
            stack.enter_context(room_for(trace))
        file = stack.enter_context(trace.open("a")) if trace else None
        held = stack.enter_context(HeldInterrupts())
        results = stack.enter_context(closing(processor.process_batches(trainer)))
        for result in results:
            is_new = True
            stages.tell("train", result["batch_idx"] + 1, steps)
            if file:
                _write_trace(file, result)
            if held.pending:
                break
    held.release()
    return is_new


def check_holds(store: MatrixStore, set_name: str) -> None:
    """Refuse a store of another feature set than the one named.

    The name that stands in the store will do: nothing is imported for it.

    Raises
    ------
    StoreMismatchError
        If the store holds another set's matrices.
    UsageError
        If the name means no set.
    """
    held = store.attrs["feature_set"]
    if set_name == held:
        return
    meant = set_name
    if ":" in set_name or set_name in BUILT_IN:
        wanted = resolve_feature_set(set_name)
        features = list(wanted.feature_names), list(wanted.feature_versions)
        if wanted.name == held:
            if features == (list(store.feature_names), store.attrs["feature_versions"]):
                return
            meant = f"those of {set_name}, which has other features or versions now"
    raise StoreMismatchError(
        f"{store.path} holds {held} matrices, not {meant}; run grandbatch train "
        f"{shlex.quote(held)}, or name another store"
    )


def make_config(
    store: MatrixStore,
    batch_size: str | int | None,
    checkpoint_frequency: int | None,
    seed: int,
    max_memory_percent: float | None = None,
    *,
    is_paired: bool = False,
) -> BatchConfig:
    """Take the set's settings for batches, or a hierarchical team's, and the store's windows."""
    base = _BATCHES.get(c.HIERARCHICAL if is_paired else store.attrs["feature_set"], BatchConfig)()
    return BatchConfig(
        batch_size=base.batch_size if batch_size is None else o.parse_batch_size(batch_size),
        sequence_length=store.sequence_length,
        overlap=store.overlap,
        max_memory_percent=(
            base.max_memory_percent if max_memory_percent is None else max_memory_percent
        ),
        checkpoint_frequency=(
            base.checkpoint_frequency if checkpoint_frequency is None else checkpoint_frequency
        ),
        seed=seed,
    )


def _write_trace(file: IO[str], result: dict[str, Any]) -> None:
    line = {
        "step": result["batch_idx"],
        "windows": result["batch"].index.tolist(),
        **{key: float(value) for key, value in result["metrics"].items()},
    }
    file.write(strict_json(line) + "\n")
    file.flush()
