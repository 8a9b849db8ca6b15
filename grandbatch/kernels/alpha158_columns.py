"""Names and places of the columns of Alpha158 that open, high, low, close and volume give."""

from __future__ import annotations

WINDOWS = (5, 10, 20, 30, 60)
LOOKBACK = 60
BAR_SHAPES = ("KMID", "KLEN", "KMID2", "KUP", "KUP2", "KLOW", "KLOW2", "KSFT", "KSFT2")
PRICES = ("OPEN0", "HIGH0", "LOW0")
FAMILIES = (
    *("ROC", "MA", "STD", "BETA", "RSQR", "RESI", "MAX", "MIN", "QTLU", "QTLD", "RANK", "RSV"),
    *("IMAX", "IMIN", "IMXD", "CORR", "CORD", "CNTP", "CNTN", "CNTD", "SUMP", "SUMN", "SUMD"),
    *("VMA", "VSTD", "WVMA", "VSUMP", "VSUMN", "VSUMD"),
)
NAMES = (*BAR_SHAPES, *PRICES, *(f"{family}{d}" for family in FAMILIES for d in WINDOWS))
PLACE = {family: 12 + 5 * k for k, family in enumerate(FAMILIES)}
"""The column of each family's shortest window; the others follow it."""
