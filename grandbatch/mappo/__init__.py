"""Multi-agent PPO on batches of matrices (the extra `rl`).

Covers the replay market, the networks and the trainers. Knows nothing of Dask and Zarr: it sees
tensors only.
"""

from grandbatch.mappo.config import MappoConfig
from grandbatch.mappo.extra import MissingExtraError
from grandbatch.mappo.trainer import (
    BatchStrategicTrainer,
    BatchTacticalTrainer,
    Decision,
    MappoTrainer,
    TrainingError,
)

__all__ = [
    "BatchStrategicTrainer",
    "BatchTacticalTrainer",
    "Decision",
    "MappoConfig",
    "MappoTrainer",
    "MissingExtraError",
    "TrainingError",
]
