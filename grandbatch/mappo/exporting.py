"""A team's decisions as one graph, for programs that know neither Python nor grandbatch."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from grandbatch.errors import MissingExtraError, UsageError
from grandbatch.files.whole import write_whole
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.market import EXPOSURES, exposure_of
from grandbatch.mappo.networks import observe

_NAMES = ["matrices", "exposure"], ["actions", "team_exposure"]
_OPSET = 18


class PolicyGraph(nn.Module):
    """What `Team.act` computes, as a module of its own, on the CPU.

    Parameters
    ----------
    summary, actor : module
    config : MappoConfig
    """

    def __init__(self, summary: nn.Module, actor: nn.Module, config: MappoConfig) -> None:
        super().__init__()
        self.summary, self.actor = summary, actor
        self.n_agents = len(config.agents)
        self.register_buffer("exposures", torch.tensor(EXPOSURES, dtype=torch.float64))

    def forward(
        self, matrices: torch.Tensor, exposure: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose for windows (B, L, F) float32 met with exposures (B,) float64.

        Returns
        -------
        actions : (B, n) float64
        team_exposure : (B,) float64
        """
        seen = observe(self.summary(matrices), exposure, self.n_agents)
        choice = self.actor(seen).argmax(-1)
        exposures = self.get_buffer("exposures")
        return exposures[choice], exposure_of(choice.sum(-1), self.n_agents)


def export_policy(policy: PolicyGraph, config: MappoConfig, path: str | os.PathLike[str]) -> Path:
    """Write a policy as ONNX or TorchScript, by the name's ending; whole or not at all.

    Raises
    ------
    UsageError
        If the name ends otherwise.
    MissingExtraError
        If what writes ONNX is not installed.
    """
    target = Path(path)
    write = {".onnx": _write_onnx, ".pt": _write_script, ".pts": _write_script}.get(target.suffix)
    if write is None:
        raise UsageError(f"export to NAME.onnx (ONNX) or NAME.pt (TorchScript), got {target.name}")
    examples = (
        torch.zeros(2, config.sequence_length, config.n_features),
        torch.zeros(2, dtype=torch.float64),
    )
    with TemporaryDirectory(prefix="grandbatch-export-") as folder, warnings.catch_warnings():
        # torch tells of its own plans for these formats
        warnings.simplefilter("ignore")
        made = Path(folder) / target.name
        with torch.no_grad():
            write(policy, examples, made)
        write_whole(target, made.read_bytes())
    return target


def _write_script(policy: PolicyGraph, examples: tuple[torch.Tensor, ...], path: Path) -> None:
    torch.jit.trace(policy, examples).save(path)  # type: ignore[no-untyped-call]


def _write_onnx(policy: PolicyGraph, examples: tuple[torch.Tensor, ...], path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  # only asked whether it is there
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'ONNX needs onnxscript ({error}); install it with: pip install "grandbatch[onnx]"'
        ) from None
    # it tells of operators of packages that nobody uses here
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    inputs, outputs = _NAMES
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        policy,
        examples,
        path,
        input_names=inputs,
        output_names=outputs,
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        dynamic_shapes={name: {0: batch} for name in inputs},
        verbose=False,
    )
