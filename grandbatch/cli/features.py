"""`features`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from grandbatch.cli import options as o
from grandbatch.cli.output import console
from grandbatch.features.built_in import BUILT_IN
from grandbatch.features.local_time import day_of_week, day_of_year, time_of_day
from grandbatch.features.named import resolve_features
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
