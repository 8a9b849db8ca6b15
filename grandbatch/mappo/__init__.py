"""Multi-agent PPO on batches of matrices (the extra `rl`).

Covers the replay market, the networks and the trainers, how sure they are, and in which market
regimes they earn what. Knows nothing of Dask and Zarr: it sees tensors only.
"""

import grandbatch.mappo.extra  # noqa: F401  # asks for the libraries before anything needs them
from grandbatch.errors import MissingExtraError, TrainingError
from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.regimes import Regime, RegimeRules
from grandbatch.mappo.team import Decision
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
    "TrainingError",
    "feature_statistics",
]
