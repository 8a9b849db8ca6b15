"""A team that decides: networks and what they see, asked without changing a weight."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from grandbatch.batch import MatrixBatch
from grandbatch.errors import TrainingError, UsageError
from grandbatch.mappo.coarser.sight import (
    CoarserWindows,
    PairSummary,
    build_summary,
    check_contexts,
    contexts_of,
)
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.exporting import PolicyGraph, export_policy
from grandbatch.mappo.market import EXPOSURES, exposure_of
from grandbatch.mappo.metrics import RewardTotals
from grandbatch.mappo.networks import (
    build_actor,
    build_critic,
    draw_kept,
    observe,
)
from grandbatch.mappo.regimes import Regime, RegimeRules
from grandbatch.mappo.rollout import Chance, Rollout, roll_out
from grandbatch.mappo.saving import check_tensors, config_of, read_state, refusing
from grandbatch.mappo.threads import on_its_threads
from grandbatch.mappo.uncertainty import (
    Calibration,
    Prediction,
    calibrate,
    confidence_of,
    entropy_of,
    leaning,
    summarise_samples,
)
from grandbatch.values.checks import whole

_SAMPLES = 32


class Decision(NamedTuple):
    """What a team chooses for B windows.

    Parameters
    ----------
    actions : (B, n) float64
        Each agent's exposure.
    exposure : (B,) float64
        The team's: their mean.
    """

    actions: torch.Tensor
    exposure: torch.Tensor


class Team:
    """Agents with a centralised critic, on matrices of one shape.

    Parameters
    ----------
    config : MappoConfig, optional
        The settings; by default those of the class.
    feature_mean, feature_std : sequence of float, optional
        Per feature, of the training data; without them features are taken as they are.
    stride : int, optional
        Bars between neighbouring windows of the store, to tell which windows follow on each other.
    device : str or torch.device
        Where the networks live.
    torch_threads : int
        Threads that torch computes on inside the team's own calls. Networks this small lose time
        with more, and sums over other numbers of threads may differ in the last bit.

    Raises
    ------
    UsageError
        If the statistics don't fit the settings, or there is no such number of threads.
    """

    default_config: Callable[..., MappoConfig] = MappoConfig

    def __init__(
        self,
        config: MappoConfig | None = None,
        *,
        feature_mean: Sequence[float] | torch.Tensor | None = None,
        feature_std: Sequence[float] | torch.Tensor | None = None,
        stride: int | None = None,
        device: str | torch.device = "cpu",
        torch_threads: int = 1,
    ) -> None:
        self.torch_threads = whole("torch_threads", torch_threads, 1, 1024)
        self.config = config if config is not None else type(self).default_config()
        self.stride = stride
        self.device = torch.device(device)
        self._sharpness: float | None = None
        self._generator = torch.Generator().manual_seed(self.config.seed)
        summary = build_summary(self.config, feature_mean, feature_std)
        digest = summary.digest if isinstance(summary, PairSummary) else None
        shape = self.config, summary.size + 1, self._generator, digest
        self._summary = summary.to(self.device)
        self._actor = build_actor(*shape).to(self.device)
        self._critic = build_critic(*shape).to(self.device)

    @classmethod
    def from_checkpoint(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        device: str | torch.device = "cpu",
        torch_threads: int = 1,
    ) -> Self:
        """Make the team that a training ended with, from nothing but its checkpoint.

        Settings, weights, normalisation and calibration are those of the checkpoint: it decides
        and predicts as the team that was saved. It has learnt nothing else: to go on with a
        training, give its trainer to `BatchProcessor`.

        Parameters
        ----------
        source : path or mapping
            A folder of checkpoints: the one with the best validation counts, or where nothing was
            validated the latest. Or a checkpoint, or a trainer's state.
        device, torch_threads
            As of the class.

        Raises
        ------
        CheckpointError
            If it can't be read, or is no team's.
        """
        state = read_state(source)
        team = cls(config_of(state), device=device, torch_threads=torch_threads)
        with refusing():
            sharpness = None if state["sharpness"] is None else float(state["sharpness"])
            team._take_weights(state)
        team._sharpness = sharpness
        return team

    @property
    def is_calibrated(self) -> bool:
        """Whether `predict`'s confidence is calibrated."""
        return self._sharpness is not None

    @property
    def digest(self) -> str:
        """sha256 of weights and normalisation: what decisions depend on besides windows."""
        found = hashlib.sha256()
        for part, tensors in sorted(self._tensors().items()):
            for name, tensor in sorted(tensors.items()):
                found.update(f"{part}.{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
                found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents, in the order of `Decision.actions`."""
        return self.config.agents

    @on_its_threads
    def act(
        self,
        matrices: torch.Tensor,
        exposure: torch.Tensor | None = None,
        context: CoarserWindows | None = None,
    ) -> Decision:
        """Choose the likeliest actions, without learning.

        Parameters
        ----------
        matrices : (B, L, F) float32
            Windows.
        exposure : (B,) float64, optional
            Team exposure each window is met with; 0 by default.
        context : mapping of str to (B, L, F) float32, optional
            Windows of coarser bars by name, for a team that was trained with them; others take no
            notice.

        Returns
        -------
        Decision
            On the CPU.
        """
        with torch.no_grad():
            choice = self._actor(self._observe(matrices, exposure, context)).argmax(-1).cpu()
        actions = torch.tensor(EXPOSURES, dtype=torch.float64)[choice]
        return Decision(actions, exposure_of(choice.sum(-1), len(self.config.agents)))

    @on_its_threads
    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write what `act` computes as one graph, normalisation included.

        Its inputs are `matrices` (B, L, F) float32 and `exposure` (B,) float64, its outputs
        `actions` (B, n) float64 and `team_exposure` (B,) float64, for any B.

        Parameters
        ----------
        path : path
            NAME.onnx for ONNX (the extra `onnx`), NAME.pt for TorchScript.

        Raises
        ------
        UsageError
            If the name ends otherwise, or the team looks at a context.
        MissingExtraError
            If what writes ONNX is not installed.
        """
        if isinstance(self._summary, PairSummary):
            raise UsageError(
                f"the team looks at a context {self._summary.config.context!r}, which a graph of "
                "one window has no input for; ask it by Team.act"
            )
        summary, actor = deepcopy(self._summary).cpu(), deepcopy(self._actor).cpu()
        return export_policy(PolicyGraph(summary, actor, self.config), self.config, path)

    @on_its_threads
    def predict(
        self,
        matrices: torch.Tensor,
        exposure: torch.Tensor | None = None,
        context: CoarserWindows | None = None,
        *,
        samples: int = _SAMPLES,
    ) -> Prediction:
        """Choose actions and tell how sure they are, by Monte Carlo dropout.

        The same windows give the same answer, whatever was asked before.

        Parameters
        ----------
        matrices : (B, L, F) float32
            Windows.
        exposure : (B,) float64, optional
            Team exposure each window is met with; 0 by default.
        context : mapping of str to (B, L, F) float32, optional
            As of `act`.
        samples : int
            Networks thinned at random.

        Returns
        -------
        Prediction
            Its confidence is calibrated if `calibrate` was called since the last batch.
        """
        observation = self._observe(matrices, exposure, context)
        probabilities, information = self._sample(observation, samples)
        choice = probabilities.argmax(-1)
        sharpness = 1.0 if self._sharpness is None else self._sharpness
        return Prediction(
            actions=torch.tensor(EXPOSURES, dtype=torch.float64)[choice],
            exposure=exposure_of(choice.sum(-1), len(self.config.agents)),
            probabilities=probabilities,
            entropy=entropy_of(probabilities).mean(-1),
            mutual_information=information.mean(-1),
            confidence=confidence_of(leaning(probabilities), sharpness),
        )

    @on_its_threads
    def calibrate(self, batches: Iterable[MatrixBatch], *, samples: int = _SAMPLES) -> Calibration:
        """Make confidence mean how often the market goes the way the team leans.

        Parameters
        ----------
        batches : iterable of MatrixBatch
            The validation split, best in order: it is traded with the likeliest actions.
        samples : int
            As of `predict`.

        Returns
        -------
        Calibration
            Also kept with the state, until the next batch is learnt.

        Raises
        ------
        UsageError
            If no window can be traded.
        """
        log_odds, returns = [torch.zeros(0).double()], [torch.zeros(0).double()]
        for batch in batches:
            admitted = self._admit(batch)
            rollout = self._trade(admitted, None)
            if len(rollout.action):
                log_odds.append(leaning(self._sample(rollout.observation, samples)[0]))
                returns.append(admitted.next_return[rollout.trajectories.flat_rows].cpu())
        found = calibrate(torch.cat(log_odds), torch.cat(returns))
        self._sharpness = found.sharpness
        return found

    @on_its_threads
    def evaluate(
        self, batches: Iterable[MatrixBatch], regimes: RegimeRules | None = None
    ) -> dict[str, float]:
        """Trade batches with the likeliest actions, without learning.

        Returns
        -------
        dict of str to float
            `avg_reward`, `turnover`, `exposure` as of `train_batch`; `reward_std`: deviation of the
            reward per window; `windows`: how many counted. With `regimes` the same for the windows
            of each regime, as `bull_avg_reward` and so on.
        """
        whole, parts = RewardTotals(), {regime: RewardTotals() for regime in Regime}
        for batch in batches:
            admitted = self._admit(batch)
            rollout = self._trade(admitted, None)
            whole.add(rollout, admitted)
            if regimes is not None:
                label = regimes.label(admitted.matrices)
                for regime, totals in parts.items():
                    totals.add(rollout, admitted, label == regime)
        found = {**whole.means(), **whole.spread()}
        for regime, totals in parts.items() if regimes is not None else ():
            values = {**totals.means(), **totals.spread()}
            found |= {f"{regime.name.lower()}_{name}": value for name, value in values.items()}
        return found

    @on_its_threads
    def validate_batch(self, batch: MatrixBatch) -> dict[str, float]:
        """Trade a batch with the likeliest actions, without learning.

        Returns
        -------
        dict of str to float
            Means per window, as of `evaluate`: `avg_reward`, `turnover`, `exposure`.
        """
        admitted = self._admit(batch)
        totals = RewardTotals()
        totals.add(self._trade(admitted, None), admitted)
        return totals.means()

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the networks' weights, and the normalisation they were learnt under, by name."""
        networks = (("actor", self._actor), ("critic", self._critic))
        return {
            "weights": {
                f"{which}.{name}": parameter
                for which, network in networks
                for name, parameter in network.named_parameters()
            },
            "normalisation": {
                **dict(self._summary.named_buffers()),
                **dict(self._summary.named_parameters()),
            },
        }

    def _take_weights(self, state: Mapping[str, Any]) -> None:
        wanted = self._tensors()
        for part, tensors in wanted.items():
            check_tensors(part, state[part], tensors)
        with torch.no_grad():
            for part, tensors in wanted.items():
                for name, tensor in tensors.items():
                    tensor.copy_(state[part][name])

    def _trade(self, batch: MatrixBatch, chance: Chance | None) -> Rollout:
        with torch.no_grad():
            summary = self._summary(batch.matrices, contexts_of(batch))
            return roll_out(
                self._actor, summary, batch, self.config, stride=self.stride, chance=chance
            )

    def _sample(self, observation: torch.Tensor, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        if samples < 1:
            raise UsageError(f"samples must be at least 1, got {samples}")
        # A generator of its own: being asked must change neither the training nor later answers.
        kept = draw_kept(self.config, samples, torch.Generator().manual_seed(self.config.seed))
        return summarise_samples(self._actor, observation, kept.to(self.device))

    def _observe(
        self, matrices: torch.Tensor, exposure: torch.Tensor | None, context: CoarserWindows | None
    ) -> torch.Tensor:
        """Return what the agents see of windows, (B, n, D + 1) float32."""
        self._check_shape(matrices)
        check_contexts(self.config, len(matrices), context)
        if exposure is None:
            exposure = torch.zeros(len(matrices), dtype=torch.float64)
        with torch.no_grad():
            there = {name: part.to(self.device) for name, part in (context or {}).items()}
            summary = self._summary(matrices.to(self.device), there)
            return observe(summary, exposure.to(self.device), len(self.config.agents))

    def _admit(self, batch: MatrixBatch) -> MatrixBatch:
        """Check a batch, and bring it to the networks' device."""
        self._check_shape(batch.matrices)
        contexts = contexts_of(batch)
        check_contexts(self.config, len(batch), contexts)
        counts = batch.weight > 0
        parts = {"matrices": batch.matrices, **{f"context {n}": c for n, c in contexts.items()}}
        odd = {
            what: ~part.isfinite().all(-1).all(-1)
            for what, part in parts.items()
            if not part.sum().isfinite()  # one number that isn't makes the sum so
        }
        for what, where in {**odd, "next_return": batch.next_return.isinf()}.items():
            bad = counts & where
            if bad.any():
                raise TrainingError(
                    f"{what} of window {int(batch.index[bad][0])} "
                    "is not finite; verify the store it comes from (grandbatch verify)"
                )
        return batch if self.device.type == "cpu" else batch.to(self.device)

    def _check_shape(self, matrices: torch.Tensor) -> None:
        wanted = (self.config.sequence_length, self.config.n_features)
        if matrices.ndim != 3 or tuple(matrices.shape[1:]) != wanted:
            raise UsageError(
                f"{type(self).__name__} is set for matrices of shape (B, {wanted[0]}, {wanted[1]}),"
                f" got {tuple(matrices.shape)}; give a MappoConfig with this sequence_length "
                "and n_features, or the trainer of this feature set"
            )
