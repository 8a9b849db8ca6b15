"""Feature sets, and the ways to compute them: over arrays, or over a live Dask frame.

`inputs.py` says what kernels read, and finds its arrays; `sets.py` says what sets are,
`built_in.py` holds those that come with the package, `named.py` finds a set by its name, `fused.py`
groups columns that are computed together, `rows.py` is the way over arrays, `overlap.py` the one
`map_overlap`. `formula.py` and `local_time.py` are what ready-made features are made of.
`checking.py` says which kernels are checked on which bars, `trial.py` how.
Importing this imports neither Dask, pandas nor numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grandbatch.features.alpha import ALPHA158, alpha158
from grandbatch.features.built_in import STRATEGIC, TACTICAL
from grandbatch.features.checking import check
from grandbatch.features.formula import column
from grandbatch.features.inputs import BAR_COLUMNS, FIELDS
from grandbatch.features.local_time import day_of_week, day_of_year, time_of_day
from grandbatch.features.named import resolve_feature_set
from grandbatch.features.rows import compute_rows, segment_starts
from grandbatch.features.sets import Feature, FeatureSet

if TYPE_CHECKING:
    from grandbatch.features.overlap import add_features

__all__ = [
    "ALPHA158",
    "BAR_COLUMNS",
    "FIELDS",
    "STRATEGIC",
    "TACTICAL",
    "Feature",
    "FeatureSet",
    "add_features",
    "alpha158",
    "check",
    "column",
    "compute_rows",
    "day_of_week",
    "day_of_year",
    "resolve_feature_set",
    "segment_starts",
    "time_of_day",
]


def __getattr__(name: str) -> Any:
    # pandas takes a third of a second to import, and a store is reused without it
    if name == "add_features":
        from grandbatch.features.overlap import add_features

        return add_features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
