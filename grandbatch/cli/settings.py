"""Settings that are no flags: `GRANDBATCH_*` variables, then YAML files, then the defaults.

Files are the one that `--config` names, or `grandbatch.yaml` of the working folder, and then the
user's own, in the home. Nobody chose the one of the working folder: it may have come with the data,
so what reaches other machines or runs code is not taken from it.

A setting has the name of its flag. It may be given for one command (`GRANDBATCH_BUILD_LAYOUT`, or
`layout` below `build` in the file), or for every command that has the flag (`GRANDBATCH_LAYOUT`,
or `layout` at the top); the first goes before the second.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from grandbatch.errors import UsageError
from grandbatch.files.locations import URL
from grandbatch.values.texts import one_line

FILE = "grandbatch.yaml"
PREFIX = "GRANDBATCH"
FILE_VARIABLE = f"{PREFIX}_CONFIG"

CommandPath = tuple[str, ...]

FILES, _SOURCES = "grandbatch.files", "grandbatch.sources"
"""Where a context keeps the files that were taken, and what came from which."""

_CODE = re.compile(r"[\w./\\~ -]+:[A-Za-z_]\w*")
"""``module:NAME`` or ``path.py:NAME``."""


@dataclass(frozen=True)
class Setting:
    """A setting in force for a command where no flag says otherwise, and where it comes from."""

    command: str
    flag: str
    value: Any
    source: str


def find_files(chosen: Path | None) -> list[tuple[Path, bool]]:
    """Return the files of settings, the weaker first, each with whether the user chose it.

    Raises
    ------
    UsageError
        If the chosen one isn't there.
    """
    files = [(file, True) for file in _home_files() if file.is_file()][:1]
    if chosen is not None:
        if not chosen.is_file():
            raise UsageError(
                f"there is no file of settings {chosen} (named here or in ${FILE_VARIABLE})"
            )
        return [*files, (chosen, True)]
    found = Path(FILE)
    if found.is_file() and not any(found.samefile(file) for file, _ in files):
        files.append((found, False))
    return files


def _home_files() -> list[Path]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (Path.home raises where there is none)
    config = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    return [Path(config) / "grandbatch" / FILE, home / FILE] if home.is_absolute() else []


def adopt(command: Any, path: CommandPath) -> None:
    """Give a command, or all below it, their variables."""
    for below, one in _commands(command, path):
        for option in _options(one):
            option.envvar = _variables(below, option)
            # one line in the help says it for all
            option.show_envvar = False


def take_files(context: Any, chosen: Path | None) -> None:
    """Give the command of a context the values of all files as defaults.

    Raises
    ------
    UsageError
        If a file is no YAML mapping, names what no command has, or sets what it may not.
    """
    root = context.find_root()
    files = find_files(chosen)
    commands = dict(_commands(root.command)) if files else {}
    values: dict[str, Any] = {}
    sources: dict[tuple[CommandPath, str], str] = {}
    for file, is_chosen in files:
        of_file = _defaults(commands, _read(file), file)
        for path in commands:
            below = _below(of_file, path)
            for name, value in below.items():
                if not is_chosen:
                    _refuse_outward(name, value, file)
                _below(values, path)[name] = value
                sources[path, name] = str(file)
    root.default_map, root.meta[_SOURCES] = values, sources
    root.meta[FILES] = [file for file, _ in files]
    names: list[str] = []
    below = context
    while below is not root:
        names.insert(0, below.info_name)
        below = below.parent
    context.default_map = _below(values, tuple(names))


def _below(values: dict[str, Any], path: CommandPath) -> dict[str, Any]:
    for name in path:
        values = values.setdefault(name, {})
    return values


def _refuse_outward(name: str, value: Any, file: Path) -> None:
    """Refuse what reaches other machines, or names code to import."""
    for one in value if isinstance(value, list) else [value]:
        text = str(one)
        reaches = URL.match(text) or "://" in text
        reaches = reaches or (name == "scheduler" and text not in ("threads", "sync"))
        if reaches or _CODE.fullmatch(text):
            what = "reaches other machines" if reaches else "names code to run"
            raise UsageError(
                f"{file} sets {name} to {_without_secrets(text)}, which {what}: a file that is "
                f"only found in the working folder may not; name it by "
                f"--config {shlex.quote(str(file))}, keep it as "
                f"{_home_files()[0] if _home_files() else FILE}, or give the flag"
            )


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)


def settings(context: Any) -> list[Setting]:
    """Return the settings of all commands of a context whose files were taken."""
    found = []
    sources = context.meta.get(_SOURCES, {})
    for path, command in _commands(context.command):
        below: Any = context.default_map or {}
        for name in path:
            below = below.get(name, {})
        for option in _options(command):
            value, source = option.default, "default"
            if option.name in below:
                value, source = below[option.name], sources[path, option.name]
            for variable in reversed(option.envvar):
                if os.environ.get(variable):
                    value, source = os.environ[variable], f"${variable}"
            found.append(Setting(" ".join(path), _flag(option), value, source))
    return found


def _commands(command: Any, path: CommandPath = ()) -> Iterator[tuple[CommandPath, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from _commands(below, (*path, name))


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

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # a lazy import: no types
        """Takes values as they are written, as flags do: a symbol NO is no False, 0700 no 448."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
            first: [(tag, form) for tag, form in forms if tag == "tag:yaml.org,2002:null"]
            for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [str(key.value).replace("-", "_") for key, _ in node.value]
            if len(set(names)) < len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise yaml.YAMLError(f"it sets {twice} twice")
            return dict(super().construct_mapping(node, deep))

    text = file.read_bytes()
    try:
        has_alias = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        values = None if has_alias else yaml.load(text, Loader)  # noqa: S506 (a SafeLoader)
    except RecursionError:
        raise UsageError(f"{file} is nested too deeply; it holds names and values") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{file} is no YAML of settings ({one_line(error)})") from None
    if has_alias:  # a few aliases of aliases are a text of any size
        raise UsageError(f"{file} has an alias (*name); write out what it stands for")
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
