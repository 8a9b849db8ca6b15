"""Multi-agent PPO on batches of matrices (the extra `rl`).

| module | |
|---|---|
| `trainer` | trainers that learn batch by batch |
| `coarser` | teams that see windows of coarser bars, too |
| `team` | `Team`: networks that decide, unchanged |
| `config` | settings, as a value that checks itself |
| `networks` | what agents see; actors and critic |
| `market` | what exposures earn on recorded returns |
| `environment` | the replay market, window by window |
| `parallel` | the same for PettingZoo |
| `rollout` | from a batch to experience |
| `learning` | what learning from a batch changes |
| `metrics` | what rewards come to |
| `regimes` | what kind of market a window ends in |
| `uncertainty` | how sure a team is |
| `saving` | what a saved state must be |
| `exporting` | a team as one graph, for other programs |
| `threads` | how many threads torch computes on |

Covers the replay market, the networks and the trainers, how sure they are, and in which market
regimes they earn what. Knows nothing of Dask and Zarr: it sees tensors only.
"""

from grandbatch.errors import MissingExtraError, TrainingError

try:
    import tensordict  # noqa: F401  # only asked whether it is there
    import torchrl  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f'grandbatch.mappo needs TorchRL ({error}); install it with: pip install "grandbatch[rl]"'
    ) from error

# what needs the libraries comes once they are there
from grandbatch.mappo.coarser.trainer import BatchHierarchicalTrainer
from grandbatch.mappo.config import HierarchicalConfig, MappoConfig
from grandbatch.mappo.regimes import Regime, RegimeRules
from grandbatch.mappo.team import Decision, Team
from grandbatch.mappo.trainer import BatchStrategicTrainer, BatchTacticalTrainer, MappoTrainer
from grandbatch.mappo.uncertainty import Calibration, Prediction
from grandbatch.statistics import FeatureStatistics, feature_statistics

__all__ = [
    "BatchHierarchicalTrainer",
    "BatchStrategicTrainer",
    "BatchTacticalTrainer",
    "Calibration",
    "Decision",
    "FeatureStatistics",
    "HierarchicalConfig",
    "MappoConfig",
    "MappoTrainer",
    "MissingExtraError",
    "Prediction",
    "Regime",
    "RegimeRules",
    "Team",
    "TrainingError",
    "feature_statistics",
]
