"""Build stores: plan, admit, write, publish.

`settings.py` and `plan.py` hold values, `reuse.py` finds a store that is there already, `chunks.py`
is the work of one task, `engines.py` how features reach it, `builder.py` the whole way. Importing
this imports no Dask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grandbatch.build.api import build_store

__all__ = ["build_store"]


def __getattr__(name: str) -> Any:
    # Dask takes half a second to import, and a store is found and reused without it
    if name == "build_store":
        from grandbatch.build.api import build_store

        return build_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
