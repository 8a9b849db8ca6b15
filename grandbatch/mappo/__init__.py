"""Multi-agent PPO on batches of matrices (the extra `rl`).

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
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.regimes import Regime, RegimeRules
from grandbatch.mappo.team import Decision, Team
from grandbatch.mappo.trainer import BatchStrategicTrainer, BatchTacticalTrainer, MappoTrainer
from grandbatch.mappo.uncertainty import Calibration, Prediction
from grandbatch.statistics import FeatureStatistics, feature_statistics

__all__ = [
    "BatchStrategicTrainer",
    "BatchTacticalTrainer",
    "Calibration",
    "Decision",
    "FeatureStatistics",
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
