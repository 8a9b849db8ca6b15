"""grandbatch: market bars larger than memory, turned into training batches.

Every public name is imported when it is first used, so that ``import grandbatch`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from grandbatch.version import __version__

if TYPE_CHECKING:
    from grandbatch import indicators, windows
    from grandbatch.bars import BarRules, read_bars
    from grandbatch.batch import MatrixBatch
    from grandbatch.build import build_store
    from grandbatch.checkpoint import CheckpointManager
    from grandbatch.config import BatchConfig, calculate_optimal_batch_size
    from grandbatch.evaluation import Evaluation, evaluate, evaluate_walk_forward
    from grandbatch.features import (
        ALPHA158,
        STRATEGIC,
        TACTICAL,
        Feature,
        FeatureSet,
        add_features,
        alpha158,
        check,
        column,
        day_of_week,
        day_of_year,
        time_of_day,
    )
    from grandbatch.indicators import ema, wilder_rsi
    from grandbatch.live import LiveContext, LiveFeatures, LiveWindow
    from grandbatch.loader import DataStreamer, SlidingWindowDataLoader
    from grandbatch.memory import MemoryMonitor
    from grandbatch.position import Position
    from grandbatch.processor import BatchProcessor
    from grandbatch.simulate import create_large_dataset_simulation
    from grandbatch.splits import Split, split_store, walk_forward
    from grandbatch.statistics import feature_statistics
    from grandbatch.store import MatrixStore
    from grandbatch.targets import (
        Target,
        add_targets,
        forward_drawdown,
        forward_log_return,
        forward_return,
        forward_volatility,
        triple_barrier,
    )
    from grandbatch.training import Trainer

# where each name lives; a module's own home is this package
_HOMES = {
    "ALPHA158": "features",
    "BarRules": "bars",
    "BatchConfig": "config",
    "BatchProcessor": "processor",
    "CheckpointManager": "checkpoint",
    "DataStreamer": "loader",
    "Evaluation": "evaluation",
    "Feature": "features",
    "FeatureSet": "features",
    "LiveContext": "live",
    "LiveFeatures": "live",
    "LiveWindow": "live",
    "MatrixBatch": "batch",
    "MatrixStore": "store",
    "MemoryMonitor": "memory",
    "Position": "position",
    "STRATEGIC": "features",
    "SlidingWindowDataLoader": "loader",
    "Split": "splits",
    "TACTICAL": "features",
    "Target": "targets",
    "Trainer": "training",
    "add_features": "features",
    "add_targets": "targets",
    "alpha158": "features",
    "build_store": "build",
    "calculate_optimal_batch_size": "config",
    "check": "features",
    "column": "features",
    "create_large_dataset_simulation": "simulate",
    "day_of_week": "features",
    "day_of_year": "features",
    "ema": "indicators",
    "evaluate": "evaluation",
    "evaluate_walk_forward": "evaluation",
    "feature_statistics": "statistics",
    "forward_drawdown": "targets",
    "forward_log_return": "targets",
    "forward_return": "targets",
    "forward_volatility": "targets",
    "indicators": "",
    "read_bars": "bars",
    "split_store": "splits",
    "time_of_day": "features",
    "triple_barrier": "targets",
    "walk_forward": "splits",
    "wilder_rsi": "indicators",
    "windows": "",
}

__all__ = [
    "ALPHA158",
    "STRATEGIC",
    "TACTICAL",
    "BarRules",
    "BatchConfig",
    "BatchProcessor",
    "CheckpointManager",
    "DataStreamer",
    "Evaluation",
    "Feature",
    "FeatureSet",
    "LiveContext",
    "LiveFeatures",
    "LiveWindow",
    "MatrixBatch",
    "MatrixStore",
    "MemoryMonitor",
    "Position",
    "SlidingWindowDataLoader",
    "Split",
    "Target",
    "Trainer",
    "__version__",
    "add_features",
    "add_targets",
    "alpha158",
    "build_store",
    "calculate_optimal_batch_size",
    "check",
    "column",
    "create_large_dataset_simulation",
    "day_of_week",
    "day_of_year",
    "ema",
    "evaluate",
    "evaluate_walk_forward",
    "feature_statistics",
    "forward_drawdown",
    "forward_log_return",
    "forward_return",
    "forward_volatility",
    "indicators",
    "read_bars",
    "split_store",
    "time_of_day",
    "triple_barrier",
    "walk_forward",
    "wilder_rsi",
    "windows",
]


def __getattr__(name: str) -> Any:
    if _HOMES.get(name) == "":
        return import_module(f"grandbatch.{name}")
    if name in _HOMES:
        return getattr(import_module(f"grandbatch.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
