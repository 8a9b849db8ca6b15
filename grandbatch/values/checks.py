"""Values that people write, checked where they are given."""

from __future__ import annotations

import math

from grandbatch.errors import UsageError

MOST_BARS = 100_000_000
"""Bars that a value may look back or ahead: more than any symbol's that it could be made of."""


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number from `least` on, up to `most`.

    Raises
    ------
    UsageError
        If it is none; the message names it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if most is not None and value > most:
        raise UsageError(f"{name} must be at most {most:,}, got {value!r}")
    return value


def number(
    name: str,
    value: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Check that a number is finite and within its bounds.

    Raises
    ------
    UsageError
        If it isn't; the message names it and them.
    """
    if not (math.isfinite(value) and value >= least and value > above and value <= most):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"at least {least:g}"] if least > -math.inf else []
        bounds += [f"at most {most:g}"] if most < math.inf else []
        raise UsageError(f"{name} must be {' and '.join(bounds)}, got {value!r}")


def parse_bytes(text: str | int) -> int:
    """Read a size such as ``"700MiB"``, ``"2GB"`` or ``1024`` into bytes.

    Parameters
    ----------
    text : str or int
        A whole number of bytes, or a number with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB;
        G and Gi mean GiB).

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    UsageError
        If the text is no positive size.
    """
    if isinstance(text, int):
        value = text
    else:
        units = {"": 1, "b": 1}
        for power, letter in enumerate("kmgt", start=1):
            units[f"{letter}b"] = 1000**power
            units[f"{letter}ib"] = units[f"{letter}i"] = units[letter] = 1024**power
        stripped = text.strip().lower()
        number = stripped.rstrip("abcdefghijklmnopqrstuvwxyz ")
        unit = stripped[len(number) :].strip()
        try:
            value = int(float(number) * units[unit])
        except (KeyError, ValueError, OverflowError):
            raise UsageError(f"{text!r} is no size; write for example 700MiB or 2GB") from None
    if value <= 0:
        raise UsageError(f"a size must be positive, got {text!r}")
    return value
