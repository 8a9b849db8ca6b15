"""Settings that are no flags: `GRANDBATCH_*` variables, then one YAML file, then the defaults.

A setting has the name of its flag. It may be given for one command (`GRANDBATCH_BUILD_LAYOUT`, or
`layout` below `build` in the file), or for every command that has the flag (`GRANDBATCH_LAYOUT`,
or `layout` at the top); the first goes before the second.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grandbatch.errors import UsageError

FILE = "grandbatch.yaml"
PREFIX = "GRANDBATCH"
FILE_VARIABLE = f"{PREFIX}_CONFIG"

CommandPath = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A setting in force for a command where no flag says otherwise, and where it comes from."""

    command: str
    flag: str
    value: Any
    source: str


def find_file(chosen: Path | None) -> Path | None:
    """Return the file of settings: the chosen one, or `grandbatch.yaml` in the working folder.

    Raises
    ------
    UsageError
        If the chosen one isn't there.
    """
    if chosen is None:
        return Path(FILE) if Path(FILE).is_file() else None
    if not chosen.is_file():
        raise UsageError(f"there is no file of settings {chosen} (--config or ${FILE_VARIABLE})")
    return chosen


def adopt(context: Any, file: Path | None) -> None:
    """Give all commands of a context their variables, and the file's values as defaults.

    Raises
    ------
    UsageError
        If the file is no YAML mapping, or names what no command has.
    """
    commands = dict(_commands(context.command))
    for path, command in commands.items():
        for option in _options(command):
            option.envvar = _variables(path, option)
            # one line in the help says it for all
            option.show_envvar = False
    if file is not None:
        context.default_map = _defaults(commands, _read(file), file)


def settings(context: Any, file: Path | None) -> list[Setting]:
    """Return the settings of all commands of a context that `adopt` has seen."""
    found = []
    for path, command in _commands(context.command):
        below: Any = context.default_map or {}
        for name in path:
            below = below.get(name, {})
        for option in _options(command):
            value, source = option.default, "default"
            if option.name in below:
                value, source = below[option.name], str(file)
            for variable in reversed(option.envvar):
                if os.environ.get(variable):
                    value, source = os.environ[variable], f"${variable}"
            found.append(Setting(" ".join(path), _flag(option), value, source))
    return found


def _commands(group: Any, path: CommandPath = ()) -> Iterator[tuple[CommandPath, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option" and p.expose_value]


def _flag(option: Any) -> str:
    return str(max(option.opts, key=len))


def _key(option: Any) -> str:
    return _flag(option).removeprefix("--").replace("-", "_")


def _variables(path: CommandPath, option: Any) -> list[str]:
    key = _key(option).upper()
    own = "_".join(path).replace("-", "_").upper()
    return [f"{PREFIX}_{own}_{key}", f"{PREFIX}_{key}"]


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"{file} is no YAML ({text})") from None
    if values is not None and not isinstance(values, dict):
        raise UsageError(f"{file} must hold names and values, such as memory_limit: 2GiB")
    return _plain(values or {})


def _plain(values: dict[Any, Any]) -> dict[str, Any]:
    """Write names as flags are called inside: `chunk-windows` is `chunk_windows`."""
    return {
        str(name).replace("-", "_"): _plain(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def _defaults(
    commands: Mapping[CommandPath, Any], values: dict[str, Any], file: Path
) -> dict[str, Any]:
    """Values by command and parameter, as `default_map` wants them."""
    # --cache is a flag, cache a command: what has values below it means a command
    shared = {name: value for name, value in values.items() if not isinstance(value, dict)}
    below = {name: value for name, value in values.items() if isinstance(value, dict)}
    flags = {_key(option) for command in commands.values() for option in _options(command)}
    _refuse_unknown(shared, flags, f"{file}: no command has a flag")
    _refuse_unknown(below, {path[0] for path in commands}, f"{file}: no command is")
    defaults: dict[str, Any] = {}
    for path, command in commands.items():
        *groups, name = path
        own, place = below, defaults
        for group in groups:
            own, place = _mapping(own, group, file), place.setdefault(group, {})
            children = {other[1] for other in commands if other[0] == group}
            _refuse_unknown(own, children, f"{file}: no command of {group} is")
        own = _mapping(own, name, file)
        options = {_key(option): option for option in _options(command)}
        _refuse_unknown(own, options, f"{file}: grandbatch {' '.join(path)} has no flag")
        common = {key: value for key, value in shared.items() if key in options}
        place[name] = {
            options[key].name: _checked(options[key], value, file)
            for key, value in {**common, **own}.items()
            if value is not None
        }
    return defaults


def _mapping(values: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    found = values.get(name) or {}
    if not isinstance(found, dict):
        raise UsageError(f"{file}: {name} is a command; below it stand its flags, got {found!r}")
    return found


def _checked(option: Any, value: Any, file: Path) -> Any:
    if isinstance(value, dict) or (isinstance(value, list) and not option.multiple):
        raise UsageError(f"{file}: {_key(option)} wants one value, got {value!r}")
    return [value] if option.multiple and not isinstance(value, list) else value


def _refuse_unknown(given: Iterable[str], known: Iterable[str], problem: str) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"{problem} called {name!r}{hint}")
