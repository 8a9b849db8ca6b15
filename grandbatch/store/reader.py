"""`MatrixStore`: a finished store, read with every promise checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import StoreChangedError
from grandbatch.files.deferred import Deferred, Opening
from grandbatch.files.kept_files import HELD_BYTES, KeptFolder
from grandbatch.files.locations import is_remote, location_of
from grandbatch.files.refusals import refuse_url
from grandbatch.files.verbs import begun
from grandbatch.scheduling import Schedule
from grandbatch.store.format import StoreSpec
from grandbatch.store.identity import Identity, KeptStore, LastLook
from grandbatch.store.manifest import Manifest
from grandbatch.store.metadata import describe, spec_of
from grandbatch.store.reading import (
    SMALL_BYTES,
    ArrayReader,
    OpenFiles,
    ReadAhead,
    read_rows_together,
)
from grandbatch.store.slices import Labels, Matrices, WindowValues
from grandbatch.store.verification import Verification, verify_store
from grandbatch.values.checks import parse_bytes

CACHE_BYTES = "20GiB"
"""What is kept of stores at URLs, where nothing else is said."""


class MatrixStore(Deferred):
    """A finished store of matrices, opened for reading.

    Made by `MatrixStore.open` or `build_store`. Every read is checked against the manifest. It
    may be used from many threads, and pickled (the copy opens the same store when it is used).

    Attributes
    ----------
    path : Path
    attrs : dict
        The group attributes under `grandbatch`.
    end_time, symbol, close_price, next_return, first_row
        Per-window values, (N,), read where they are sliced: ``store.end_time[i:j]``. Times are
        int64, ns since 1970 UTC; `symbol` is int32, an index into `symbols`; prices and returns
        are float64.
    targets
        Targets, (N, K) float32, read where they are sliced; None where the store has none.
    n_windows, n_chunks, chunk_windows, sequence_length, overlap, stride, n_features : int
    layout : {"windows", "rows"}

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> store = gb.MatrixStore.open("bars.zarr")
    >>> store.matrices[:2].shape, store.end_time[:2].dtype
    ((2, 48, 13), dtype('int64'))
    >>> store.verify().ok
    True
    """

    def __init__(
        self,
        path: Path,
        attrs: dict[str, Any],
        manifest: Manifest,
        identity: Identity,
        kept: KeptFolder | None = None,
        looked: LastLook | None = None,
    ):
        self.path = path
        self.attrs = attrs
        self._manifest = manifest
        self._identity = identity
        self._spec = spec_of(attrs)
        most = {
            "symbol": len(attrs["symbols"]) - 1,
            "first_row": attrs["n_rows"] - self._spec.sequence_length,
            "start": self._spec.block_rows - self._spec.sequence_length,
        }
        self._kept = KeptStore(kept, manifest.digest()) if kept and is_remote(path) else None
        looked = looked or LastLook()
        self._readers = {
            spec.name: ArrayReader(
                path,
                identity,
                spec,
                manifest.arrays[spec.name],
                most.get(spec.name),
                self._kept,
                looked,
            )
            for spec in self._spec.arrays
        }

    @classmethod
    def open(
        cls,
        path: str | Path,
        cache: str | Path | None = None,
        cache_bytes: str | int = CACHE_BYTES,
    ) -> MatrixStore:
        """Open a finished store.

        Parameters
        ----------
        path : str or Path
            A folder, or a URL.
        cache : str or Path, optional
            A folder on a local disk where files of a store at a URL are kept, for later epochs and
            for all processes of this machine. By default each chunk is asked for when it is read.
        cache_bytes : str or int
            How many bytes of it: what doesn't fit is read from the store each time.

        Raises
        ------
        StoreNotFoundError
            If there is none, or it was never finished.
        StoreMismatchError
            If it is of another format.
        DamagedStoreError
            If its metadata is not what was written.
        StoreChangedError
            If it was replaced by another store meanwhile, more than once.
        """
        folder = location_of(path)
        kept = None
        if cache is not None and is_remote(folder):
            refuse_url(cache, "the cache of a store (--store-cache)")
            kept = KeptFolder(Path(cache).absolute(), parse_bytes(cache_bytes))
        found = describe(folder)
        return cls(folder, found.attrs, found.manifest, found.identity, kept, found.looked)

    def _deferral(self) -> tuple[dict[str, Any], Opening]:
        kept = None if self._kept is None else self._kept.folder
        return {"path": self.path}, (_reopen, (self.path, self.fingerprint, kept))

    def __len__(self) -> int:
        return self._spec.n_windows

    def __repr__(self) -> str:
        return (
            f"<MatrixStore {self.path} {self.attrs['feature_set']}: {len(self)} windows of "
            f"{self.sequence_length}x{self.n_features}, layout {self.layout}>"
        )

    @property
    def spec(self) -> StoreSpec:
        """The sizes of the arrays."""
        return self._spec

    @property
    def fingerprint(self) -> str:
        """sha256 over everything that determines the store's bytes."""
        return str(self.attrs["fingerprint"])

    @property
    def content_id(self) -> str:
        """The fingerprint without layout, codec and sharding: equal where the windows are."""
        return str(self.attrs["content_id"])

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names that `symbol` indexes."""
        return tuple(self.attrs["symbols"])

    n_windows = property(lambda self: self._spec.n_windows)
    n_chunks = property(lambda self: self._spec.n_chunks)
    chunk_windows = property(lambda self: self._spec.chunk_windows)
    sequence_length = property(lambda self: self._spec.sequence_length)
    overlap = property(lambda self: self._spec.overlap)
    stride = property(lambda self: self._spec.stride)
    n_features = property(lambda self: self._spec.n_features)
    layout = property(lambda self: self._spec.layout)
    block_rows = property(lambda self: self._spec.block_rows)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(self.attrs["feature_names"])

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order; none where the store has none."""
        return tuple(self.attrs.get("target_names", ()))

    @property
    def targets(self) -> WindowValues | None:
        """Targets at each window's last bar, (N, K) float32, NaN where unknown; None without."""
        return WindowValues(self._readers["targets"]) if self.target_names else None

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a decoded chunk: (chunk_windows, L, F), or (R, F) in layout `rows`."""
        shape = self._spec.data.chunk_shape
        return shape if self.layout == "windows" else shape[1:]

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """First window of a chunk, and the one after its last."""
        first = chunk * self._spec.chunk_windows
        return first, min(first + self._spec.chunk_windows, len(self))

    def read_chunk(
        self,
        chunk: int,
        out: npt.NDArray[np.float32] | None = None,
        files: OpenFiles | None = None,
        runs: tuple[int, ...] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Decode a chunk, straight into `out` where given.

        Parameters
        ----------
        chunk : int
        out : float32 array of `chunk_shape`, C-contiguous, optional
        files : OpenFiles, optional
            Files to keep open, where more chunks follow in the same thread.
        runs : tuple of int, optional
            Of overlapping windows in layout `windows`: how many follow each other by `stride` rows,
            again and again. `out`, (R, F), then gets the rows that they were cut from, each once.

        Returns
        -------
        float32 array of `chunk_shape`
            Beyond the last window (or the last row of a block) it is NaN.

        Raises
        ------
        DamagedStoreError
        StoreChangedError
        """
        if out is None:
            out = np.empty(self.chunk_shape, np.float32)
        data = self._readers[self._spec.data.name]
        if runs is None:
            data.read(chunk, out, files)
        else:
            data.read_rows(chunk, runs, self.stride, out, files)
        return out

    @cached_property
    def reads_together(self) -> bool:
        """Whether `read_chunks` takes chunks: such as are small and near."""
        digests = self._readers[self._spec.data.name].digests
        return self.is_near and bool(digests.length.max() <= SMALL_BYTES)

    def read_chunks(
        self,
        chunks: Sequence[int],
        out: npt.NDArray[np.float32],
        slots: Sequence[int],
        files: OpenFiles,
        runs: Sequence[tuple[int, ...]] | None = None,
    ) -> bool:
        """Decode several small chunks at once, as `read_chunk` does one by one.

        Chunk i, of ascending ones, goes into `out[slots[i]]`; `out` is (S, R, F). Tells whether all
        did. If not, `read_chunk` tells what is wrong with which, if anything is: large chunks, and
        such as are requests, are only read one by one.
        """
        if not self.reads_together:
            return False
        data = self._readers[self._spec.data.name]
        return read_rows_together(data, chunks, out, slots, files, runs, self.stride)

    @cached_property
    def is_near(self) -> bool:
        """Whether chunks are on a disk of this machine, or will be once they were read."""
        if self._kept is None:
            return not is_remote(self.path)
        return self._files_bytes <= self._kept.folder.max_bytes

    @cached_property
    def _files_bytes(self) -> int:
        readers = self._readers.values()
        return sum(of.file_bytes(n) for of in readers for n in range(of.spec.n_files))

    def coming_bytes(self, *, labels: bool) -> int:
        """Bytes held at most of chunks, and labels, on their way; none where it is on a disk."""
        fetched = 0 if self._kept is None else min(HELD_BYTES, 2 * self._files_bytes)
        return fetched if self.is_near else fetched + self.ahead.most_bytes(labels=labels)

    @cached_property
    def ahead(self) -> ReadAhead:
        """What reads chunks ahead, many at once, where each would be a request."""
        labels = [self._readers[spec.name] for spec in self._spec.labels]
        return ReadAhead(self._readers[self._spec.data.name], labels)

    def check_unchanged(self) -> None:
        """Raise StoreChangedError where another store is at the path, or none."""
        self._readers[self._spec.data.name].look()

    def begin_check(self) -> Callable[[], None]:
        """Begin to `check_unchanged`; return what waits for it, and raises: who reads goes on."""
        if is_remote(self.path):
            return begun(self.check_unchanged)
        self.check_unchanged()
        return lambda: None

    def fetch(self, chunks: Iterable[int]) -> None:
        """Begin to fetch the files of some chunks into the cache, in this order, if there is one.

        Returns at once; chunks are read as ever, sooner or later.
        """
        if self._kept is None:
            return
        numbers = np.fromiter(chunks, np.int64)
        files = numbers // self._spec.data.shard_chunks
        parts = numbers * self._spec.chunk_windows // self._spec.label_chunk_windows
        wanted = dict.fromkeys(
            one
            for file, part in dict.fromkeys(zip(files.tolist(), parts.tolist(), strict=True))
            for one in (
                (self._spec.data.name, file),
                *((spec.name, part) for spec in self._spec.labels),
            )
        )
        sources = [self._readers[name].original(number) for name, number in wanted]
        self._kept.keeper().fetch(sources)

    def _starts(self, chunk: int) -> npt.NDArray[np.int32] | None:
        return self.read_labels(chunk).start if self.layout == "rows" else None

    def read_labels(self, chunk: int, files: OpenFiles | None = None) -> Labels:
        """Read the per-window values of a chunk's windows."""
        values = self.read_values([chunk], [s.name for s in self._spec.labels], files)
        return Labels(**{name: of_chunks[0] for name, of_chunks in values.items()})

    def label_values(self, name: str, number: int) -> npt.NDArray[Any]:
        """Read a chunk of a per-window array, as large as those are; not to be written to.

        Beyond the last window there may be anything.
        """
        return self._readers[name].values(number)

    def read_values(
        self, chunks: Sequence[int], names: Iterable[str], files: OpenFiles | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Read some of the per-window values of the windows of some chunks, by name.

        Returns
        -------
        dict of (n, m, ...) array
            m for each of the n chunks, as many as the longest has; the others' end in zeros.
        """
        parts = [(chunk, *self.chunk_range(chunk)) for chunk in chunks]
        return {name: self._readers[name].read_parts(parts, files) for name in names}

    @property
    def matrices(self) -> Matrices:
        """The matrices, (N, L, F) float32, to be sliced along the first axis."""
        return Matrices(self.path, self.spec, self.read_chunk, self._starts)

    end_time = property(lambda self: WindowValues(self._readers["end_time"]))
    symbol = property(lambda self: WindowValues(self._readers["symbol"]))
    close_price = property(lambda self: WindowValues(self._readers["close_price"]))
    next_return = property(lambda self: WindowValues(self._readers["next_return"]))
    first_row = property(lambda self: WindowValues(self._readers["first_row"]))
    start = property(
        lambda self: WindowValues(self._readers["start"]),
        doc="Layout rows: each window's first row inside its chunk's block.",
    )

    @cached_property
    def feature_stats(self) -> dict[str, dict[str, float]]:
        """Per feature: count, mean, std, min and max over each used feature row once."""
        return dict(self.attrs["feature_stats"])

    def array_reader(self, name: str) -> ArrayReader:
        """Return what reads the chunks of an array, by its name: never from a copy."""
        return replace(self._readers[name], kept=None)

    def verify(
        self, *, client: Any = None, scheduler: str = "sync", workers: int | None = None
    ) -> Verification:
        """Read every chunk back and check length, crc32c, sha256 and that it decodes.

        Parameters
        ----------
        client : distributed.Client, optional
            Check on this cluster, by tasks that read the store themselves: on a shared disk, or at
            a URL with the workers' own credentials.
        scheduler : {"sync", "threads"}
            How to check without a client: one chunk after the other, or several at once. Of a
            store in an object store there are always several.
        workers : int, optional
            Threads; by default one for each core.

        Raises
        ------
        StoreError
            If a worker can't take part; names all that can't reach the store.
        StoreChangedError
            If the store is replaced or deleted meanwhile.
        StoreUnreachableError
            If it can't be reached any more.
        """
        local = client is None
        schedule = Schedule.local(scheduler, workers) if local else Schedule.on_cluster(client)
        return verify_store(self, schedule)


def _reopen(path: Path, fingerprint: str, kept: KeptFolder | None) -> MatrixStore:
    folder, n_bytes = kept or (None, CACHE_BYTES)
    store = MatrixStore.open(path, folder, n_bytes)
    if store.fingerprint != fingerprint:
        raise StoreChangedError(f"{path} was replaced by another store; open it again")
    return store
