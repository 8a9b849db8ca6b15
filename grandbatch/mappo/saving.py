"""What a trainer's saved state must be to be taken up again, or for its weights to be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from grandbatch.checkpoint import CheckpointManager, is_shelf, read_checkpoint, require
from grandbatch.errors import CheckpointError, CheckpointNotFoundError
from grandbatch.files.locations import as_location
from grandbatch.mappo.config import HierarchicalConfig, MappoConfig

STATE_FORMAT = 2

_PLAIN = {field.name for field in fields(MappoConfig)}
_PAIRED = {field.name for field in fields(HierarchicalConfig)} - _PLAIN
_TEAM = ("agents", "n_features", "features", "spans", "hidden_sizes", "feature_clip",
         *sorted(_PAIRED))  # fmt: skip
"""Settings that weights only make sense with."""


def read_state(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a trainer's state, of a checkpoint or of the `chosen` one in a folder.

    Raises
    ------
    CheckpointError
        If there is none, or it can't be read.
    """
    if isinstance(source, Mapping):
        return source
    return read_checkpoint(chosen(source)).trainer_state


def chosen(source: str | os.PathLike[str]) -> Path:
    """Return a checkpoint, or of a folder's the one that a training is known by.

    That is the one with the best validation, or where nothing was validated the latest.

    Raises
    ------
    CheckpointNotFoundError
        If there is none.
    """
    path = as_location(source)
    require(path)
    if not is_shelf(path):
        return path
    manager = CheckpointManager(path, content_id="", metric="rating")
    found = manager.best() or manager.latest()
    if found is None:
        raise CheckpointNotFoundError(
            f"{path} holds no checkpoint; name the folder that a training saved into"
        )
    return found


def config_of(state: Mapping[str, Any]) -> MappoConfig:
    """Return the settings that a state was saved under.

    Raises
    ------
    CheckpointError
        If it is no team's, or its settings make no sense.
    """
    settings = _settings(state)
    kind = HierarchicalConfig if _PAIRED & set(settings) else MappoConfig
    wanted = {field.name for field in fields(kind)}
    if odd := sorted(wanted ^ set(settings)):
        raise CheckpointError(
            f"the state was saved by another version: its settings differ in {', '.join(odd)}; "
            "read it with the version that wrote it, or train again"
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    with refusing():
        return kind(**values)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what a broken state makes torch and Python raise into a `CheckpointError`."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"not a MAPPO trainer's state ({type(error).__name__}: {error}); "
            "load another checkpoint, or start again without it (--no-resume)"
        ) from error


def check_same_settings(state: Mapping[str, Any], config: MappoConfig) -> None:
    """Refuse a state to go on from that was saved under other settings.

    Raises
    ------
    CheckpointError
        Naming each setting that differs.
    """
    saved, wanted = _settings(state), config.to_plain()
    if changed := _changes(saved, wanted, sorted({*saved, *wanted})):
        raise CheckpointError(
            f"the state was saved under other settings ({changed}); "
            "use the saved settings, or start again without it (--no-resume)"
        )


def check_same_team(state: Mapping[str, Any], config: MappoConfig) -> None:
    """Refuse weights that were learnt on other features, or by other networks.

    Raises
    ------
    CheckpointError
        Naming each setting that differs.
    """
    if changed := _changes(_settings(state), config.to_plain(), _TEAM):
        raise CheckpointError(
            f"the weights don't fit this trainer ({changed}); "
            "take those of a training on the same features with these networks"
        )


def check_tensors(
    what: str, saved: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    """Check that tensors have the names and shapes wanted.

    Raises
    ------
    ValueError
        If they have others.
    """
    got = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    need = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    if got != need:
        raise ValueError(f"{what} have the shapes {got}, wanted are {need}")


def _settings(state: Mapping[str, Any]) -> Mapping[str, Any]:
    if state.get("format") != STATE_FORMAT or not isinstance(state.get("config"), Mapping):
        raise CheckpointError(
            f"not a MAPPO trainer's state of format {STATE_FORMAT}: "
            f"it has the keys {sorted(map(str, state))} and format {state.get('format')!r}; "
            "load another checkpoint, or start again without it (--no-resume)"
        )
    settings: Mapping[str, Any] = state["config"]
    return settings


def _changes(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], names: tuple[str, ...] | list[str]
) -> str:
    """Say which settings differ, and how."""
    return ", ".join(
        f"{name}: saved {saved.get(name)!r}, now {wanted.get(name)!r}"
        for name in names
        if saved.get(name) != wanted.get(name)
    )
