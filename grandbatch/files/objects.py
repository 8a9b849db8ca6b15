"""Objects of an object store, below a URL: read, written under conditions, listed.

Every request has a time limit, and is made again with growing pauses for as long as `Patience`
says. What went wrong is told by the system's own kinds of errors, each with the object's URL:

| error | means |
|---|---|
| `FileNotFoundError` | there is no such object, or no such bucket |
| `FileExistsError` | `create` found one |
| `ObjectChangedError` | another version stands there than the one named |
| `PermissionError` | credentials are missing or refused |
| `WireError` | no whole answer for as long as was tried: the object may be well |
| `DiskFullError` | the store takes no more |
| other `OSError` | the server refuses the request, and says why |
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from grandbatch.files import patience
from grandbatch.files.object_clients import (
    Client,
    ListedObject,
    condition_on,
    listed,
    open_client,
    quoted,
    split_url,
    version_in,
)
from grandbatch.files.object_errors import (
    ObjectChangedError,
    WireError,
    is_beyond_the_end,
    of_client,
)
from grandbatch.files.patience import Patience, insist

__all__ = ["ListedObject", "ObjectChangedError", "Objects", "Patience", "WireError"]

REQUEST_BYTES = 16 * 2**20
"""Larger objects are read and written by several requests, so that each ends in time."""
_KEPT_BYTES = 64 * 2**10
"""Of an answer that is cut so many at most are asked for again."""
_TAKEN_BYTES = 256 * 2**10
"""Of an answer, about so many are handed over at once where they are taken as they come."""
_PARTS_AT_ONCE = 4
_LISTED_AT_ONCE = 1_000
T = TypeVar("T")


@dataclass(frozen=True)
class Objects:
    """The objects below a URL such as ``s3://bucket/folder``.

    A value: made without a request, pickled by what it says. Thread-safe, also in a process that
    was forked: clients are opened in each process when they are first asked for something, with
    the credentials and the endpoint of its environment at that time.

    Names are those of objects below the URL, parts joined by ``/``; an empty name means the URL's
    own object. Every verb may raise the errors that the module lists.

    Parameters
    ----------
    url : str
    patience : Patience, optional
        By default `grandbatch.files.patience.PATIENCE`.
    """

    url: str
    patience: Patience | None = None

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Read an object whole, unless it is larger than such an object can be."""
        return self.read_version(name, max_bytes)[0]

    def read_version(self, name: str, max_bytes: int | None = None) -> tuple[bytes, str]:
        """Read an object whole, with its version."""

        def request(client: Client) -> tuple[bytes, str]:
            key = self._key(name)
            try:
                found = client.obstore.get(client.store, key, options={"range": (0, REQUEST_BYTES)})
            except Exception as error:
                if not is_beyond_the_end(error):
                    raise
                found = client.obstore.get(client.store, key)  # it is empty
            meta, data = found.meta, [found.bytes()]
            if max_bytes is not None and meta["size"] > max_bytes:
                size = f"it has {meta['size']:,} bytes, at most {max_bytes:,} are read"
                raise OSError(errno.EOVERFLOW, size, self._told(name))
            for first in range(len(data[0]), meta["size"], REQUEST_BYTES):
                wanted = {"range": (first, first + REQUEST_BYTES), "if_match": meta["e_tag"]}
                data.append(client.obstore.get(client.store, key, options=wanted).bytes())
            return b"".join(data), version_in(meta)

        return self._ask(name, request)

    def read_on(
        self, name: str, start: int, stop: int, version: str = ""
    ) -> tuple[memoryview, str]:
        """Read bytes ``[start, stop)`` of one version of an object, of any size.

        What came before an answer was cut is kept: the next request goes on behind it.

        Parameters
        ----------
        name : str
        start, stop : int
        version : str
            The one that is read; by default whichever is there, which no other may follow.

        Returns
        -------
        tuple of memoryview and str
            The bytes, fewer where the object ends before, and their version.

        Raises
        ------
        ObjectChangedError
            If another version stands there.
        """
        data, there = bytearray(), version

        def request(client: Client) -> None:
            nonlocal there
            options: dict[str, Any] = {"range": (start + len(data), step)}
            if there:
                options["if_match"] = there
            found = client.obstore.get(client.store, self._key(name), options=options)
            there = there or version_in(found.meta)
            for part in found.stream(min_chunk_size=_KEPT_BYTES):
                data.extend(part)

        for first in range(start, stop, REQUEST_BYTES):
            step = min(first + REQUEST_BYTES, stop)
            self._ask(name, request)
            if len(data) < step - start:
                break
        return memoryview(data), there

    def receive(
        self, name: str, start: int, stop: int, take: Callable[[int, memoryview], object]
    ) -> int:
        """Hand over bytes ``[start, stop)`` piece by piece, as they come; by one request.

        Of a long answer only a piece is held: what keeps it all costs memory that nobody touched
        before. Where an answer is cut, its bytes come again from the first on.

        Parameters
        ----------
        name : str
        start, stop : int
        take : callable
            Is given how many bytes came before, and a piece.

        Returns
        -------
        int
            How many bytes came; fewer where the object ends before.
        """

        def request(client: Client) -> int:
            wanted, n_bytes = {"range": (start, stop)}, 0
            try:
                found = client.obstore.get(client.store, self._key(name), options=wanted)
            except Exception as error:
                if not is_beyond_the_end(error):
                    raise
                return 0
            for part in found.stream(min_chunk_size=_TAKEN_BYTES):
                piece = memoryview(part)
                take(n_bytes, piece)
                n_bytes += len(piece)
            return n_bytes

        return self._ask(name, request) if start < stop else 0

    def read_range(self, name: str, start: int, stop: int) -> memoryview:
        """Read bytes ``[start, stop)``; fewer where the object ends before."""
        return self.read_ranges(name, [(start, stop)])[0]

    def read_ranges(
        self, name: str, ranges: Sequence[tuple[int, int]], gap: int = 64 * 2**10
    ) -> list[memoryview]:
        """Read several ranges of bytes, each ``[start, stop)``, several requests at once.

        Ranges that are at most `gap` bytes apart are fetched by one request. Where the object ends
        before a range does, there are fewer bytes.
        """
        joined = _join(ranges, gap)

        def request(client: Client) -> list[memoryview]:
            try:
                found = client.obstore.get_ranges(
                    client.store,
                    self._key(name),
                    starts=[start for start, _ in joined],
                    ends=[stop for _, stop in joined],
                    coalesce=0,  # by the library, it panics where one begins behind the end
                )
            except Exception as error:
                if not is_beyond_the_end(error):
                    raise
                if len(joined) == 1:
                    return [memoryview(b"")]
                return [self.read_range(name, start, stop) for start, stop in joined]
            return [memoryview(part) for part in found]

        return _cut(ranges, joined, self._ask(name, request) if joined else [])

    def head(self, name: str) -> ListedObject:
        """Return size and version of an object."""
        return self._ask(
            name,
            lambda client: listed(name, client.obstore.head(client.store, self._key(name))),
        )

    def children(self, folder: str = "") -> tuple[list[str], list[ListedObject]]:
        """List the folders and the objects in a folder, not deeper; sorted by name."""
        key = self._key(folder)
        below = f"{split_url(self.url)[1]}/".lstrip("/")

        def request(client: Client) -> tuple[list[str], list[ListedObject]]:
            found = client.obstore.list_with_delimiter(client.store, key or None)
            folders = [one.removeprefix(below).rstrip("/") for one in found["common_prefixes"]]
            # a folder's own object, which some tools put, is nothing in it
            there = [one for one in found["objects"] if one["path"].strip("/") != key]
            return sorted(folders), sorted(
                listed(one["path"].removeprefix(below), quoted(client, one)) for one in there
            )

        return self._ask(folder, request)

    def list(self, folder: str = "") -> list[ListedObject]:
        """List all objects below a folder, however deep, by name; none where there is none.

        What was written before is in it, where the store does what `check_conditions` asks.
        """
        found: list[ListedObject] = []
        below = f"{split_url(self.url)[1]}/".lstrip("/")

        def request(client: Client) -> None:
            after = self._key(found[-1].name) if found else None
            pages = client.obstore.list(
                client.store, self._key(folder) or None, offset=after, chunk_size=_LISTED_AT_ONCE
            )
            for page in pages:
                found.extend(
                    listed(one["path"].removeprefix(below), quoted(client, one)) for one in page
                )

        self._ask(folder, request)
        return sorted(found)

    def write(self, name: str, data: bytes | memoryview) -> str:
        """Write an object whole, in place of any that is there; return its version."""
        view = memoryview(data).cast("B")
        return self._ask(
            name,
            lambda client: version_in(
                client.obstore.put(
                    client.store,
                    self._key(name),
                    view,
                    use_multipart=len(view) > REQUEST_BYTES,
                    chunk_size=REQUEST_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            ),
        )

    def create(self, name: str, data: bytes) -> str:
        """Write an object only where there is none; return its version.

        Where the answer to a first try was lost, an object of the same bytes is taken for that
        try's: let the bytes of different writers differ.

        Raises
        ------
        FileExistsError
            If there is one.
        """
        return self._put_if(name, data, None)

    def replace(self, name: str, data: bytes, version: str) -> str:
        """Write an object only where a version of it stands; return the new version.

        A lost answer is made up for as by `create`.

        Raises
        ------
        ObjectChangedError
            If another version is there, or none.
        """
        return self._put_if(name, data, version)

    def _put_if(self, name: str, data: bytes, version: str | None) -> str:
        tries = 0

        def request(client: Client) -> str:
            nonlocal tries
            tries += 1
            key = self._key(name)
            try:
                mode = "create" if version is None else condition_on(client, key, version)
                return version_in(client.obstore.put(client.store, key, data, mode=mode))
            except Exception as error:
                told = of_client(error, self._told(name))
                if tries == 1 or not isinstance(told, FileExistsError | ObjectChangedError):
                    raise
                there, written = self.read_version(name)
                if there != data:
                    raise
                return written

        return self._ask(name, request)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone already are no error."""
        keys = [self._key(name) for name in names]

        def request(client: Client) -> None:
            while keys:
                try:
                    client.obstore.delete(client.store, keys[:_LISTED_AT_ONCE])
                except FileNotFoundError:  # it isn't told of which: one by one
                    for key in keys[:_LISTED_AT_ONCE]:
                        _delete_one(client, key)
                del keys[:_LISTED_AT_ONCE]

        self._ask("", request)

    def copy(self, source: str, target: str) -> None:
        """Have the store copy an object to another name below the URL."""
        self._ask(
            source,
            lambda client: client.obstore.copy(
                client.store, self._key(source), self._key(target), overwrite=True
            ),
        )

    def at(self, folder: str) -> Objects:
        """Return the objects below a folder of these."""
        return replace(self, url=f"{self.url.rstrip('/')}/{folder}")

    def _key(self, name: str) -> str:
        return f"{split_url(self.url)[1]}/{name}".strip("/")

    def _told(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}".rstrip("/")

    def _ask(self, name: str, request: Callable[[Client], T]) -> T:
        """Make a request, again and again where the wire is what fails."""
        limits = self.patience or patience.PATIENCE

        def once() -> T:
            client = open_client(split_url(self.url)[0], limits.request_seconds)
            try:
                return request(client)
            except _kinds(client) as error:
                raise of_client(error, self._told(name)) from None

        return insist(once, self._told(name), self.url, limits)


def _kinds(client: Client) -> tuple[type[Exception], ...]:
    """Return the errors that the client library has for what may happen."""
    return (client.obstore.exceptions.BaseError, OSError, ValueError, NotImplementedError)


def _join(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Join ranges of bytes that are at most `gap` apart; in order, without the empty ones."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(one for one in ranges if one[0] < one[1]):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def _cut(
    ranges: Sequence[tuple[int, int]], joined: list[tuple[int, int]], found: list[memoryview]
) -> list[memoryview]:
    """Cut ranges out of the joined ones that hold them."""
    firsts = [start for start, _ in joined]
    parts = []
    for start, stop in ranges:
        at = bisect_right(firsts, start) - 1
        if start < stop:
            parts.append(found[at][start - firsts[at] : stop - firsts[at]])
        else:
            parts.append(memoryview(b""))
    return parts


def _delete_one(client: Client, key: str) -> None:
    try:
        client.obstore.delete(client.store, key)
    except FileNotFoundError:
        return
