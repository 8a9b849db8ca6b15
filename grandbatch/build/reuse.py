"""Whether the store asked for is there already. Reads no bar; imports neither Dask nor torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grandbatch.bars.cache import bars_fingerprint
from grandbatch.bars.inputs import input_digests
from grandbatch.bars.rules import BarRules
from grandbatch.build.settings import StoreSettings
from grandbatch.errors import DamagedStoreError, StoreMismatchError, StoreNotFoundError
from grandbatch.store.publish import beside
from grandbatch.store.reader import MatrixStore

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Target:
    """A store that is asked for: from which inputs, by which rules and settings, and where."""

    inputs: Inputs
    path: Path
    settings: StoreSettings
    rules: BarRules
    cache: Path

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        path: str | os.PathLike[str],
        settings: StoreSettings,
        rules: BarRules,
        cache: str | os.PathLike[str] | None = None,
    ) -> Target:
        """Make the paths absolute; the cache of bars lies beside the store by default."""
        store = Path(path).absolute()
        return cls(
            inputs,
            store,
            settings,
            rules,
            Path(cache).absolute() if cache else beside(store) / "bars",
        )

    def bars_fingerprint(self) -> str:
        """Fingerprint of the bars, from the inputs' digests; known inputs are not read."""
        return bars_fingerprint(input_digests(self.inputs, self.cache), self.rules)


def find_store(target: Target, *, overwrite: bool = False) -> MatrixStore | None:
    """Return the store asked for if it is there.

    Returns
    -------
    MatrixStore or None
        None where nothing stands at the path, or where `overwrite` allows to replace it.

    Raises
    ------
    StoreMismatchError
        If another store, or something else, stands there and `overwrite` does not allow to
        replace it. What is no store is never replaced.
    """
    path = target.path
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    try:
        store = MatrixStore.open(path)
    except StoreNotFoundError:
        raise StoreMismatchError(
            f"{path} exists and is no grandbatch store; it is left as it is: choose another path"
        ) from None
    except (DamagedStoreError, StoreMismatchError):
        if overwrite:
            return None
        raise
    bars = target.bars_fingerprint()
    if store.fingerprint == target.settings.fingerprint(bars):
        return store
    if overwrite:
        return None
    raise StoreMismatchError(
        f"{path} was built with other {_difference(store, target)}; "
        "use --overwrite to replace it, or choose another path"
    )


def _difference(store: MatrixStore, target: Target) -> str:
    """Name what sets a store apart from the one asked for."""
    settings = target.settings
    spec = settings.spec(n_windows=0, block_rows=0)
    wanted = {
        "feature_set": settings.feature_set.name,
        "sequence_length": settings.feature_set.sequence_length,
        "overlap": settings.feature_set.overlap,
        "chunk_windows": settings.chunk_windows,
        "layout": spec.layout,
        "codec": spec.codec,
        "max_gap_ns": settings.max_gap_ns,
    }
    different = [
        f"{name} ({store.attrs.get(name)}, now {value})"
        for name, value in wanted.items()
        if store.attrs.get(name) != value
    ]
    return ", ".join(different) or "inputs, bar rules or feature versions"
