"""`BatchHierarchicalTrainer`: a tactical team that also sees the strategic windows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.errors import UsageError
from grandbatch.mappo.coarser.sight import PairSummary
from grandbatch.mappo.config import HierarchicalConfig
from grandbatch.mappo.team import Team
from grandbatch.mappo.trainer import MappoTrainer, shape_of, statistics_of
from grandbatch.ranks import Ranks
from grandbatch.statistics import FeatureStatistics, new_rows

if TYPE_CHECKING:
    from grandbatch.store import MatrixStore

LeaderSource = Team | str | os.PathLike[str]
"""A trained team, or a folder of its checkpoints, or one of these."""


class BatchHierarchicalTrainer(MappoTrainer):
    """MAPPO on tactical matrices with a context: agents fvg, momentum and entry see both.

    Of a context each network learns a summary of its own. Where a team trained on the context's
    store leads, its agents' expected exposures are seen as well; it learns nothing more.

    Parameters
    ----------
    config : HierarchicalConfig, optional
    context_mean, context_std : sequence of float, optional
        As `feature_mean` and `feature_std`, of the context's features.
    leader : Team or path, optional
        Trained on the context's store.
    **options
        Of `MappoTrainer`.

    Raises
    ------
    UsageError
        If the settings are none of such a team, or the leader knows other windows.
    """

    default_config = HierarchicalConfig.hierarchical
    _summary: PairSummary

    def __init__(
        self,
        config: HierarchicalConfig | None = None,
        *,
        context_mean: Sequence[float] | torch.Tensor | None = None,
        context_std: Sequence[float] | torch.Tensor | None = None,
        leader: LeaderSource | None = None,
        **options: Any,
    ) -> None:
        config = HierarchicalConfig.hierarchical() if config is None else config
        if not isinstance(config, HierarchicalConfig):
            raise UsageError(
                f"a {type(self).__name__} needs a HierarchicalConfig, got a {type(config).__name__}"
            )
        team = None
        if leader is not None:
            team = leader if isinstance(leader, Team) else Team.from_checkpoint(leader)
            config = config.led_by(team.config)
        super().__init__(config, **options)
        self._summary.take_context(context_mean, context_std)
        if team is not None:
            self._summary.take_leader(team._summary, team._actor)

    @classmethod
    def for_pair(
        cls,
        store: MatrixStore,
        context: Mapping[str, MatrixStore],
        training: Iterable[MatrixBatch] | None = None,
        *,
        leader: LeaderSource | None = None,
        device: str | torch.device = "cpu",
        torch_threads: int = 1,
        ranks: Ranks | None = None,
        **changes: Any,
    ) -> BatchHierarchicalTrainer:
        """Make a trainer for a store's matrices and those of a context.

        Parameters
        ----------
        store : MatrixStore
            Says what the matrices look like.
        context : mapping of str to MatrixStore
            One, as the loader has it.
        training : iterable of MatrixBatch, optional
            The training split, with that context: features of both are normalised by it. By
            default statistics of the whole stores are taken, which lets a test split in.
        leader : Team or path, optional
            A team trained on the context's store, or a folder of its checkpoints.
        device, torch_threads, ranks
            As of `MappoTrainer.for_store`.
        **changes
            Fields of `HierarchicalConfig` that differ from the class's.

        Raises
        ------
        UsageError
            If there isn't one context, or the leader knows other windows.
        """
        if len(context) != 1:
            raise UsageError(f"a hierarchical team looks at one context, got {len(context)}")
        ((name, slow),) = context.items()
        seen = shape_of(slow)
        config = HierarchicalConfig.hierarchical(
            **{
                **shape_of(store, HierarchicalConfig.hierarchical().spans),
                "context": name,
                **{f"context_{field}": value for field, value in _of_context(seen).items()},
                **changes,
            }
        )
        if training is None:
            (mean, std), (slow_mean, slow_std) = statistics_of(store), statistics_of(slow)
        else:
            own, other = _gathered(training, store.stride, name)
            mean, std = own.mean.tolist(), own.std.tolist()
            slow_mean, slow_std = other.mean.tolist(), other.std.tolist()
        return cls(
            config,
            context_mean=slow_mean,
            context_std=slow_std,
            leader=leader,
            feature_mean=mean,
            feature_std=std,
            stride=store.stride,
            device=device,
            torch_threads=torch_threads,
            ranks=ranks,
        )


def _of_context(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "length": shape["sequence_length"],
        "n_features": shape["n_features"],
        "features": shape["features"],
    }


def _gathered(
    batches: Iterable[MatrixBatch], stride: int, name: str
) -> tuple[FeatureStatistics, FeatureStatistics]:
    """Gather statistics of windows and their contexts, of which neighbours often share one.

    Of a context its last row counts, once for each run of windows that it comes with.
    """
    found: tuple[FeatureStatistics, FeatureStatistics] | None = None
    last = torch.full((1,), -1)
    for batch in getattr(batches, "whole_epoch", batches.__iter__)():
        slow = batch.context[name]
        if found is None:
            found = (
                FeatureStatistics(batch.matrices.shape[2]),
                FeatureStatistics(slow.matrices.shape[2]),
            )
        found[0].update(new_rows(batch, stride))
        changed = torch.cat([last.to(slow.index.device), slow.index]).diff() != 0
        found[1].update(slow.matrices[changed & (batch.weight > 0), -1])
        last = slow.index[-1:]
    if found is None:
        raise UsageError("there is no window to take statistics of; give at least one batch")
    return found
