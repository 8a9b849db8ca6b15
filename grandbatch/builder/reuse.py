"""Whether the store asked for is there already, or one that its inputs only extend.

Reads no bar; imports neither Dask nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grandbatch.bars import BarRules, Inputs
from grandbatch.bars.cache.bars import Bars, open_bars
from grandbatch.bars.cache.manifest import bars_fingerprint
from grandbatch.bars.inputs.digests import (
    describe_source,
    digest_of,
    input_digests,
    known_digests,
    prefix_digest,
)
from grandbatch.bars.inputs.files import InputFile, resolve_inputs
from grandbatch.builder.differences import difference
from grandbatch.builder.settings import StoreSettings
from grandbatch.errors import DamagedStoreError, StoreMismatchError
from grandbatch.features.inputs import BAR_INPUTS, require_inputs
from grandbatch.files.locations import is_occupied, is_remote, location_of, reaching
from grandbatch.files.refusals import refuse_inside_store, refuse_planted, refuse_url
from grandbatch.files.verbs import is_in_objects, objects_of
from grandbatch.store.format import MANIFEST_NAME
from grandbatch.store.publish import beside, has_leftovers
from grandbatch.store.reader import MatrixStore
from grandbatch.store.upload import LOCK_MARK, has_mark


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

        The cache of bars lies beside the store by default, in an object store, too; in the current
        folder where the store is to be at another URL.

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
        refuse_url(cache, "the bars cache (--cache)", but=is_in_objects)
        store = location_of(path)
        cache_folder = location_of(cache) if cache else beside(store) / "bars"
        if not is_remote(cache_folder):
            refuse_inside_store(cache_folder, "the bars cache (--cache)")
        if not is_remote(store):
            refuse_inside_store(store.parent, "a store")
            refuse_planted(beside(store))
        refuse_planted(cache_folder)
        return cls(inputs, store, settings, rules, cache_folder)

    @property
    def is_far(self) -> bool:
        """Whether tasks that write it wait for an object store."""
        return is_remote(self.cache) or is_in_objects(self.path)

    def bars_fingerprint(self) -> str:
        """Fingerprint of the bars, from the inputs' digests; known inputs are not read."""
        return bars_fingerprint(input_digests(self.inputs, self.cache, self.rules), self.rules)


def is_free(path: Path) -> bool:
    """Whether nothing stands at a path yet, or only what was never finished, at a URL.

    Raises
    ------
    StoreMismatchError
        If what stands there is no store.
    """
    if is_in_objects(path):
        with reaching(path):
            folders, found = objects_of(path).children()
            names = {one.name for one in found}
            if MANIFEST_NAME in names:
                return False
            if not (folders or names) or LOCK_MARK in names or has_leftovers(path):
                return True
    elif not is_occupied(path) or (is_remote(path) and has_mark(path)):
        return True
    if is_in_objects(path) or not (path / MANIFEST_NAME).exists():
        raise StoreMismatchError(
            f"{path} exists and is no grandbatch store; it is left as it is: choose another path"
        )
    return False


@dataclass(frozen=True, eq=False)
class Extension:
    """A store whose inputs are among those of a request, all settings being equal.

    Parameters
    ----------
    store : MatrixStore
        As it stands, without the new bars.
    bars : Bars or None
        Those that it was built from; None where their cache isn't there any more.
    grown : tuple of InputFile
        Those of its inputs that bytes were added to.
    """

    store: MatrixStore
    bars: Bars | None
    grown: tuple[InputFile, ...]

    @property
    def before(self) -> tuple[Bars, Mapping[str, Any]] | None:
        """The store's bars, and what it says of them."""
        return None if self.bars is None else (self.bars, self.store.attrs)


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found out about the place of a request: at most one of the two.

    Parameters
    ----------
    store : MatrixStore or None
        The store asked for, which is there already.
    extension : Extension or None
        The store there, whose inputs those of the request extend, or replace.
    """

    store: MatrixStore | None = None
    extension: Extension | None = None


def survey(request: Request, *, overwrite: bool = False) -> Survey:
    """Look at what stands at a request's path.

    Returns
    -------
    Survey
        Empty where nothing stands there, or an upload that is not finished; and where `overwrite`
        allows to replace what does: a store of other settings, or this one if it is damaged. One of
        other inputs is replaced as one that they extend. At a URL of no object store none is.

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
    extension = _extension_of(store, request) if _can_grow(path) else None
    if extension is not None:
        return Survey(extension=extension)
    bars = request.bars_fingerprint()
    if store.fingerprint == request.settings.fingerprint(bars):
        # whoever asks to overwrite the very store that stands there wants a damaged one mended
        return Survey(store) if not overwrite or store.verify().ok else Survey()
    if overwrite:
        return Survey(extension=_replaced(store, request))
    inputs = input_digests(request.inputs, request.cache, request.rules)
    other = difference(store, request.settings, inputs, request.rules, request.cache)
    raise StoreMismatchError(
        f"{path} was built with other {other}; "
        "use --overwrite (in Python build_store(…, overwrite=True)) to replace it, or choose "
        "another path"
    )


def _can_grow(path: Path) -> bool:
    return is_in_objects(path) or not is_remote(path)


def _replaced(store: MatrixStore, request: Request) -> Extension | None:
    """Return the store as an extension by any inputs, if all settings are equal."""
    fingerprint = bars_fingerprint(store.attrs["source"], request.rules)
    is_same = request.settings.fingerprint(fingerprint) == store.fingerprint
    if not (is_same and _can_grow(request.path)):
        return None
    return Extension(store, open_bars(request.cache / fingerprint), ())


def _extension_of(store: MatrixStore, request: Request) -> Extension | None:
    """Return the store as an extension if the request's inputs extend its own.

    They do if these are among them, in the same order; some may have grown at their ends.
    """
    source, files = store.attrs["source"], resolve_inputs(request.inputs)
    fingerprint = bars_fingerprint(source, request.rules)
    if request.settings.fingerprint(fingerprint) != store.fingerprint:
        return None
    # names and sizes first: they cost no reading
    places = _places(source, files, request, by_content=False)
    if places is None or (len(source) == len(files) and not _grown(source, files, places)):
        return None
    known_digests(files, request.cache)  # all at once, where each is a request
    places = _places(source, files, request, by_content=True)
    if places is None:
        return None
    bars = open_bars(request.cache / fingerprint)
    return Extension(store, bars, _grown(source, files, places))


def _grown(
    source: Sequence[Mapping[str, Any]], files: Sequence[InputFile], places: Sequence[int]
) -> tuple[InputFile, ...]:
    return tuple(
        files[place]
        for entry, place in zip(source, places, strict=True)
        if files[place].size > entry["bytes"]
    )


def _places(
    source: Sequence[Mapping[str, Any]],
    files: Sequence[InputFile],
    request: Request,
    *,
    by_content: bool,
) -> list[int] | None:
    """Find a store's inputs among files, in the same order: whole, or at a file's beginning."""
    places = []
    place = 0
    for entry in source:
        while place < len(files) and not _begins_with(files[place], entry, request, by_content):
            place += 1
        if place == len(files):
            return None
        places.append(place)
        place += 1
    return places


def _begins_with(
    file: InputFile, entry: Mapping[str, Any], request: Request, by_content: bool
) -> bool:
    n_bytes = int(entry["bytes"])
    if file.name != entry["name"] or file.size < n_bytes:
        return False
    described = {**describe_source(file, entry["digest"], request.rules), "bytes": n_bytes}
    if described != entry:
        return False
    if not by_content:
        return True
    if file.size > n_bytes:
        return bool(prefix_digest(file, n_bytes) == entry["digest"])
    return bool(digest_of(file, request.cache) == entry["digest"])
