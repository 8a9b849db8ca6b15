"""What lies in windows, merged of what lies in their parts, written as LLVM's code.

A loop over some 40 arrays is none that a compiler turns into vectors, since it can't tell that what
is written isn't read again. Here 8 bars are merged at once, each in a lane of its own. Each formula
is the same for any processor, and nothing is contracted, so no bits depend on it.

Whoever changes what these do must change `moments.py` too: numba keeps compiled kernels until their
own file changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

PARTS = (2, 3, 4, 5, 7, 8)
"""How many equal parts are merged at once."""
LANES = 8

_F64, _I64, _I32 = ir.DoubleType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_F64, LANES)


class Lanes:
    """Numbers of 8 bars, and arithmetic that writes instructions."""

    def __init__(self, builder: Any, value: Any):
        self._builder, self.value = builder, value

    @classmethod
    def of_number(cls, builder: Any, number: Any) -> Lanes:
        """Return the same number in each lane."""
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _I32(0))
        firsts = ir.Constant(ir.VectorType(_I32, LANES), [_I32(0)] * LANES)
        return cls(builder, builder.shuffle_vector(one, one, firsts))

    def _of(self, other: Lanes | float) -> Any:
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(_VECTOR, [ir.Constant(_F64, other)] * LANES)

    def __add__(self, other: Lanes | float) -> Lanes:
        return Lanes(self._builder, self._builder.fadd(self.value, self._of(other)))

    def __sub__(self, other: Lanes | float) -> Lanes:
        return Lanes(self._builder, self._builder.fsub(self.value, self._of(other)))

    def __mul__(self, other: Lanes | float) -> Lanes:
        return Lanes(self._builder, self._builder.fmul(self.value, self._of(other)))


Contrasts = list[tuple[float, list[Lanes]]]
"""Differences of parts' means, by what their squares or products weigh in the sum."""


def mean_of_equal(x: Sequence[Lanes]) -> tuple[Lanes, Contrasts]:
    """Average the means of 2 to 8 parts of one length, the oldest first; return contrasts too.

    The mean of equal ones is the number, and their contrasts are 0, exactly.
    """
    n = len(x)
    if n in (3, 5, 7):
        newer, contrasts = mean_of_equal(x[1:])
        apart = x[0] - newer
        return newer + apart * (1.0 / n), [*contrasts, ((n - 1.0) / n, [apart])]
    pairs = [x[k] + x[k + 1] for k in range(0, n, 2)]
    inside = (0.5, [x[k] - x[k + 1] for k in range(0, n, 2)])
    if n == 2:
        return pairs[0] * 0.5, [inside]
    middle, contrasts = mean_of_equal(pairs)
    return middle * 0.5, [inside, *((0.5 * weight, apart) for weight, apart in contrasts)]


def mean_of_unequal(x: Sequence[Lanes], share: Lanes) -> tuple[Lanes, Contrasts]:
    """Average two parts, of which the older one, the first, has that share of all."""
    older, newer = x
    apart = older - newer
    return newer + apart * share, [(1.0, [apart])]


def total(terms: Sequence[Lanes]) -> Lanes:
    """Add pairs, and pairs of pairs."""
    while len(terms) > 1:
        whole = len(terms) // 2 * 2
        paired = [terms[k] + terms[k + 1] for k in range(0, whole, 2)]
        terms = [*paired, *terms[whole:]]
    return terms[0]


def between(x: Contrasts, y: Contrasts) -> Lanes:
    """Return what parts' means add to the sum of products of deviations."""
    return total(
        [
            total([a * b for a, b in zip(left, right, strict=True)]) * weight
            for (weight, left), (_, right) in zip(x, y, strict=True)
        ]
    )


def slant(x: Sequence[Lanes]) -> Lanes:
    """Return the sum of products of parts' means and their numbers, counted from the middle."""
    n = len(x)
    return total([(x[n - 1 - k] - x[k]) * (0.5 * (n - 1) - k) for k in range(n // 2)])


class _Scratch:
    """Series of numbers `span` apart: parts are read `lag` after one another, results written."""

    def __init__(self, builder: Any, data: Any, span: Any, older: Any, lag: Any, to: Any):
        self._builder, self._data, self._span = builder, data, span
        self._older, self._lag, self._to = older, lag, to

    def read(self, series: int, i: Any, n: int) -> list[Lanes]:
        """Return n parts of bars i and later ones, the oldest first."""
        found, at = [], self._builder.add(self._older, i)
        for _ in range(n):
            value = self._builder.load(self._place(series, at), align=8, typ=_VECTOR)
            found.append(Lanes(self._builder, value))
            at = self._builder.add(at, self._lag)
        return found

    def write(self, series: int, i: Any, lanes: Lanes) -> None:
        """Write the results of bars i and later ones."""
        place = self._place(series, self._builder.add(self._to, i))
        self._builder.store(lanes.value, place, align=8)

    def _place(self, series: int, index: Any) -> Any:
        offset = self._builder.add(index, self._builder.mul(self._span, _I64(series)))
        pointer = self._builder.gep(self._data, [offset], inbounds=True, source_etype=_F64)
        return self._builder.bitcast(pointer, _VECTOR.as_pointer())


def _weights(builder: Any, is_unequal: Any, a: Any, b: Any) -> tuple[Lanes, Lanes, Lanes]:
    """Return what contrasts and what slants weigh, and the older part's share of two."""
    older, newer = (builder.sitofp(length, _F64) for length in (a, b))
    both = builder.fadd(older, newer)
    of_slants = builder.fmul(older, builder.select(is_unequal, newer, older))
    of_contrasts = builder.select(is_unequal, builder.fdiv(of_slants, both), older)
    made = (of_contrasts, of_slants, builder.fdiv(older, both))
    first, second, third = (Lanes.of_number(builder, number) for number in made)
    return first, second, third


def _write_merged(
    scratch: _Scratch,
    i: Any,
    n: int,
    of_singles: bool,
    weights: tuple[Lanes, Lanes, Lanes],
    n_series: int,
    has_trend: bool,
) -> None:
    """Merge n equal parts, or, where that is 1, two that are not, of 8 bars from i on."""
    of_contrasts, of_slants, share = weights
    lines = [scratch.read(series, i, max(n, 2)) for series in range(n_series)]
    means = [mean_of_unequal(x, share) if n == 1 else mean_of_equal(x) for x in lines]
    contrasts = [contrast for _, contrast in means]
    terms = [between(x, y) * of_contrasts for k, x in enumerate(contrasts) for y in contrasts[k:]]
    if has_trend:
        terms.append(slant(lines[0]) * of_slants)
    made = [mean for mean, _ in means]
    for series, term in enumerate(terms, n_series):
        inside = [] if of_singles else [total(scratch.read(series, i, max(n, 2)))]
        made.append(total([*inside, term]))
    for series, lanes in enumerate(made):
        scratch.write(series, i, lanes)


def _merger(n_series: int, has_trend: bool) -> Callable[..., None]:
    """Make ``merge(w, span, older, lag, to, count, parts, a, b)``.

    `w` is a flat float64 array of series `span` apart: the means of each of `n_series` columns,
    then the sums of products of deviations, of each column with itself and those after it, then
    the sum of those with the bars' numbers. The oldest part of bar i is at ``older + i``, the
    others `lag` after one another; the result goes to ``to + i``, for all i below `count`, and up
    to 7 more. There are `parts` of length `a` each, or, where that is 1, one of `a` and one of `b`.
    """

    @intrinsic
    def merge(typing, w, span, older, lag, to, count, parts, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            array, span, older, lag, to, count, parts, a, b = args
            data = context.make_array(signature.args[0])(context, builder, array).data
            scratch = _Scratch(builder, data, span, older, lag, to)
            is_unequal = builder.icmp_signed("==", parts, _I64(1))
            weights = _weights(builder, is_unequal, a, b)
            # single bars have no spread: nothing of it is read where all parts are such
            length = builder.select(is_unequal, _I64(2), a)
            for n, of_singles in [
                (1, False),
                *((n, flag) for n in PARTS for flag in (True, False)),
            ]:
                is_it = builder.and_(
                    builder.icmp_signed("==", parts, _I64(n)),
                    builder.icmp_signed("==" if of_singles else "!=", length, _I64(1)),
                )
                with (
                    builder.if_then(is_it),
                    cgutils.for_range_slice(builder, _I64(0), count, _I64(LANES)) as (i, _),
                ):
                    _write_merged(scratch, i, n, of_singles, weights, n_series, has_trend)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(w, *[whole] * 8), generate

    return merge  # type: ignore[no-any-return]


merge_moments = _merger(1, has_trend=False)
"""Of means and squares."""
merge_trends = _merger(1, has_trend=True)
"""Of means, squares and trends."""
merge_products = _merger(2, has_trend=False)
"""Of means of x and of y, squares of x, products, and squares of y."""
