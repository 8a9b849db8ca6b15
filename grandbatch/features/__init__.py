"""Feature sets, and the ways to compute them: over arrays, or over a live Dask frame.

| module | |
|---|---|
| `sets` | `Feature` and `FeatureSet` |
| `inputs` | what kernels read, and the arrays of it |
| `built_in` | the sets that come with the package |
| `alpha` | Qlib's Alpha158 |
| `named` | what a name means: a set built in, or an object of the user's own |
| `formula` | what ready-made features are made of |
| `local_time` | local time as features |
| `fused` | kernels that compute several columns at once |
| `rows` | features over arrays, segment by segment |
| `overlap` | columns of a live Dask frame, by one `map_overlap` |
| `checking` | `check`: which kernels are tried on which bars |
| `trial` | whether a kernel keeps what a feature promises |
| `awkward` | bars made to be awkward |
| `costs` | what features cost here |

Importing this imports neither Dask, pandas nor numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grandbatch.features.alpha import ALPHA158, alpha158
from grandbatch.features.built_in import STRATEGIC, TACTICAL
from grandbatch.features.checking import check
from grandbatch.features.formula import column
from grandbatch.features.local_time import day_of_week, day_of_year, time_of_day
from grandbatch.features.named import resolve_feature_set
from grandbatch.features.rows import compute_rows, segment_starts
from grandbatch.features.sets import Feature, FeatureSet
from grandbatch.values.columns import BAR_COLUMNS, PRICES_AND_VOLUME

if TYPE_CHECKING:
    from grandbatch.features.overlap import add_features

__all__ = [
    "ALPHA158",
    "BAR_COLUMNS",
    "PRICES_AND_VOLUME",
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
