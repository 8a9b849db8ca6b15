"""`features` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from grandbatch.bars.rules import BarRules
from grandbatch.cli import options as o
from grandbatch.cli.output import console, show
from grandbatch.features.built_in import BUILT_IN
from grandbatch.features.checking import find_faults, refuse, simulated
from grandbatch.features.inputs import BAR_INPUTS, require_inputs
from grandbatch.features.local_time import day_of_week, day_of_year, time_of_day
from grandbatch.features.named import resolve_checkable, resolve_features
from grandbatch.features.sets import Feature
from grandbatch.values.texts import strict_json

_WIDTH = 100
"""Of the table where it goes to a file or another program."""


def features(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[SET]", help="A set, indicators (all), or 'local time'.", show_default=False
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """List features with their lookback, what they read, and their cost, measured here and now.

    Example: grandbatch features indicators
    """
    from grandbatch.features.costs import costs_of

    found = []
    for group, members in _groups(name).items():
        costs = costs_of(members)
        found += [
            {
                "set": group,
                "feature": feature.name,
                "lookback": feature.lookback,
                "inputs": list(feature.inputs),
                "version": feature.version,
                "ns": round(cost, 2),
            }
            for feature, cost in zip(members, costs, strict=True)
        ]
    if as_json:
        print(strict_json({"features": found}))
        return
    shown = console()
    shown.print(_table(found), width=None if shown.is_terminal else _WIDTH)


def _groups(name: str | None) -> dict[str, Sequence[Feature]]:
    """Return features by where they come from."""
    from grandbatch.indicators import catalogue

    ready = {"indicators": catalogue, "local time": _local_time}
    if name is None:
        sets = {each.name: each.features for each in BUILT_IN.values()}
        return {**sets, **{group: members() for group, members in ready.items()}}
    if name in ready:
        return {name: ready[name]()}
    meant = resolve_features(name)
    return {name: (meant,) if isinstance(meant, Feature) else meant.features}


def _local_time() -> tuple[Feature, ...]:
    return (*time_of_day("UTC"), *day_of_week("UTC"), *day_of_year("UTC"))


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for title in ("set", "feature", "lookback", "reads", "ns a bar"):
        table.add_column(title, justify="right" if title in ("lookback", "ns a bar") else "left")
    for row in found:
        table.add_row(
            Text(row["set"]),
            Text(row["feature"]),
            f"{row['lookback']:,}",
            Text(", ".join(row["inputs"])),
            f"{row['ns']:,.2f}",
        )
    return table


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
