"""Whether the store asked for is there already, or one that its inputs only extend.

Reads no bar; imports neither Dask nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grandbatch.bars.cache.manifest import bars_fingerprint
from grandbatch.bars.inputs.files import (
    InputFile,
    describe_source,
    digest_of,
    input_digests,
    prefix_digest,
    resolve_inputs,
)
from grandbatch.bars.rules import BarRules
from grandbatch.builder.settings import StoreSettings
from grandbatch.errors import DamagedStoreError, StoreMismatchError
from grandbatch.features.inputs import BAR_INPUTS, require_inputs
from grandbatch.files.locations import is_occupied, is_remote, location_of
from grandbatch.files.refusals import refuse_inside_store, refuse_planted, refuse_url
from grandbatch.store.format import MANIFEST_NAME, NEXT_RETURN_VERSION
from grandbatch.store.publish import beside
from grandbatch.store.reader import MatrixStore
from grandbatch.store.upload import has_mark

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Request:
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
    ) -> Request:
        """Make the paths absolute, and see that kernels read only what the bars will have.

        The cache of bars lies beside the store by default; in the current folder where the store
        is to be at a URL.

        Raises
        ------
        ColumnError
            If a feature or a target reads a column that the rules don't name.
        UsageError
            If a path is one that nothing must be written to.
        """
        known = *BAR_INPUTS, *rules.extra
        require_inputs(settings.feature_set.features, known)
        require_inputs(settings.targets, known, kind="target")
        refuse_url(cache, "the bars cache (--cache)")
        store = location_of(path)
        cache_folder = Path(cache).absolute() if cache else beside(store) / "bars"
        refuse_inside_store(cache_folder, "the bars cache (--cache)")
        if not is_remote(store):
            refuse_inside_store(store.parent, "a store")
            refuse_planted(beside(store))
        refuse_planted(cache_folder)
        return cls(inputs, store, settings, rules, cache_folder)

    def bars_fingerprint(self) -> str:
        """Fingerprint of the bars, from the inputs' digests; known inputs are not read."""
        return bars_fingerprint(input_digests(self.inputs, self.cache, self.rules), self.rules)


def is_free(path: Path) -> bool:
    """Whether nothing stands at a path yet, or only an upload that is not finished.

    Raises
    ------
    StoreMismatchError
        If what stands there is no store.
    """
    if not is_occupied(path) or (is_remote(path) and has_mark(path)):
        return True
    if not (path / MANIFEST_NAME).exists():
        raise StoreMismatchError(
            f"{path} exists and is no grandbatch store; it is left as it is: choose another path"
        )
    return False


@dataclass(frozen=True, eq=False)
class Extension:
    """A store whose inputs those of a request begin with, all settings being equal.

    Parameters
    ----------
    store : MatrixStore
        As it stands, without the new bars.
    grown : InputFile or None
        The last of its inputs, where bytes were added to it.
    old_bytes : int
        How long that one was.
    """

    store: MatrixStore
    grown: InputFile | None
    old_bytes: int


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found out about the place of a request: at most one of the two.

    Parameters
    ----------
    store : MatrixStore or None
        The store asked for, which is there already.
    extension : Extension or None
        The store there, whose inputs those of the request extend.
    """

    store: MatrixStore | None = None
    extension: Extension | None = None


def survey(request: Request, *, overwrite: bool = False) -> Survey:
    """Look at what stands at a request's path.

    Returns
    -------
    Survey
        Empty where nothing stands there, or an upload that is not finished; and where `overwrite`
        allows to replace what does: another store, this one if it is damaged, or one that could be
        extended. None at a URL is ever extended.

    Raises
    ------
    StoreMismatchError
        If another store, or something else, stands there and `overwrite` does not allow to
        replace it. What is no store is never replaced.
    """
    path = request.path
    if is_free(path):
        return Survey()
    try:
        store = MatrixStore.open(path)
    except (DamagedStoreError, StoreMismatchError):
        if overwrite:
            return Survey()
        raise
    extension = None if is_remote(path) else _extension_of(store, request)
    if extension is not None:
        return Survey() if overwrite else Survey(extension=extension)
    bars = request.bars_fingerprint()
    if store.fingerprint == request.settings.fingerprint(bars):
        # whoever asks to overwrite the very store that stands there wants a damaged one mended
        return Survey(store) if not overwrite or store.verify().ok else Survey()
    if overwrite:
        return Survey()
    raise StoreMismatchError(
        f"{path} was built with other {_difference(store, request)}; "
        "use --overwrite (in Python build_store(…, overwrite=True)) to replace it, or choose "
        "another path"
    )


def _extension_of(store: MatrixStore, request: Request) -> Extension | None:
    """Return the store as an extension if the request's inputs extend its own.

    They do if they begin with the same files, of which the last may have grown at its end.
    """
    source, files = store.attrs["source"], resolve_inputs(request.inputs)
    n, old_bytes = len(source), int(source[-1]["bytes"]) if source else 0
    if not 0 < n <= len(files) or files[n - 1].size < old_bytes:
        return None
    same, last = files[: n - 1], files[n - 1]
    has_grown = last.size > old_bytes
    if len(files) == n and not has_grown:
        return None
    sizes = [*(file.size for file in same), old_bytes]
    seen = [
        {**describe_source(file, entry["digest"], request.rules), "bytes": size}
        for file, size, entry in zip(files, sizes, source, strict=False)
    ]
    if seen != source:
        return None
    if request.settings.fingerprint(bars_fingerprint(source, request.rules)) != store.fingerprint:
        return None
    digests = [digest_of(file, request.cache) for file in same]
    digests.append(prefix_digest(last, old_bytes) if has_grown else digest_of(last, request.cache))
    if digests != [entry["digest"] for entry in source]:
        return None
    return Extension(store, last if has_grown else None, old_bytes)


def _difference(store: MatrixStore, request: Request) -> str:
    """Name what sets a store apart from the one asked for."""
    settings = request.settings
    spec = settings.spec(n_windows=0, block_rows=0)
    wanted = {
        "feature_set": settings.feature_set.name,
        "sequence_length": settings.feature_set.sequence_length,
        "overlap": settings.feature_set.overlap,
        "chunk_windows": settings.chunk_windows,
        "layout": spec.layout,
        "codec": spec.codec,
        "max_gap_ns": settings.max_gap_ns,
        "order": settings.order,
        "period": settings.period,
        "next_return_version": NEXT_RETURN_VERSION,
        "zone_database": settings.feature_set.zone_database,
        "target_names": [target.name for target in settings.targets] or None,
        "target_versions": [target.version for target in settings.targets] or None,
    }
    found = {"order": "symbol", **store.attrs}
    different = [
        f"{name} ({found.get(name)}, now {value})"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    return ", ".join(different) or "inputs, bar rules, or versions of features or targets"
