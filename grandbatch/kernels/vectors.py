"""Straight-line pieces that a compiled loop can't express well, written as LLVM's code.

Compares and moves only: they round nothing, so no bits depend on them. Nothing checks an index.

Whoever changes what these do must change the files that use them too: numba keeps compiled kernels
until their own file changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_F64, _F32, _I64 = ir.DoubleType(), ir.FloatType(), ir.IntType(64)
_EIGHT = ir.VectorType(_F32, 8)

# rows of 8 become columns in three rounds: inside pairs, inside fours, then halves are exchanged
_PAIRS = ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15])
_FOURS = ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
_HALVES = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])


@intrinsic
def transpose_8x8(typing, source, starts, at, target, to, width):  # type: ignore[no-untyped-def]
    """target[to + i * width + k] = source[starts[at + k] + i] for i, k in 0..7.

    `source` and `target` are flat float32 arrays, `starts` is an int64 one; `at`, `to` and `width`
    are whole numbers. `starts` counts from the first bar of the block already.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        src, first, dst = (_data(context, builder, signature, args, k) for k in (0, 1, 3))

        def vector(base: Any, index: Any) -> Any:
            place = builder.gep(base, [index], source_etype=_F32)
            return builder.bitcast(place, _EIGHT.as_pointer())

        def mixed(x: Any, y: Any, lanes: Sequence[int]) -> Any:
            mask = [ir.Constant(ir.IntType(32), lane) for lane in lanes]
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), 8), mask))

        columns = []
        for k in range(8):
            place = builder.add(args[2], ir.Constant(_I64, k))
            start = builder.load(builder.gep(first, [place], source_etype=_I64), typ=_I64)
            columns.append(builder.load(vector(src, start), align=4, typ=_EIGHT))
        pairs = [mixed(columns[k], columns[k + 1], m) for k in range(0, 8, 2) for m in _PAIRS]
        fours = [
            mixed(pairs[k + j], pairs[k + j + 2], lanes)
            for k in (0, 4)
            for j in (0, 1)
            for lanes in _FOURS
        ]
        rows = [mixed(fours[k], fours[k + 4], lanes) for lanes in _HALVES for k in range(4)]
        for i, row in enumerate(rows):
            step = builder.mul(args[5], ir.Constant(_I64, i))
            builder.store(row, vector(dst, builder.add(args[4], step)), align=4)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(source, starts, whole, target, whole, whole), generate


def odd_even_merge(a: Sequence[int], b: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the comparators that merge two sorted lists of wires, and the wires in their order.

    Batcher: Sorting networks and their applications, 1968. A comparator (low, high) leaves the
    smaller number on wire `low`.
    """
    if not a or not b:
        return [], [*a, *b]
    if len(a) == 1 and len(b) == 1:
        return [(a[0], b[0])], [*a, *b]
    even, evens = odd_even_merge(a[0::2], b[0::2])
    odd, odds = odd_even_merge(a[1::2], b[1::2])
    order, last = [evens[0]], []
    for k in range(max(len(odds), len(evens) - 1)):
        if k < len(odds) and k + 1 < len(evens):
            last.append((odds[k], evens[k + 1]))
        order += odds[k : k + 1] + evens[k + 1 : k + 2]
    return even + odd + last, order


def merge_columns(
    n: int, m: int, stride: int, ranks: Sequence[int] | None = None
) -> Callable[..., None]:
    """Make ``merge(source, a, b, target, to)`` for flat float64 arrays of columns `stride` apart.

    It merges the n sorted numbers ``source[a + k * stride]`` with the m sorted ones
    ``source[b + k * stride]`` into ``target[to + k * stride]``. With `ranks`, only the numbers of
    these ranks, counted from 0, are written, in this order.
    """
    network, order = odd_even_merge(range(n), range(n, n + m))
    kept = range(n + m) if ranks is None else ranks

    @intrinsic
    def merge(typing, source, a, b, target, to):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            src, dst = (_data(context, builder, signature, args, k) for k in (0, 3))

            def place(base: Any, index: Any, k: int) -> Any:
                offset = builder.add(index, ir.Constant(_I64, k * stride), flags=["nsw"])
                return builder.gep(base, [offset], inbounds=True, source_etype=_F64)

            wires = [builder.load(place(src, args[1], k), typ=_F64) for k in range(n)]
            wires += [builder.load(place(src, args[2], k), typ=_F64) for k in range(m)]
            for low, high in network:
                x, y = wires[low], wires[high]
                less = builder.fcmp_ordered("<", x, y)
                wires[low] = builder.select(less, x, y)
                wires[high] = builder.select(less, y, x)
            for k, rank in enumerate(kept):
                builder.store(wires[order[rank]], place(dst, args[4], k))
            return context.get_dummy_value()

        whole = types.int64
        return types.void(source, whole, whole, target, whole), generate

    return merge  # type: ignore[no-any-return]


def _data(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    return context.make_array(signature.args[k])(context, builder, args[k]).data
