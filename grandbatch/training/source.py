"""The store that a training learns from: one that is there, or one built beside its bars."""

from __future__ import annotations

import os
from pathlib import Path

from grandbatch.config import BatchConfig
from grandbatch.errors import UsageError
from grandbatch.features import FeatureSet, resolve_feature_set
from grandbatch.store import MatrixStore


def open_store(
    data_path: str | os.PathLike[str] | MatrixStore,
    config: BatchConfig | None,
    feature_set: str | FeatureSet | None,
) -> MatrixStore:
    """Open a store, or build or reuse the one beside some bars.

    As `BatchProcessor` describes it.
    """
    if isinstance(data_path, MatrixStore):
        return data_path
    path = Path(data_path)
    if path.is_dir() and (path / "zarr.json").exists():
        return MatrixStore.open(path)
    chosen = _feature_set(config, feature_set)
    from grandbatch.build import build_store

    own = chosen.sequence_length, chosen.overlap
    wanted = (config or BatchConfig()).with_window(*own)
    length, overlap = wanted.sequence_length, wanted.overlap
    windows = "" if (length, overlap) == own else f"-{length}-{overlap}"
    return build_store(
        path,
        path.with_name(f"{path.name.split('.')[0]}.{chosen.name}{windows}.zarr"),
        feature_set=chosen,
        sequence_length=length,
        overlap=overlap,
    )


def _feature_set(config: BatchConfig | None, feature_set: str | FeatureSet | None) -> FeatureSet:
    if feature_set is not None:
        return resolve_feature_set(feature_set)
    length = BatchConfig().sequence_length if config is None else config.sequence_length
    for name in ("strategic", "tactical"):
        chosen = resolve_feature_set(name)
        if chosen.sequence_length == length:
            return chosen
    raise UsageError(
        f"no feature set has a sequence length of {length}; give feature_set= "
        "(strategic has 48, tactical 60)"
    )
