"""`check`."""

from __future__ import annotations

from typing import Annotated

import typer

from grandbatch.bars.rules import BarRules
from grandbatch.cli import options as o
from grandbatch.cli.output import show
from grandbatch.features.checking import find_faults, refuse, simulated
from grandbatch.features.inputs import BAR_INPUTS, require_inputs
from grandbatch.features.named import resolve_checkable


@o.with_rules
def check(
    name: Annotated[
        str,
        typer.Argument(metavar="SET", help="A set, a feature or a target: path.py:NAME, …"),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Bars to check on as well: files, folders or globs."),
    ] = None,
    cache: o.Cache = None,
    *,
    rules: BarRules,
    as_json: o.Json = False,
) -> None:
    """Find kernels that look ahead, read past their lookback, or depend on more than their bars.

    They are run on simulated bars, and on the first of a few segments of the inputs. Exit 1 if one
    is wrong; the others are checked all the same.

    Example: grandbatch check features.py:MINE bars.csv
    """
    subjects = [checked.subject for checked in resolve_checkable(name)]
    if inputs:
        require_inputs(subjects, (*BAR_INPUTS, *rules.extra))
    faults = find_faults(subjects, simulated)
    if inputs:
        from grandbatch.bars import prepare_bars
        from grandbatch.bars.prepare import DEFAULT_CACHE
        from grandbatch.builder.check import first_bars

        bars = prepare_bars(inputs, cache or DEFAULT_CACHE, rules)
        segments = bars.segments()
        rest = [subject for subject in subjects if subject.name not in faults]
        faults |= find_faults(rest, lambda subject: first_bars(subject, bars, segments))
    found = {subject.name: faults.get(subject.name) for subject in subjects}
    if as_json:
        show({"ok": not faults, "features": found}, as_json=True)
    else:
        table = {feature: "wrong" if fault else "ok" for feature, fault in found.items()}
        show(table, as_json=False, title=f"checked {name}")
    refuse(faults)
