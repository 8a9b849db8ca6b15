"""`train`."""

from __future__ import annotations

import logging
import shlex
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from grandbatch.cli import options as o
from grandbatch.cli.output import Stages, show
from grandbatch.config import BatchConfig, BatchSize
from grandbatch.errors import StoreMismatchError, UsageError
from grandbatch.features import resolve_feature_set
from grandbatch.features.built_in import BUILT_IN
from grandbatch.files.refusals import refuse_inside_store
from grandbatch.files.whole import room_for
from grandbatch.ranks import Ranks, join_ranks
from grandbatch.store.reader import MatrixStore
from grandbatch.training.interrupts import HeldInterrupts
from grandbatch.values.texts import strict_json

if TYPE_CHECKING:
    from grandbatch.processor import BatchProcessor

_BATCHES = {"strategic": BatchConfig.strategic, "tactical": BatchConfig.tactical}
"""Settings for batches of the sets that have their own."""

_log = logging.getLogger("grandbatch")


def train(
    set_name: o.SetName,
    store: Annotated[Path, typer.Option("--store", help="A finished store.")],
    checkpoint_dir: Annotated[Path, typer.Option(help="Where checkpoints lie.")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the whole training.")] = 1,
    batch_size: Annotated[
        str | None, typer.Option(help="Windows in a batch, or auto (the set's).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from the last checkpoint.")
    ] = True,
    checkpoint_frequency: Annotated[
        int | None, typer.Option(help="Steps between checkpoints (the set's).")
    ] = None,
    run_length: Annotated[
        int, typer.Option(help="Consecutive windows kept together as a trajectory.")
    ] = 8,
    seed: Annotated[int, typer.Option(help="Seed of order, weights and actions.")] = 0,
    memory_limit: o.MemoryLimitOption = None,
    max_memory_percent: Annotated[
        float | None, typer.Option(help="Share of the limit that may be used (the set's).")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1.")
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Begin with the weights of this checkpoint, where nothing is resumed."),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, help="Threads of torch: 1 is fastest for networks of this size."),
    ] = 1,
    trace: Annotated[
        Path | None,
        typer.Option(help="Append a JSON line for each batch: step, windows. Rank 1: PATH.1."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Train MAPPO on a store; Ctrl-C saves a checkpoint, the same command goes on.

    Example: grandbatch train strategic --store bars.zarr --checkpoint-dir checkpoints

    In two processes: torchrun --nproc-per-node 2 -m grandbatch train strategic ...; --batch-size is
    that of each process.
    """
    opened = MatrixStore.open(store)
    check_holds(opened, set_name)
    if trace is not None:
        refuse_inside_store(trace, "the trace (--trace)")
    from grandbatch.processor import BatchProcessor

    config = make_config(opened, batch_size, checkpoint_frequency, seed, max_memory_percent)
    with join_ranks() as ranks:
        processor = BatchProcessor(
            opened,
            config,
            checkpoint_dir,
            epochs=epochs,
            resume=resume,
            run_length=run_length,
            memory_limit=memory_limit,
            metrics_port=metrics_port,
            rank=ranks.rank,
            world_size=ranks.size,
        )
        trainer = make_trainer(opened, seed, threads, ranks)
        if init_from is not None and not (resume and processor.checkpoints.latest()):
            trainer.load_weights(init_from)
        if ranks.rank:
            # one of them tells how far all are
            logging.getLogger("grandbatch").setLevel(logging.WARNING)
            trace = trace and trace.with_name(f"{trace.name}.{ranks.rank}")
        is_new = _follow(processor, trainer, trace)
    if ranks.rank == 0:
        done = processor.loader.epoch  # more than asked for, where an earlier run did more
        if not is_new:
            _log.info(
                "nothing was left to train on; --epochs %d would go on, --no-resume start again",
                done + 1,
            )
        show(
            {**processor.summary, "epochs": done, "checkpoint_dir": str(checkpoint_dir)},
            as_json=as_json,
            title=f"trained on {store}",
        )


def _follow(processor: BatchProcessor, trainer: Any, trace: Path | None) -> bool:
    """Train to the end, or to the batch in which Ctrl-C is pressed; tell if there was a batch."""
    steps = max(1, len(processor.loader) * processor.epochs)
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
        f"{shlex.quote(held)}, or give another --store"
    )


def make_config(
    store: MatrixStore,
    batch_size: str | int | None,
    checkpoint_frequency: int | None,
    seed: int,
    max_memory_percent: float | None = None,
) -> BatchConfig:
    """Take the set's settings for batches, and the store's for windows."""
    base = _BATCHES.get(store.attrs["feature_set"], BatchConfig)()
    return BatchConfig(
        batch_size=base.batch_size if batch_size is None else parse_batch_size(batch_size),
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


def parse_batch_size(text: str | int) -> BatchSize:
    """Read a batch size: a whole number, or "auto".

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--batch-size wants a whole number or auto, got {text!r}") from None


def make_trainer(
    store: MatrixStore, seed: int, threads: int = 1, ranks: Ranks | None = None
) -> Any:
    """Make the trainer of a store's set, normalising by the store's statistics."""
    from grandbatch.mappo import BatchStrategicTrainer, BatchTacticalTrainer, MappoTrainer

    kinds = {"strategic": BatchStrategicTrainer, "tactical": BatchTacticalTrainer}
    kind = kinds.get(store.attrs["feature_set"], MappoTrainer)
    return kind.for_store(store, seed=seed, ranks=ranks, torch_threads=threads)


def _write_trace(file: IO[str], result: dict[str, Any]) -> None:
    line = {
        "step": result["batch_idx"],
        "windows": result["batch"].index.tolist(),
        **{key: float(value) for key, value in result["metrics"].items()},
    }
    file.write(strict_json(line) + "\n")
    file.flush()
