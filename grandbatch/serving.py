"""`LiveTeam`: a trained team that decides as bars arrive, and can be put down and taken up again.

Covers what becomes of a bar; not where bars come from, nor where decisions go. Not thread-safe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grandbatch.checkpoint import Checkpoint, read_checkpoint
from grandbatch.checkpoint.encoding import encode
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.features.built_in import BUILT_IN
from grandbatch.files.whole import write_whole
from grandbatch.live import LiveContext, LiveFeatures
from grandbatch.live.features import symbol_of
from grandbatch.live.reading import doubts
from grandbatch.mappo.config import HierarchicalConfig
from grandbatch.mappo.saving import chosen
from grandbatch.mappo.team import Team
from grandbatch.training.provenance import Provenance

_FLAT = 0.0
_MADE_FOR, _TEAM = "made_for", "team"


class LiveTeam:
    """Takes bars one by one, and answers each with the exposure that the team wants.

    It decides as `grandbatch.evaluate` has it: on the window that ends with the bar, coming with
    the exposure that it chose before, flat where a segment begins.

    Parameters
    ----------
    team : Team
    live : LiveFeatures
        Of the features that the team was trained on.

    Raises
    ------
    CheckpointError
        If the team was trained on other features.
    UsageError
        If it looks at a context that `live` doesn't have.
    """

    def __init__(self, team: Team, live: LiveFeatures) -> None:
        made, config = live.identity, team.config
        known = list(config.features), config.sequence_length
        if known != (made["features"], made["sequence_length"]):
            raise CheckpointError(
                f"the team was trained on {known[1]} rows of {', '.join(known[0])}, the set "
                f"{live.feature_set.name} gives {made['sequence_length']} of "
                f"{', '.join(made['features'])}; give the set that it was trained on"
            )
        if isinstance(config, HierarchicalConfig):
            _check_context(config, made.get("context", {}).get(config.context))
        self.team, self.live = team, live
        self.origin = "a team made in Python"
        """Where the team comes from."""
        self.doubts: tuple[str, ...] = ()
        """What must be known of the bars that it was trained on, to send such."""
        self._held: dict[str, float] = {}
        self.n_bars = 0
        """Bars taken, in this process and those before it whose state was loaded."""

    @classmethod
    def from_checkpoint(
        cls,
        source: str | os.PathLike[str],
        feature_set: str | FeatureSet | None = None,
        **options: Any,
    ) -> LiveTeam:
        """Make one from nothing but a training's checkpoints.

        Parameters
        ----------
        source : path
            As of `Team.from_checkpoint`.
        feature_set : str or FeatureSet, optional
            The set trained on, where it is one of your own.
        **options
            Of `LiveFeatures`. `max_gap` is that of the store learnt from unless it is given, and
            bars are read as its were (`like`); so are `context`, `max_age`, `bar_time` and
            `bar_duration` where the team looks at a context.

        Raises
        ------
        CheckpointError
            If it can't be read, is no team's, or is one of other features.
        UsageError
            If the feature set is one of your own, and isn't given.
        """
        checkpoint = read_checkpoint(chosen(source))
        team = Team.from_checkpoint(checkpoint.trainer_state)
        provenance = Provenance.of_checkpoint(checkpoint)
        if feature_set is None:
            if provenance is None:
                raise UsageError(
                    f"{checkpoint.path} doesn't say which feature set it was trained on; name it "
                    "(--set strategic)"
                )
            feature_set = provenance.feature_set
            if feature_set not in BUILT_IN:
                raise UsageError(
                    f"{checkpoint.path} was trained on {feature_set}, a set of your own; say where "
                    f"it stands (--set features.py:{feature_set.upper()})"
                )
        if provenance is not None:
            options = {"max_gap": provenance.max_gap_ns, "like": provenance.bars, **options}
        if isinstance(team.config, HierarchicalConfig) and "context" not in options:
            options = {**_contexts_of(checkpoint), **options}
        chosen_set = _of_length(feature_set, team.config.sequence_length)
        made = cls(team, LiveFeatures(chosen_set, **options))
        made.origin = str(checkpoint.path)
        made.doubts = () if provenance is None else tuple(doubts(provenance.bars))
        return made

    def decide(self, bar: Mapping[str, Any], *, confidence: bool = False) -> dict[str, Any]:
        """Take the next bar of a symbol.

        Parameters
        ----------
        bar : mapping
            As of `LiveFeatures.push`.
        confidence : bool
            Whether to tell how sure the team is, which takes some 32 times as much computing.

        Returns
        -------
        dict
            symbol and timestamp as they came; exposure (-1 to 1, None while the segment is too
            short, or a context has no window for it) and actions (agent → exposure), or
            bars_missing, and with contexts contexts_missing; confidence and level where asked for.

        Raises
        ------
        BadRowsError
            If the bar is none: nothing has changed then.
        """
        bar = self.live.named(bar)
        window = self.live.pair(bar)
        self.n_bars += 1
        symbol = symbol_of(bar)
        if self.live.is_first(symbol):
            self._held.pop(symbol, None)
        told = {name: bar[name] for name in ("symbol", "timestamp") if name in bar}
        if window is None:
            # as in an evaluation: what is held is sold where there is a bar without a window
            self._held.pop(symbol, None)
            contexts = self.live.contexts_missing(symbol)
            return {
                **told,
                "exposure": None,
                "bars_missing": self.live.bars_missing(symbol),
                **({"contexts_missing": contexts} if contexts else {}),
            }
        matrices = torch.from_numpy(window.matrix)[None]
        context = {n: torch.from_numpy(one.matrix)[None] for n, one in window.context.items()}
        held = torch.tensor([self._held.get(symbol, _FLAT)], dtype=torch.float64)
        decision = self.team.act(matrices, held, context)
        self._held[symbol] = float(decision.exposure)
        answer = {
            **told,
            "exposure": self._held[symbol],
            "actions": dict(zip(self.team.agents, decision.actions[0].tolist(), strict=True)),
        }
        if confidence:
            found = self.team.predict(matrices, held, context)
            answer |= {
                "confidence": float(found.confidence[0]),
                "level": found.levels[0],
                "is_calibrated": self.team.is_calibrated,
            }
        return answer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that later decisions depend on into a file, whole or not at all.

        Raises
        ------
        DiskFullError
            If there is no room; the file is as it was before.
        """
        state = {"symbols": _as_tensors(self.live.state_dict()), "held": dict(self._held)}
        made_for = {_MADE_FOR: self.live.identity, _TEAM: [self.team.digest, self.origin]}
        write_whole(Path(path), encode(self.n_bars, "", state, made_for, {}))

    def load(self, path: str | os.PathLike[str], *, take_over: bool = False) -> None:
        """Take up where the file says: decisions are those that would have come.

        Parameters
        ----------
        path : path
        take_over : bool
            Whether to go on from what another team held, such as one that was trained on since.

        Raises
        ------
        CheckpointError
            If it is damaged, or the state of other features or rules, or of another team; nothing
            has changed then.
        """
        saved = read_checkpoint(Path(path))
        was, now = saved.loader_state.get(_MADE_FOR), self.live.identity
        if not isinstance(was, dict) or was != now:
            known = was if isinstance(was, dict) else {}
            different = [name for name in {**now, **known} if known.get(name) != now.get(name)]
            raise CheckpointError(
                f"{path} is the state of another team's bars ({', '.join(different)}); give the "
                "state that belongs to this one, or another file to begin anew"
            )
        if not take_over:
            self._check_team(saved.loader_state.get(_TEAM), path)
        try:
            state = saved.trainer_state
            held = {str(symbol): float(value) for symbol, value in state["held"].items()}
            if not all(abs(value) <= 1 for value in held.values()):
                raise ValueError("it holds exposures beyond 1")
            self.live.load_state_dict(_as_arrays(state["symbols"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no state of a live team ({type(error).__name__}: {error}); give "
                "another file to begin anew"
            ) from None
        self._held, self.n_bars = held, saved.step

    def _check_team(self, told: Any, path: str | os.PathLike[str]) -> None:
        """Refuse a state whose exposures another team chose."""
        if not (isinstance(told, list) and len(told) == 2 and told[0] == self.team.digest):
            whose = f"of {told[1]}" if isinstance(told, list) and len(told) == 2 else "of no name"
            raise CheckpointError(
                f"{path} is the state of another team, {whose}; this one is of {self.origin}. Give "
                "the state that belongs to it, another file to begin anew, or go on from what that "
                "one held (--take-over)"
            )


def _of_length(feature_set: str | FeatureSet, length: int) -> FeatureSet:
    whole = resolve_feature_set(feature_set)
    return whole.with_window(length, min(whole.overlap, length - 1))


def _contexts_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a training's loader had as contexts, as `LiveFeatures` is given them.

    Raises
    ------
    UsageError
        If live bars can't be gathered in them without being told more.
    """
    contexts: dict[str, LiveContext] = {}
    timing: dict[str, Any] = {}
    for name, saved in checkpoint.loader_state.get("loader", {}).get("context", {}).items():
        known, timeframe = saved.get("feature_set"), saved.get("resample")
        if known not in BUILT_IN or timeframe is None:
            was = f"of {known}, a set of your own" if timeframe else "of bars that weren't gathered"
            raise UsageError(
                f"{checkpoint.path}: the context {name!r} was {was}; say which it is "
                f"(LiveTeam.from_checkpoint(..., context={{{name!r}: (SET, '30min')}}) in Python)"
            )
        chosen_set = _of_length(known, saved["sequence_length"])
        contexts[name] = LiveContext.of_store(chosen_set, timeframe, saved["max_gap_ns"])
        timing = {
            "max_age": saved["max_age"],
            "bar_time": "open" if saved["delay"] else "close",
            "bar_duration": saved["delay"] or None,
        }
    return {"context": contexts, **timing} if contexts else {}


def _check_context(config: HierarchicalConfig, made: Mapping[str, Any] | None) -> None:
    """Refuse live windows without the context that a team looks at.

    Raises
    ------
    UsageError
    """
    name, wanted = config.context, (list(config.context_features), config.context_length)
    if made is None or (made["features"], made["sequence_length"]) != wanted:
        has = f"{made['sequence_length']} rows of {', '.join(made['features'])}" if made else "none"
        raise UsageError(
            f"the team looks at a context {name!r} of {wanted[1]} rows of {', '.join(wanted[0])}, "
            f"the live bars have {has}; give LiveFeatures context={{{name!r}: (SET, '30min')}} as "
            "it was trained with"
        )


def _as_tensors(value: Any) -> Any:
    """Return a state with tensors in place of its arrays: a checkpoint holds no others."""
    if isinstance(value, Mapping):
        return {name: _as_tensors(part) for name, part in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _as_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_arrays(part) for name, part in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value
