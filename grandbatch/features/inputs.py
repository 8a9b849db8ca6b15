"""What kernels read: times, the five numbers of a bar, and extra columns; their arrays by name.

The one place where names become arrays, for features and targets, builds and frames alike.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from grandbatch.errors import ColumnError, InputError, UsageError
from grandbatch.values.arrays import Array
from grandbatch.values.columns import PRICES_AND_VOLUME, TIMESTAMP

BAR_INPUTS = (TIMESTAMP, *PRICES_AND_VOLUME)
"""What kernels may read of any bars."""

_NO_TIME = np.iinfo(np.int64).min


class Reader(Protocol):
    """A feature, or whatever else has a name and reads inputs."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads, in the order of its kernel's arguments."""
        ...


def checked_inputs(owner: str, inputs: Iterable[str]) -> tuple[str, ...]:
    """Check what somebody, such as "feature 'rsi'", says that it reads.

    Raises
    ------
    UsageError
        If these aren't different names of columns that kernels can read.
    """
    names = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    texts = all(isinstance(name, str) and name.strip() for name in names)
    if not names or not texts or len(set(names)) < len(names):
        raise UsageError(
            f"the inputs of {owner} must be different names out of {', '.join(BAR_INPUTS)} and the "
            f"extra columns of the bars, got {inputs!r}"
        )
    if "symbol" in names:
        raise UsageError(
            f"the inputs of {owner} can't have symbol, which is a text; a kernel sees the bars of "
            "one symbol at a time"
        )
    return names


def inputs_of(readers: Iterable[Reader]) -> tuple[str, ...]:
    """Return what is read: the timestamp and the five in their order, then extra columns."""
    read = dict.fromkeys(name for reader in readers for name in reader.inputs)
    return (*(n for n in BAR_INPUTS if n in read), *(n for n in read if n not in BAR_INPUTS))


def extra_inputs_of(readers: Iterable[Reader]) -> tuple[str, ...]:
    """Return the extra columns among what is read."""
    return tuple(name for name in inputs_of(readers) if name not in BAR_INPUTS)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the type of an input's array."""
    return np.dtype(np.int64 if name == TIMESTAMP else np.float64)


def require_inputs(
    readers: Iterable[Reader],
    known: Collection[str],
    *,
    kind: str = "feature",
    bars: str = "the bars",
) -> None:
    """See that all that is read is there.

    Parameters
    ----------
    readers : iterable of Feature, Target, …
    known : collection of str
        What can be read.
    kind : str
        What the readers are called, feature or target, where they don't say so themselves.
    bars : str
        What lacks a column.

    Raises
    ------
    ColumnError
        If a name isn't known: names the reader, the column, and what gives it.
    """
    lacking: dict[str, str] = {}
    for reader in readers:
        for name in reader.inputs:
            if name not in known:
                lacking.setdefault(name, f"{getattr(reader, 'kind', kind)} {reader.name!r}")
    if not lacking:
        return
    reads = ", ".join(f"{reader} reads {name!r}" for name, reader in lacking.items())
    close = difflib.get_close_matches(next(iter(lacking)), known, 1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise ColumnError(
        f"{reads}, which {bars} don't have{meant}; they have {', '.join(known)}. {_remedy(lacking)}"
    )


def _remedy(lacking: Iterable[str]) -> str:
    extra = tuple(name for name in lacking if name not in BAR_INPUTS)
    if not extra:
        return "Rename the columns, or use read_bars"
    return (
        f"Columns of the input are named with --extra {shlex.quote(','.join(extra))} "
        f"(in Python rules=BarRules(extra={extra!r}))"
    )


def known_inputs(frame: Any) -> tuple[str, ...]:
    """Return what can be read of a frame or a mapping: columns, and times that are its index."""
    names = tuple(map(str, frame.columns if hasattr(frame, "columns") else frame))
    if TIMESTAMP in names or not _has_times(getattr(frame, "index", None)):
        return names
    return (TIMESTAMP, *names)


def _has_times(index: Any) -> bool:
    # numpy's kind, or that of pandas' types with a zone
    return getattr(getattr(index, "dtype", None), "kind", "") == "M"


def arrays_of(frame: Any, names: Iterable[str]) -> dict[str, Array]:
    """Return columns of a pandas frame, or of a mapping of arrays, as kernels take them.

    The timestamp may be the index of a frame. Times without a zone are UTC, whole numbers are
    nanoseconds since 1970.

    Returns
    -------
    dict of str to (n,) array, contiguous
        `timestamp` int64, the others float64.

    Raises
    ------
    ColumnError
        If a column holds something else.
    """
    return {name: _array_of(frame, name) for name in names}


def _array_of(frame: Any, name: str) -> Array:
    if name != TIMESTAMP:
        try:
            return np.ascontiguousarray(frame[name], np.float64)
        except (TypeError, ValueError) as error:
            raise ColumnError(f"the column {name!r} must hold numbers: {error}") from None
    times = frame[name] if name in frame else frame.index  # noqa: SIM401 (mappings have no index)
    if hasattr(times, "to_numpy") and times.dtype.kind == "M":
        times = times.to_numpy(dtype="datetime64[ns]")  # of a zone, the same moments in UTC
    values = np.asarray(times)
    if values.dtype.kind == "M":
        values = values.astype("datetime64[ns]").view(np.int64)
    if values.dtype.kind not in "iu":
        raise ColumnError(
            f"the column {name!r} must hold times, or whole nanoseconds since 1970 UTC, got "
            f"{values.dtype}; use pandas.to_datetime on it"
        )
    return np.ascontiguousarray(values, np.int64)


def refuse_not_finite(columns: Mapping[str, Array]) -> None:
    """See that every number is one.

    Raises
    ------
    InputError
        If one is not; names the first.
    """
    for name, values in columns.items():
        known = values != _NO_TIME if name == TIMESTAMP else np.isfinite(values)
        if not known.all():
            row = int(np.flatnonzero(~known)[0])
            shown = "no time" if name == TIMESTAMP else values[row]
            raise InputError(
                f"{name} is {shown} at row {row} of {len(values)}; features and targets need "
                "finite bars: read them with grandbatch.read_bars, which quarantines such rows"
            )
