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

from grandbatch.checkpoint import read_checkpoint
from grandbatch.checkpoint.encoding import encode
from grandbatch.errors import CheckpointError, UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.features.built_in import BUILT_IN
from grandbatch.files.whole import write_whole
from grandbatch.live import LiveFeatures
from grandbatch.live.features import symbol_of
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
        If it looks at a context.
    """

    def __init__(self, team: Team, live: LiveFeatures) -> None:
        made, config = live.identity, team.config
        if isinstance(config, HierarchicalConfig):
            raise UsageError(
                f"the team looks at a context {config.context!r}, which bars taken one by one "
                "don't come with; ask it by Team.act(windows, exposure, context)"
            )
        known = list(config.features), config.sequence_length
        if known != (made["features"], made["sequence_length"]):
            raise CheckpointError(
                f"the team was trained on {known[1]} rows of {', '.join(known[0])}, the set "
                f"{live.feature_set.name} gives {made['sequence_length']} of "
                f"{', '.join(made['features'])}; give the set that it was trained on"
            )
        self.team, self.live = team, live
        self.origin = "a team made in Python"
        """Where the team comes from."""
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
            Of `LiveFeatures`. `max_gap` is that of the store learnt from unless it is given.

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
            options = {"max_gap": provenance.max_gap_ns, **options}
        whole = resolve_feature_set(feature_set)
        made = cls(team, LiveFeatures(whole.with_window(team.config.sequence_length), **options))
        made.origin = str(checkpoint.path)
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
            short) and actions (agent → exposure), or bars_missing; confidence and level where asked
            for.

        Raises
        ------
        BadRowsError
            If the bar is none: nothing has changed then.
        """
        bar = self.live.named(bar)
        matrix = self.live.push(bar)
        self.n_bars += 1
        symbol = symbol_of(bar)
        if self.live.is_first(symbol):
            self._held.pop(symbol, None)
        told = {name: bar[name] for name in ("symbol", "timestamp") if name in bar}
        if matrix is None:
            missing = self.live.bars_missing(symbol)
            return {**told, "exposure": None, "bars_missing": missing}
        window = torch.from_numpy(matrix)[None]
        held = torch.tensor([self._held.get(symbol, _FLAT)], dtype=torch.float64)
        decision = self.team.act(window, held)
        self._held[symbol] = float(decision.exposure)
        answer = {
            **told,
            "exposure": self._held[symbol],
            "actions": dict(zip(self.team.agents, decision.actions[0].tolist(), strict=True)),
        }
        if confidence:
            found = self.team.predict(window, held)
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


def _as_tensors(value: Any) -> Any:
    """Return a state with tensors in place of its arrays: a checkpoint holds no others."""
    if isinstance(value, Mapping):
        return {name: _as_tensors(part) for name, part in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _as_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_arrays(part) for name, part in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value
