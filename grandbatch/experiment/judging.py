"""Teams read from checkpoints, on bars that their trainings have not seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grandbatch.checkpoint import Checkpoint, CheckpointManager, is_shelf, read_checkpoint
from grandbatch.errors import CheckpointError, StoreMismatchError, UsageError
from grandbatch.evaluation import Evaluation, evaluate
from grandbatch.files.locations import as_location
from grandbatch.mappo.config import HierarchicalConfig
from grandbatch.mappo.saving import chosen
from grandbatch.mappo.team import Team
from grandbatch.position import Position
from grandbatch.store import MatrixStore
from grandbatch.training.provenance import Goal, Provenance


@dataclass(frozen=True)
class Candidate:
    """A team that was read from its checkpoints.

    Parameters
    ----------
    folder, path : Path
        Where its checkpoints lie, and the one that was taken.
    step : int
        Training steps it has learnt for.
    team : Team
    provenance : Provenance
        What was learnt from.
    trained : int
        Steps of the whole training, those behind the checkpoint too.
    goal : Goal or None
        How far the training was to go, if it says.
    stopped : str or None
        What must be known of a training that was stopped before its end.
    """

    folder: Path
    path: Path
    step: int
    team: Team
    provenance: Provenance
    trained: int
    goal: Goal | None
    stopped: str | None

    @classmethod
    def read(
        cls,
        folder: str | os.PathLike[str],
        store: MatrixStore,
        context: Mapping[str, MatrixStore] | None = None,
    ) -> Candidate:
        """Read a training's team, and see to it that it knows a store's windows, and a context's.

        Raises
        ------
        UsageError, CheckpointError
            If there is none, or it doesn't say what it was trained on.
        StoreMismatchError
            If the store has other features.
        """
        folder = as_location(folder)
        checkpoint = read_checkpoint(chosen(folder))
        team = Team.from_checkpoint(checkpoint.trainer_state)
        provenance = Provenance.of_checkpoint(checkpoint)
        if provenance is None:
            raise CheckpointError(
                f"{checkpoint.path} doesn't say which bars it was trained on, so that nothing can "
                "be told from what it earns; train again, with --split 0.7,0.15,0.15"
            )
        check_features(team, store)
        check_context(team, context)
        last = _last_of(folder, checkpoint)
        goal = Goal.of_checkpoint(last)
        return cls(
            folder,
            checkpoint.path,
            checkpoint.step,
            team,
            provenance,
            last.step,
            goal,
            _stopped(folder, last, goal),
        )


def _last_of(folder: Path, taken: Checkpoint) -> Checkpoint:
    """Return the last good checkpoint of a folder's training; the one taken if it was named."""
    if not is_shelf(folder):
        return taken
    last = CheckpointManager(folder, content_id="").load(of_any_store=True)
    return last or taken


def _stopped(folder: Path, last: Checkpoint, goal: Goal | None) -> str | None:
    """Say so if a training has not come to its end, as far as its last checkpoint says."""
    over = Position.from_json(last.loader_state["loader"]["position"]).epoch
    if goal is None or not is_shelf(folder) or over >= goal.epochs:
        return None
    return (
        f"{folder}: the training was stopped before its end, after {last.step:,} steps, in epoch "
        f"{over + 1:,} of {goal.epochs:,} of {goal.epoch_steps:,} steps each; the same grandbatch "
        "train command goes on"
    )


@dataclass(frozen=True)
class Judgement:
    """What trainings come to on bars that they have not seen.

    Parameters
    ----------
    evaluation : Evaluation
    candidates : sequence of Candidate
        A seed each.
    warning : str or None
        That hardly anything was learnt, where that is so.
    """

    evaluation: Evaluation
    candidates: Sequence[Candidate]
    warning: str | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before all else."""
        told = [one.stopped for one in self.candidates]
        return tuple(text for text in (self.warning, *told) if text is not None)


def judge_trainings(
    store: MatrixStore,
    folders: Sequence[str | os.PathLike[str]],
    against: Sequence[str | os.PathLike[str]] = (),
    context: Mapping[str, MatrixStore] | None = None,
    **options: Any,
) -> Judgement:
    """Let the teams of trainings trade what none of them has seen.

    Of each folder the checkpoint with the best validation counts, or where nothing was validated
    the latest.

    Parameters
    ----------
    store : MatrixStore
        At stride 1; the trainings may have used another one of the same bars.
    folders : sequence of path
        Checkpoints of the same training under different seeds.
    against : sequence of path
        Checkpoints of others, to be shown beside.
    context : mapping of str to MatrixStore, optional
        That of hierarchical teams, as of `evaluate`.
    **options
        Of `evaluate`: cost, draws, seed, level, max_age.

    Returns
    -------
    Judgement

    Raises
    ------
    UsageError, CheckpointError, StoreMismatchError
        If one can't be read, knows other windows, or has seen what it would be judged by.
    """
    own = [Candidate.read(folder, store, context) for folder in folders]
    others = [Candidate.read(folder, store, context) for folder in against]
    if not own:
        raise UsageError("there is no training to judge; give at least one folder")
    subset = own[0].provenance.unseen(store)
    for candidate in (*own[1:], *others):
        candidate.provenance.check_unseen(subset, candidate.path)
    found = evaluate(
        [candidate.team for candidate in own],
        store,
        subset,
        against={str(candidate.folder): candidate.team for candidate in others},
        context=context,
        **options,
    )
    least = min(own, key=lambda candidate: candidate.trained)
    schedule = least.team.config.schedule_batches
    return Judgement(found, own, hardly_trained(least.trained, schedule, least.goal))


def hardly_trained(steps: int, schedule: int, goal: Goal | None) -> str | None:
    """Say so of a training with fewer steps than a tenth of what its schedule is made for.

    Parameters
    ----------
    steps : int
    schedule : int
        Steps over which the step size falls.
    goal : Goal, optional
        Its epochs, to say how many of them make as many steps.
    """
    if 10 * steps >= schedule:
        return None
    remedy = "more epochs or smaller batches give more"
    if goal is not None:
        epochs = -(-schedule // max(1, goal.epoch_steps))
        remedy = (
            f"aim at {schedule:,}: train with --epochs {epochs} of {goal.epoch_steps:,} steps "
            "each, or with smaller batches"
        )
    return (
        f"hardly trained: {steps:,} steps, where the step size falls over {schedule:,}; what it "
        f"earns says little yet; {remedy}"
    )


def check_features(team: Team, store: MatrixStore) -> None:
    """Refuse a store whose windows the team does not know.

    Raises
    ------
    StoreMismatchError
        Saying what it knows, and what the store holds.
    """
    held, known = _windows(store), (team.config.sequence_length, team.config.features)
    if held != known:
        raise StoreMismatchError(
            f"{store.path} holds windows of {held[0]} rows of {', '.join(held[1])}; the team was "
            f"trained on {known[0]} rows of {', '.join(known[1])}: give a store of that set"
        )


def check_context(team: Team, context: Mapping[str, MatrixStore] | None) -> None:
    """Refuse contexts that a team does not know; one that looks at none takes no notice.

    Raises
    ------
    UsageError
        If the one that it looks at is missing.
    StoreMismatchError
        If it holds other windows.
    """
    config = team.config
    if not isinstance(config, HierarchicalConfig):
        return
    store = (context or {}).get(config.context)
    if store is None:
        raise UsageError(
            f"the team looks at a context {config.context!r}, and none of that name was given; "
            f"give its store, such as --context {config.context}=slow.zarr"
        )
    held, known = _windows(store), (config.context_length, config.context_features)
    if held != known:
        raise StoreMismatchError(
            f"{store.path} holds windows of {held[0]} rows of {', '.join(held[1])}; the team was "
            f"trained with a context {config.context!r} of {known[0]} rows of "
            f"{', '.join(known[1])}: give a store of that set"
        )


def _windows(store: MatrixStore) -> tuple[int, tuple[str, ...]]:
    names = zip(store.feature_names, store.attrs["feature_versions"], strict=True)
    return store.sequence_length, tuple(f"{name}:{version}" for name, version in names)
