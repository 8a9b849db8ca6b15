"""What a pickle names by its place only, and opens when it is used.

Pickles are also read where the place can't be seen, as by a cluster's scheduler, and there an error
ends far more than one task: nothing may be opened while they are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

Opening = tuple[Callable[..., "Deferred"], tuple[Any, ...]]
"""A function that opens one, and what it is called with."""


class Deferred(ABC):
    """Base of such a class."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Open what came out of a pickle, when something of it is first asked for."""
            opening = self.__dict__.get("_opening")
            if opening is not None and not name.startswith("__"):
                open_, values = opening
                self.__dict__.update(open_(*values).__dict__)
                self.__dict__.pop("_opening", None)
            # another thread may have opened it just now
            if name in self.__dict__:
                return self.__dict__[name]
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        opening = self.__dict__.get("_opening")
        if opening is None:
            return _deferred, (type(self), *self._deferral())
        known = {name: value for name, value in self.__dict__.items() if name != "_opening"}
        return _deferred, (type(self), known, opening)

    @abstractmethod
    def _deferral(self) -> tuple[dict[str, Any], Opening]:
        """Return the attributes that are known before it is opened, and what opens it."""


def _deferred(kind: type[Deferred], known: dict[str, Any], opening: Opening) -> Deferred:
    made = kind.__new__(kind)
    made.__dict__.update(known, _opening=opening)
    return made
