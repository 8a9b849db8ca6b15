"""Bytes of memory by their address, for kernels that read text.

A kernel that hands an array to another function counts references to it, and indexing asks whether
an index is negative: for a few instructions per byte both cost more than the work. Nothing checks
an address, so callers bound what they read.

Whoever changes what these do must change the files that use them too: numba keeps compiled kernels
until their own file changes.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def address_of(typing, array):  # type: ignore[no-untyped-def]
    """Return the address of a contiguous array's first item, as int64."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), generate


@intrinsic
def byte_at(typing, address):  # type: ignore[no-untyped-def]
    """Return the byte at an address, as int64."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        byte = builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer()))
        return builder.zext(byte, ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic
def word_at(typing, address):  # type: ignore[no-untyped-def]
    """Return eight bytes from an address on as uint64, the first as its lowest."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.int64), generate


@intrinsic
def first_byte(typing, marks):  # type: ignore[no-untyped-def]
    """Return the index of the first byte of a uint64 that has a bit set; 8 where none has."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        zeros = builder.cttz(args[0], cgutils.false_bit)
        return builder.lshr(zeros, ir.Constant(zeros.type, 3))

    return types.int64(types.uint64), generate
