"""The commands by their names: each is imported, and made, when it is asked for.

One command needs a small part of the library; importing what all of them need takes longer than
many of them run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from grandbatch.cli.options import with_verbosity
from grandbatch.cli.settings import adopt

HOMES = {
    "simulate": "building.simulate",
    "plan": "building.plan",
    "build": "building.build",
    "watch": "watching.watch",
    "check": "features.check",
    "inspect": "stores.inspect",
    "verify": "stores.verify",
    "stream": "stores.stream",
    "train": "training.train",
    "evaluate": "judging.evaluate",
    "walk-forward": "judging.walk_forward",
    "serve": "serving.serve",
    "report": "stores.report",
    "features": "features.features",
    "monitor": "monitoring.monitor",
    "quarantine": "upkeep.quarantine",
    "doctor": "upkeep.doctor",
    "config": "upkeep.config",
    "demo": "demo.demo",
    "cache": "upkeep.cache_app",
}
"""Module and function of each command, in the order in which help lists them."""


class Commands(Mapping[str, Any]):
    """All commands, made one by one."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(name, HOMES[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(HOMES)

    def __len__(self) -> int:
        return len(HOMES)


class CommandGroup(TyperGroup):
    """A command line whose commands are made when they are asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()


def _make(name: str, home: str) -> Any:
    module, function = home.split(".")
    found = getattr(import_module(f"grandbatch.cli.{module}"), function)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        # its first line whole, where click would end it in dots
        first = (found.__doc__ or "").split("\n", 1)[0]
        alone.command(name, short_help=first)(with_verbosity(found))
        found = alone
    command = typer.main.get_command(found)
    command.name = name
    adopt(command, (name,))
    return command
