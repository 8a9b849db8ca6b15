"""A store being written: files of chunks, per-window arrays, metadata, and, last, the manifest.

One file of chunks is written by one task, whole, and followed by its record. A record makes a file
finished: it holds the digests and the statistics of the file's chunks. A staging folder holds the
coming `store` and, apart from it, the `records`.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import call
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grandbatch.errors import DamagedStoreError, StoreError
from grandbatch.files.leases import Fence
from grandbatch.files.locations import is_remote
from grandbatch.files.objects import Patience
from grandbatch.files.verbs import (
    copy_file,
    each,
    listed_below,
    not_here,
    objects_of,
    see,
    sizes_below,
)
from grandbatch.files.whole import TEMPORARY_SUFFIX, remove_files, write_whole
from grandbatch.store.codecs import Chunk, encode_chunk
from grandbatch.store.file_records import (
    FileRecord,
    chunk_digests,
    file_buffers,
    is_whole,
    read_record,
)
from grandbatch.store.format import ARRAY_NAMES, MANIFEST_NAME, ArraySpec, StoreSpec
from grandbatch.store.manifest import ChunkDigests, Manifest, sha256_hex
from grandbatch.store.metadata import metadata_documents
from grandbatch.store.publish import Listing, records_folder
from grandbatch.values.checksums import crc32c_of_each

_PATIENCE = Patience(request_seconds=20, total_seconds=40)
"""With what is put in an object store under a lease: less than that holds."""

_OF_A_STORE = re.compile(rf"({'|'.join(ARRAY_NAMES)})/(zarr\.json|c/[0-9/]+)|uploading\.json")
"""What a store of any settings, and an upload of a version before, puts beside its manifest."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


@dataclass(frozen=True, eq=False)
class Staging:
    """A store being written. It travels to the tasks that write it.

    Safe from several threads and processes at once: each file is written aside under a name of its
    own, and appears whole.

    Parameters
    ----------
    folder : Path
        What a build leaves for the next to go on with, and where it works.
    spec : StoreSpec
        What is written.
    durable : bool
        Whether a file is on the disk before its name appears.
    final : Path, optional
        Where the store is to be, in an object store: nothing is renamed there.
    aside : bool
        There, whether files of the store that stands there stay: what is new is written into the
        folder until it takes the others' place.
    fence : Fence, optional
        The lease by which nobody else writes there.
    """

    folder: Path
    spec: StoreSpec
    durable: bool
    final: Path | None = None
    fence: Fence | None = None
    aside: bool = False

    @cached_property
    def store(self) -> Path:
        """The folder that becomes, or at a URL is, the store."""
        return self.folder / "store" if self.final is None or self.aside else self.final

    @cached_property
    def records(self) -> Path:
        """The folder of the records."""
        if self.final is None:
            return self.folder / "records"
        return records_folder(self.final, self.folder.name)

    def record_path(self, number: int) -> Path:
        """Where the record of a file of chunks lies."""
        return self.records / self.record_name(number)

    @staticmethod
    def record_name(number: int) -> str:
        """Name of the record of a file of chunks."""
        return f"{number:08d}.record"

    def write_file(self, array: ArraySpec, number: int, encoded: Sequence[Chunk]) -> None:
        """Write one file of chunks, given in order: one chunk, or a whole shard with its index."""
        self._write(self.store / array.file(number), *file_buffers(array, encoded))

    def write_record(self, record: FileRecord) -> None:
        """Write a file's record: from here on the file is finished."""
        self._write(self.record_path(record.number.item()), record.to_bytes())

    def write_recorded(self, record: FileRecord, encoded: Sequence[Chunk]) -> None:
        """Write a file of chunks and its record, which finishes it: last, but where all is objects.

        There both are put at once: whoever goes on compares each file with its record, and one that
        isn't there yet is none.
        """
        calls = [
            partial(self.write_file, self.spec.data, record.number.item(), encoded),
            partial(self.write_record, record),
        ]
        each(call, calls, far=is_remote(self.store))

    def write_labels(
        self, chunk: int, labels: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, ChunkDigests]:
        """Write one chunk of per-window arrays, from the values of its windows, by their names.

        All at once where each is a request.
        """
        digests = {}

        def encoded_files() -> Iterator[tuple[ArraySpec, Chunk]]:
            for array in self.spec.labels:
                if array.name not in labels:
                    continue
                values = found = np.ascontiguousarray(labels[array.name], array.dtype)
                raw, step = found.data.cast("B"), self.spec.chunk_windows * found.strides[0]
                parts = crc32c_of_each(raw[at : at + step] for at in range(0, len(raw), step))
                if len(found) < array.chunk_shape[0]:
                    values = np.full(array.chunk_shape, array.fill_value, array.dtype)
                    values[: len(found)] = found
                encoded = encode_chunk(values, array.codec)
                digests[array.name] = ChunkDigests(
                    **chunk_digests([encoded]), part_crc32c=np.array(parts, np.uint32)
                )
                yield array, encoded

        def write(file: tuple[ArraySpec, Chunk]) -> None:
            self.write_file(file[0], chunk, [file[1]])

        each(write, encoded_files(), far=is_remote(self.store))
        return digests

    def take_file(self, number: int, store: Path) -> None:
        """Stage a file of a finished store: by a hard link, or a copy where the disk knows none.

        A staged file is only ever replaced by its name, so that the store's own stays as it is. In
        an object store the file stays where it is, for the store will have it there.

        Raises
        ------
        FileNotFoundError
            If the store does not have it.
        DiskFullError
            If there is no room for a copy.
        """
        self.take_named(self.spec.data.file(number), store)

    def take_named(self, name: str, store: Path) -> None:
        """Stage a file of a finished store by its name, as `take_file` does."""
        if not self.aside:
            self.take(store / name, self.store / name)

    def take_record(self, source: Path, number: int) -> None:
        """Take over the record of a file of chunks."""
        if self.final is None:
            self.take(source, self.record_path(number))
        else:
            copy_file(source, self.record_path(number))

    def take(self, source: Path, path: Path) -> None:
        """Give a file a second name in the staging folder, as `take_file` does."""
        try:
            try:
                _link(source, path)
            except FileNotFoundError:  # mostly, where its folder isn't there yet
                path.parent.mkdir(parents=True, exist_ok=True)
                _link(source, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._write(path, source.read_bytes())

    def recorded(self) -> list[int]:
        """Numbers of the files that have a record, whole or not, in order."""
        there = sizes_below(self.records)
        return [n for n in range(self.spec.data.n_files) if self.record_name(n) in there]

    def finished(self, numbers: Sequence[int] | None = None) -> dict[int, int]:
        """Files that an interrupted build left whole: number → chunks in it.

        Of some with a record, or of all. A file counts when its record reads and the file's bytes
        give every digest in it.
        """
        finished = {}
        data = self.spec.data
        for number in self.recorded() if numbers is None else numbers:
            try:
                record = read_record(self.record_path(number))
                path = self.store / data.file(number)
                whole = is_whole(path, data, number, record.length, record.sha256)
            except (OSError, DamagedStoreError):
                continue
            # a version before this one let through what is not finite
            if whole and np.isfinite(record.mean).all() and np.isfinite(record.high).all():
                finished[number] = len(record.length)
        return finished

    def check_files(self, arrays: Mapping[str, ChunkDigests]) -> Listing:
        """See every file of chunks, with the length that its digests give it.

        Returns
        -------
        dict of str to ListedObject
            All that stands at the store's URL, where that was looked at here.

        Raises
        ------
        StoreError
            If one isn't here, or not all of it.
        """
        if self.aside:
            return {}  # all at once, before they take their places
        there = listed_below(self.store) if is_remote(self.store) else {}
        for array in self.spec.arrays:
            for number in range(array.n_files):
                expected = array.file_bytes(arrays[array.name].length, number)
                name = array.file(number)
                if name not in there or there[name].n_bytes != expected:
                    see(self.store / name, expected)
        return there

    def read_record(self, number: int) -> FileRecord:
        """Read the record of a file that a task has told to be written.

        Raises
        ------
        StoreError
            If it isn't here.
        DamagedStoreError
            If it is not what was written.
        """
        path = self.record_path(number)
        try:
            return read_record(path)
        except OSError as error:
            raise not_here(path, f"can't be read ({error.strerror})") from None

    def write_metadata(self, attributes: dict[str, Any]) -> dict[str, str]:
        """Write every `zarr.json`; return the sha256 of each by its path."""
        documents = metadata_documents(self.spec, attributes)
        if not is_remote(self.store):
            left = "zarr.json", MANIFEST_NAME  # by a build that was cut off, as half-written files
            remove_files(self.store, lambda name: name.endswith((TEMPORARY_SUFFIX, *left)))

        def write(name: str) -> None:
            self._write(self.store / name, documents[name])

        each(write, documents, far=is_remote(self.store))
        return {name: sha256_hex(document) for name, document in documents.items()}

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, the last file of a store: at a URL it publishes the store.

        Where that is written aside it decides that it takes the other's place.

        Raises
        ------
        StoreError
            If another store was published at the URL meanwhile.
        """
        if is_remote(self.store):
            place = replace(objects_of(self.store), patience=_PATIENCE)
            if self.aside:
                place.write(MANIFEST_NAME, manifest.to_bytes())
                return
            try:
                place.create(MANIFEST_NAME, manifest.to_bytes())
            except FileExistsError:
                raise StoreError(
                    f"{self.store}: another store was published there meanwhile; it is left as it "
                    "is: run the same command again"
                ) from None
            return
        write_whole(self.store / MANIFEST_NAME, manifest.to_bytes(), durable=self.durable)

    def remove_others(self, there: Listing) -> None:
        """Remove what a store before left at a URL beside this one's files; nothing foreign.

        `there` is what stood at the URL when all of this one did.
        """
        kept = {f"{array.name}/zarr.json" for array in self.spec.arrays}
        kept |= {array.file(n) for array in self.spec.arrays for n in range(array.n_files)}
        place = objects_of(self.final or self.store)
        place.delete([name for name in there if _OF_A_STORE.fullmatch(name) and name not in kept])

    def _write(self, path: Path, *buffers: bytes | memoryview) -> None:
        if self.fence is not None:
            self.fence.check()
            replace(objects_of(path), patience=_PATIENCE).write("", b"".join(buffers))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # a cluster may run a task twice at once: it takes a worker for lost that still writes
        write_whole(path, *buffers, durable=self.durable, shared=True)


def _link(source: Path, path: Path) -> None:
    """Give a file a second name, also one that another has, left by a build that was cut off."""
    try:
        path.hardlink_to(source)
    except FileExistsError:
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        try:
            aside.hardlink_to(source)
            aside.replace(path)
        finally:
            # it is still there, too, where both were links to the same file: rename does nothing
            aside.unlink(missing_ok=True)
