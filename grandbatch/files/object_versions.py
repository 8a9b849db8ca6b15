"""What answers and listings of object stores tell of an object, above all its version."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

from grandbatch.files.object_clients import Client
from grandbatch.files.object_errors import ObjectChangedError


class ListedObject(NamedTuple):
    """What a listing tells of an object."""

    name: str
    """Below the URL that was listed from."""
    n_bytes: int
    version: str
    """Changes when another object comes to the name: an ETag."""


def listed(name: str, meta: Any) -> ListedObject:
    """Return what is told of an object below a URL."""
    return ListedObject(name, int(meta["size"]), version_in(meta))


def quoted(client: Client, meta: Any) -> Any:
    """Return what a listing says with the version as answers have it: some leave out its quotes."""
    tag, servers = meta["e_tag"], client.obstore.store
    alone = isinstance(client.store, servers.MemoryStore | servers.LocalStore)
    return meta if alone or not tag or tag.endswith('"') else {**meta, "e_tag": f'"{tag}"'}


def version_in(meta: Any) -> str:
    """Return the version that an answer tells."""
    return str(meta["e_tag"] or meta["version"] or "")


def condition_on(client: Client, key: str, version: str) -> dict[str, str]:
    """Return what makes a write one that replaces a version only.

    Google's stores ask for the object's generation, which listings don't tell.
    """
    if not isinstance(client.store, client.obstore.store.GCSStore):
        return {"e_tag": version}
    try:
        found = client.obstore.head(client.store, key)
    except FileNotFoundError:
        found = None
    if found is None or version_in(found) != version:
        raise ObjectChangedError(errno.ESTALE, "another version stands there, or none", key)
    return {"e_tag": version, "version": found["version"]}
