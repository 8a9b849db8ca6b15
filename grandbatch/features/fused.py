"""Kernels that compute several columns at once, and how a set's features are grouped by them.

Columns of one fused kernel share most of their work. So a set computes each of its fused kernels
once for a block of bars, whichever of the columns it takes, in whatever order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from grandbatch.errors import KernelError
from grandbatch.values.arrays import Array

F32 = npt.NDArray[np.float32]
Kernel = Callable[..., None]


@dataclass(frozen=True)
class FusedKernel:
    """A kernel of several columns: ``run(*inputs, first, out)``.

    Like a feature's, but `out` is (width, n - first), and `first` at least `lookback`.
    """

    run: Kernel
    inputs: tuple[str, ...]
    width: int
    lookback: int

    def write(self, bars: Mapping[str, Array], first: int, out: F32) -> None:
        """Write all columns of the bars from `first` on.

        Inputs that `bars` lacks are those that only columns nobody wants would read. Likewise,
        where fewer bars than the lookback come before, the first one is repeated.
        """
        missing = max(0, self.lookback - first)
        unread = next(iter(bars.values()))
        arrays = [bars.get(name, unread) for name in self.inputs]
        if missing:
            arrays = [np.concatenate([np.repeat(x[:1], missing), x]) for x in arrays]
        self.run(*arrays, first + missing, out)


@dataclass(frozen=True)
class FusedColumn:
    """One column of a fused kernel, as a feature's kernel.

    Called alone it computes all columns and keeps one: right to the bit, at the price of all.
    """

    fused: FusedKernel
    column: int
    inputs: tuple[str, ...]

    @property
    def zone_database(self) -> str | None:
        """The version of the zone database that values depend on, if they do."""
        return getattr(self.fused.run, "zone_database", None)

    def __call__(self, *arguments: Any) -> None:
        """Write the column: called as ``kernel(*inputs, first, out)``."""
        *arrays, first, out = arguments
        columns = np.empty((self.fused.width, len(out)), np.float32)
        self.fused.write(dict(zip(self.inputs, arrays, strict=True)), first, columns)
        out[:] = columns[self.column]


class _Feature(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kernel(self) -> Kernel: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def lookback(self) -> int: ...


@dataclass(frozen=True)
class Producer:
    """What one call computes of a set: a feature, or all columns of a fused kernel.

    Parameters
    ----------
    names : tuple of str
        Of the features that it is for.
    kernel : callable or FusedKernel
    inputs : tuple of str
        What is read of the bars.
    lookback : int
        Bars before the first one that it is given, where there are so many.
    width : int
        Columns.
    """

    names: tuple[str, ...]
    kernel: Kernel | FusedKernel
    inputs: tuple[str, ...]
    lookback: int
    width: int = 1

    def write(self, bars: Mapping[str, Array], first: int, stop: int, out: F32) -> None:
        """Write the columns of the bars from `first` to before `stop`, (width, stop - first).

        Raises
        ------
        KernelError
            If the kernel raises anything.
        """
        begin = max(0, first - self.lookback)
        own = {name: bars[name][begin:stop] for name in self.inputs}
        try:
            if isinstance(self.kernel, FusedKernel):
                self.kernel.write(own, first - begin, out)
            else:
                self.kernel(*own.values(), first - begin, out[0])
        except MemoryError:
            raise
        except Exception as error:
            raise KernelError(
                f"the kernel of feature {', '.join(self.names)} raised {type(error).__name__} "
                f"({error}) on {stop - begin:,} bars; it must take any finite ones: "
                "grandbatch.check runs it on awkward ones"
            ) from error


@dataclass(frozen=True)
class Production:
    """How all columns of a set are computed.

    Parameters
    ----------
    producers : tuple of Producer
        Their columns, one after the other, are those of a block.
    order : (F,) int64
        Which of these is each feature's.
    """

    producers: tuple[Producer, ...]
    order: npt.NDArray[np.int64]

    @property
    def width(self) -> int:
        """Columns of a block."""
        return sum(producer.width for producer in self.producers)

    @property
    def lookback(self) -> int:
        """The largest of the producers'."""
        return max(producer.lookback for producer in self.producers)

    @classmethod
    def of(cls, features: Sequence[_Feature]) -> Production:
        """Group features by their fused kernel; each of the others stands alone."""
        columns: dict[FusedKernel, list[_Feature]] = {}
        for feature in features:
            if isinstance(feature.kernel, FusedColumn):
                columns.setdefault(feature.kernel.fused, []).append(feature)
        producers: list[Producer] = []
        begins: dict[FusedKernel, int] = {}
        order, width = [], 0
        for feature in features:
            kernel = feature.kernel
            if isinstance(kernel, FusedColumn):
                if kernel.fused not in begins:
                    begins[kernel.fused] = width
                    fused = kernel.fused
                    names = tuple(column.name for column in columns[fused])
                    read = tuple(dict.fromkeys(n for one in columns[fused] for n in one.inputs))
                    producers.append(Producer(names, fused, read, fused.lookback, fused.width))
                    width += fused.width
                order.append(begins[kernel.fused] + kernel.column)
            else:
                producers.append(
                    Producer((feature.name,), kernel, feature.inputs, feature.lookback)
                )
                order.append(width)
                width += 1
        return cls(tuple(producers), np.array(order, np.int64))
