"""What a name means: a set that is built in, or an object in a module of the user's own.

Nothing is imported but the module that the name names, and what that imports itself.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from grandbatch.errors import UsageError
from grandbatch.features.built_in import BUILT_IN
from grandbatch.features.sets import Feature, FeatureSet
from grandbatch.features.trial import Checkable

_FORMS = "module:NAME or path.py:NAME"


def resolve_feature_set(name_or_set: str | FeatureSet) -> FeatureSet:
    """Return a set as it is, or the one that a name means.

    Parameters
    ----------
    name_or_set : str or FeatureSet
        A set; the name of a built-in one; or `module:NAME` or `path.py:NAME`, imported from the
        working directory as Python would.

    Raises
    ------
    UsageError
        If the name means no set.
    """
    found = name_or_set if isinstance(name_or_set, FeatureSet) else _named(name_or_set)
    if not isinstance(found, FeatureSet):
        raise UsageError(
            f"{name_or_set} must be a FeatureSet, got {type(found).__name__}"
            f"{_sets_beside(str(name_or_set))}"
        )
    return found


def resolve_features(
    name_or_value: str | Feature | FeatureSet,
) -> Feature | FeatureSet:
    """Return a feature or a set as it is, or what a name means, which may be either.

    Raises
    ------
    UsageError
        If the name means neither.
    """
    if isinstance(name_or_value, Feature):
        return name_or_value
    if isinstance(name_or_value, str):
        found = _named(name_or_value)
        if isinstance(found, Feature):
            return found
    return resolve_feature_set(name_or_value)


def resolve_checkable(name_or_value: object) -> list[Checkable]:
    """Return what has kernels to check, of a value or of what a name means.

    Parameters
    ----------
    name_or_value : Feature, Target, FeatureSet, sequence of them, or str
        A name is that of a built-in set, `module:NAME`, or `path.py:NAME`.

    Raises
    ------
    UsageError
        If there is nothing to check in it.
    """
    value = _named(name_or_value) if isinstance(name_or_value, str) else name_or_value
    several: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, FeatureSet):
        several = value.features
    found = [one for one in several if isinstance(one, Checkable) and not isinstance(one, type)]
    if found and len(found) == len(several):
        return found
    meant = f", which is a {type(value).__name__}" if isinstance(name_or_value, str) else ""
    raise UsageError(
        f"a feature, a target, a set or a list of them can be checked, got {name_or_value!r}{meant}"
    )


def _named(name: object) -> Any:
    """Return the built-in set of a name, or the object in a module."""
    if isinstance(name, str) and name in BUILT_IN:
        return BUILT_IN[name]
    if not isinstance(name, str) or ":" not in name:
        close = difflib.get_close_matches(str(name), BUILT_IN, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(
            f"unknown feature set {name!r}{meant}; choose {' or '.join(BUILT_IN)}, or name one of "
            f"your own: {_FORMS} (in Python also the FeatureSet itself)"
        )
    return load_named(name, "feature set", _sets_beside)


def load_named(name: str, kind: str, beside: Callable[[str], str] = lambda name: "") -> Any:
    """Return the object of a module that `module:NAME` or `path.py:NAME` names.

    Parameters
    ----------
    name : str
    kind : str
        What it is to be, for messages.
    beside : callable
        Says what else there is in the module of a name that has no such object.

    Raises
    ------
    UsageError
        If there is no such module, it can't be imported, or has no such object.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UsageError(f"a {kind} of your own is named {_FORMS}, got {name!r}")
    module = _module(place)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UsageError(f"{place} has no {attribute}{beside(name)}") from None


def _sets_beside(name: str) -> str:
    """Say which sets there are in the module of a name."""
    place, _, _ = name.rpartition(":")
    values = vars(_module(place)) if place else {}
    sets = [key for key, value in values.items() if isinstance(value, FeatureSet)]
    return f"; its feature sets are {', '.join(sets)}" if sets else "; it has no feature set"


def _module(place: str) -> ModuleType:
    """Import a module by its name or its file, or return it where that was done before.

    Raises
    ------
    UsageError
        If it isn't there, can't be imported, or has the name of another that is in use.
    """
    path = Path(place)
    if path.suffix == ".py":
        if not path.is_file():
            raise UsageError(f"{place}: there is no such file in {Path.cwd()}")
        name, folder = path.stem, path.resolve().parent
        if "." in name:
            raise UsageError(f"{place}: a module's name has no dot in it; rename the file")
    else:
        name, folder = place, Path.cwd()
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"{place!r} is no module; what is your own is named {_FORMS}")
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, [str(folder)])
    if spec is not None:
        _refuse_taken(top, spec)
    if str(folder) not in sys.path:
        # what it imports from beside itself, and what worker processes look for; last, so that no
        # file there stands in for a library's module
        sys.path.append(str(folder))
    try:
        if spec is not None and top not in sys.modules:
            _load(top, spec)
        return import_module(name)
    except Exception as error:
        raise UsageError(
            f"{place} can't be imported: {type(error).__name__}: {error}{_line_of(error, folder)}"
        ) from error


def _refuse_taken(name: str, spec: ModuleSpec) -> None:
    """Raise where another module has the name already, or Python's own library claims it."""
    loaded = sys.modules.get(name)
    other = None if loaded is None else getattr(loaded, "__file__", None) or "a built-in module"
    is_own = loaded is not None and getattr(loaded.__spec__, "origin", None) == spec.origin
    if not is_own and (other is not None or name in sys.stdlib_module_names):
        raise UsageError(
            f"{spec.origin or name} has the name of another module, "
            f"{other or 'of the standard library'}; rename it"
        )


def _load(name: str, spec: ModuleSpec) -> None:
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _line_of(error: Exception, folder: Path) -> str:
    """Name the last line of the user's own files that an error went through."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(folder):
            found = f" (line {trace.tb_lineno} of {file.name})"
        trace = trace.tb_next
    return found
