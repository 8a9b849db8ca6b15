"""Qlib's Alpha158 as a feature set: bar shapes, prices, and 29 families over five windows.

The five windows of Qlib come from one kernel that shares everything that can be shared; windows of
other lengths from the formulas below, one kernel for each length. Formulas, and each difference
from Qlib with its reason, are in `docs/features/alpha158.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from grandbatch import windows as w
from grandbatch.errors import UsageError
from grandbatch.features.formula import Formula, ratio, rises, shifted, whole
from grandbatch.features.fused import FusedColumn, FusedKernel
from grandbatch.features.sets import Feature, FeatureSet
from grandbatch.kernels import ALPHA158_WIDTH, alpha158_kernel
from grandbatch.kernels.alpha158_columns import (
    BAR_SHAPES,
    FAMILIES,
    LOOKBACK,
    NAMES,
    PRICES,
    WINDOWS,
)
from grandbatch.values.columns import BAR_COLUMNS, PRICES_AND_VOLUME

F64 = npt.NDArray[np.float64]

_EPS = 1e-12
_TYPICAL = ("high", "low", "close")

# what each column reads; of families without a line of their own that is the close
_INPUTS = {
    **dict.fromkeys(BAR_SHAPES, ("open", "high", "low", "close")),
    "KMID": ("open", "close"),
    "KLEN": ("open", "high", "low"),
    "KUP": ("open", "high", "close"),
    "KLOW": ("open", "low", "close"),
    "KSFT2": _TYPICAL,
    "OPEN0": ("open", "close"),
    "HIGH0": ("high", "close"),
    "LOW0": ("low", "close"),
    "MAX": ("high", "close"),
    "MIN": ("low", "close"),
    "RSV": _TYPICAL,
    "IMAX": ("high",),
    "IMIN": ("low",),
    "IMXD": ("high", "low"),
    **dict.fromkeys(("CORR", "CORD", "WVMA"), ("close", "volume")),
    **dict.fromkeys(("VMA", "VSTD", "VSUMP", "VSUMN", "VSUMD"), ("volume",)),
}
# families that compare each bar of the window with the one before it
_ONE_MORE = ("ROC", "CORD", "WVMA", "CNTP", "CNTN", "CNTD", "SUMP", "SUMN", "SUMD",
             "VSUMP", "VSUMN", "VSUMD")  # fmt: skip

_FUSED = FusedKernel(alpha158_kernel, PRICES_AND_VOLUME, ALPHA158_WIDTH, LOOKBACK)


def alpha158(
    windows: Sequence[int] = WINDOWS,
    exclude: Iterable[str] = (),
    vwap: str | None = None,
    *,
    sequence_length: int = 60,
    overlap: int = 15,
) -> FeatureSet:
    """Return Qlib's Alpha158 with other windows, or without some of it.

    Parameters
    ----------
    windows : sequence of int
        Bars of the 29 families' windows, each at least 2. Those of Qlib are 5, 10, 20, 30, 60.
    exclude : iterable of str
        Families, such as "RANK", or columns, such as "KMID2" or "MA5", to leave out.
    vwap : str, optional
        What VWAP0 is of: the name of an extra column, as in ``BarRules(extra=("vwap",))``. Bars
        need have none, so it is left out by default; "typical" takes the typical price,
        (high + low + close) / 3, in its stead.
    sequence_length, overlap : int
        As of `FeatureSet`.

    Returns
    -------
    FeatureSet
        Columns in the order, and with the names, of Qlib.

    Raises
    ------
    UsageError
        If an argument makes no sense; the message names it.
    """
    if isinstance(exclude, str):
        raise UsageError(f"exclude must be a list of names, such as ({exclude!r},), got a text")
    lengths = [whole(d, 2, "window of alpha158") for d in windows]
    if not lengths or len(set(lengths)) < len(lengths):
        raise UsageError(f"windows of alpha158 must be different lengths, got {tuple(windows)!r}")
    features = [_from_kernel(name, name) for name in (*BAR_SHAPES, *PRICES)]
    families = dict.fromkeys((*BAR_SHAPES, *PRICES, *FAMILIES))
    if vwap is not None:
        features.append(_vwap0(vwap))
        families["VWAP0"] = None
    features += [
        _from_kernel(f"{family}{d}", family) if d in WINDOWS else _from_formula(family, d)
        for family in FAMILIES
        for d in lengths
    ]
    unwanted = set(exclude)
    unknown = unwanted - set(families) - {feature.name for feature in features}
    if unknown:
        raise UsageError(
            f"exclude names {', '.join(sorted(map(str, unknown)))}, which alpha158 doesn't have; "
            f"its families are {', '.join(families)}"
        )
    kept = [f for f in features if not unwanted & {f.name, f.name.rstrip("0123456789")}]
    if not kept:
        raise UsageError("exclude leaves nothing of alpha158; name fewer")
    return FeatureSet("alpha158", kept, sequence_length, overlap)


def _from_kernel(name: str, family: str) -> Feature:
    d = 0 if name == family else int(name[len(family) :])
    read = _INPUTS.get(family, ("close",))
    column = FusedColumn(_FUSED, NAMES.index(name), read)
    return Feature(name, _lookback(family, d), column, read)


def _from_formula(family: str, d: int) -> Feature:
    fused = FusedKernel(Formula(_families, (d,)), PRICES_AND_VOLUME[1:], len(FAMILIES), d)
    read = _INPUTS.get(family, ("close",))
    column = FusedColumn(fused, FAMILIES.index(family), read)
    return Feature(f"{family}{d}", _lookback(family, d), column, read, version=2)


def _lookback(family: str, d: int) -> int:
    return d if family in _ONE_MORE else max(0, d - 1)


def _vwap0(vwap: str) -> Feature:
    if vwap == "typical":
        return Feature("VWAP0", 0, Formula(_typical_over_close), _TYPICAL)
    if not isinstance(vwap, str) or vwap in BAR_COLUMNS:
        raise UsageError(
            f'vwap must name an extra column of the bars, such as "vwap", or be "typical" for '
            f"(high + low + close) / 3, got {vwap!r}"
        )
    return Feature("VWAP0", 0, Formula(ratio), (vwap, "close"))


def _typical_over_close(high: F64, low: F64, close: F64) -> F64:
    return ratio((high + low + close) / 3.0, close)


def _families(h: F64, l: F64, c: F64, v: F64, d: int) -> tuple[F64, ...]:
    """Return all families over d bars, in their order."""
    mean, squares, trend = w.trends(c, d)
    slope = trend / (d * (d * d - 1.0) / 12.0)
    top, bottom = w.highest(h, d), w.lowest(l, d)
    since_top, since_bottom = w.age_of_highest(h, d), w.age_of_lowest(l, d)
    v_mean, v_squares = w.moments(v, d)
    change = ratio(c - shifted(c), shifted(c))
    m_mean, m_squares = w.moments(np.abs(change) * v, d)
    growth = ratio(v, shifted(v)) + 1.0
    higher, lower = (side.astype(np.float64) for side in (c > shifted(c), c < shifted(c)))
    counts = _shares(higher, lower, d, float(d))
    return (
        shifted(c, d) / c,
        mean / c,
        np.sqrt(squares / (d - 1.0)) / c,
        slope / c,
        w.rsquare(c, d),
        ((c - mean) - slope * (0.5 * (d - 1.0))) / c,
        top / c,
        bottom / c,
        w.quantile(c, d, 0.8) / c,
        w.quantile(c, d, 0.2) / c,
        w.rank(c, d),
        (c - bottom) / (top - bottom + _EPS),
        (d - since_top) / d,
        (d - since_bottom) / d,
        (since_bottom - since_top) / d,
        w.correlation(c, _logs(v + 1.0), d),
        w.correlation(change, _logs(growth), d),
        *counts,
        *_shares(*rises(c), d),
        v_mean / (v + _EPS),
        np.sqrt(v_squares / (d - 1.0)) / (v + _EPS),
        np.sqrt(m_squares / (d - 1.0)) / (m_mean + _EPS),
        *_shares(*rises(v), d),
    )


def _shares(up: F64, down: F64, d: int, total: float | None = None) -> tuple[F64, F64, F64]:
    """Return the shares of ups and of downs in their sum over d bars, and the difference."""
    gains, losses = w.sum(up, d), w.sum(down, d)
    whole_ = gains + losses + _EPS if total is None else total
    return gains / whole_, losses / whole_, (gains - losses) / whole_


def _logs(x: F64) -> F64:
    """Return natural logarithms, without libm, whose last bits change between its versions."""
    from grandbatch.kernels.alpha158_moments import natural_logs

    out = np.empty(len(x))
    natural_logs(np.ascontiguousarray(x), out, len(x))
    return np.where(np.isnan(x), np.nan, out)


ALPHA158 = alpha158()
"""Qlib's Alpha158 but VWAP0: 157 features over up to 60 bars back, in windows of 60 rows."""
