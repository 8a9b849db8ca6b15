"""What a text means: a target that comes with the package, or an object of the user's own."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from grandbatch.errors import UsageError
from grandbatch.features.named import load_named
from grandbatch.targets import ready
from grandbatch.targets.target import Target, distinct

Named = Target | str | Iterable[Target | str]

READY: dict[str, Callable[..., Target]] = {
    function.__name__: function
    for function in (
        ready.forward_return,
        ready.forward_log_return,
        ready.forward_volatility,
        ready.forward_drawdown,
        ready.triple_barrier,
    )
}
"""Factories by the name that a text begins with."""


def resolve_targets(targets: Named | None) -> tuple[Target, ...]:
    """Return targets as they are, and those that texts mean.

    Parameters
    ----------
    targets : Target, str, iterable of them, or None
        A text is a name with its numbers, such as "forward_return:5" or
        "triple_barrier:0.01:0.01:60"; or "module:NAME" or "path.py:NAME", a target or a sequence
        of them, imported from the working directory as Python would. Several are parted by commas.

    Returns
    -------
    tuple of Target

    Raises
    ------
    UsageError
        If a text means no target, something else is none, or two targets share a name.
    """
    if targets is None:
        return ()
    values = [targets] if isinstance(targets, str | Target) else _each(targets)
    return distinct([target for value in values for target in _meant(value)])


def _each(values: object) -> Iterable[Any]:
    if not isinstance(values, Iterable):
        raise UsageError(
            f"targets must be a Target, a text such as forward_return:5, or several of them, "
            f"got {values!r}"
        )
    return values


def _meant(value: object) -> list[Target]:
    if isinstance(value, Target):
        return [value]
    if isinstance(value, str):
        return [target for text in value.split(",") for target in _of_text(text.strip())]
    raise UsageError(
        f"a target must be a Target or a text such as forward_return:5, got {value!r}"
        + (": call it with its horizon" if value in READY.values() else "")
    )


def _of_text(text: str) -> list[Target]:
    name, *written = text.split(":")
    if name in READY:
        return [_made(text, READY[name], written)]
    if ":" not in text or _is_number(written[-1]):
        close = difflib.get_close_matches(name, READY, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        forms = ", ".join(_form(factory) for factory in READY.values())
        raise UsageError(
            f"unknown target {text!r}{meant}; choose of {forms}, or name one of your own: "
            "module:NAME or path.py:NAME"
        )
    found = load_named(text, "target")
    several = found if isinstance(found, list | tuple) else [found]
    if not several or not all(isinstance(one, Target) for one in several):
        raise UsageError(f"{text} must be a Target, or a list of them, got {type(found).__name__}")
    return list(several)


def _made(text: str, factory: Callable[..., Target], written: list[str]) -> Target:
    """Call a factory with the numbers of a text."""
    wanted = inspect.signature(factory).parameters
    try:
        values = [
            int(part) if name == "horizon" else float(part)
            for name, part in zip(wanted, written, strict=True)
        ]
    except ValueError:
        raise UsageError(
            f"{text!r} is no target: write {_form(factory)}, with a number in each place"
        ) from None
    return factory(*values)


def _form(factory: Callable[..., Target]) -> str:
    return ":".join(
        [factory.__name__, *(name.upper() for name in inspect.signature(factory).parameters)]
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
