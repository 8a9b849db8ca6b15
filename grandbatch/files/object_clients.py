"""Clients of object stores: opened by URL from what the environment says, one set a process.

And what their answers and listings tell of an object, above all its version.

The client library keeps threads of its own, which a forked process doesn't have: whatever it asked
for there would never be answered. Such a process loads the library a second time.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import threading
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from grandbatch.errors import MissingExtraError, UsageError
from grandbatch.files.object_errors import ObjectChangedError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
"""What URLs of object stores begin with."""
_TESTED = ("file", "memory")

_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_")
_CONNECT_SECONDS = 5


class _Library:
    """The client library of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loaded: Any = None
        self.anew = False

    def get(self) -> Any:
        with self.lock:
            if self.loaded is None:
                try:
                    if self.anew:
                        _load_again()
                    import obstore
                    import obstore.exceptions
                    import obstore.store
                except ImportError as error:
                    raise MissingExtraError(
                        f"object stores need pip install 'grandbatch[s3]' ({error})"
                    ) from None
                self.loaded = obstore
            return self.loaded

    def forked(self) -> None:
        """Forget what came from the process before."""
        self.__init__()  # type: ignore[misc]
        self.anew = "obstore" in sys.modules
        client.cache_clear()
        _in_memory.clear()


def _load_again() -> None:
    """Load the library from a copy of its file: the system would give back what it has of that."""
    path = sys.modules["obstore._obstore"].__file__
    assert path is not None
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        del sys.modules[name]
    with tempfile.TemporaryDirectory() as folder:
        spec = importlib.util.spec_from_file_location("obstore._obstore", shutil.copy(path, folder))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    sys.modules["obstore._obstore"] = module


_library = _Library()
_in_memory: dict[str, Any] = {}
library = _library.get
"""Returns the client library, loaded for this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_library.forked)


class Client(NamedTuple):
    """An opened object store."""

    obstore: Any
    """The library, for its functions."""
    store: Any
    """What they take."""


def open_client(url: str, request_seconds: float) -> Client:
    """Return this process's client for a URL, with what the environment says now.

    Parameters
    ----------
    url : str
    request_seconds : float
        How long a request may take.

    Raises
    ------
    UsageError
        If it is no URL of an object store.
    MissingExtraError
        If the client library isn't installed.
    PermissionError
        If there are no credentials.
    """
    environment = tuple(
        sorted(item for item in os.environ.items() if item[0].startswith(_PREFIXES))
    )
    return client(url, request_seconds, environment)


@lru_cache(256)
def client(url: str, request_seconds: float, _environment: tuple[tuple[str, str], ...]) -> Client:
    """Open a client; the environment is what tells those of other credentials apart."""
    obstore = library()
    scheme = url.partition(":")[0].lower()
    if scheme == "memory":  # the library's own are new at every call
        return Client(obstore, _in_memory.setdefault(url, obstore.store.MemoryStore()))
    if scheme == "file":
        return Client(obstore, obstore.store.from_url(url, mkdir=True))
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in (*SCHEMES, *_TESTED))
        raise UsageError(f"{url} is no URL of an object store; they begin with {known}")
    options = _s3_options(url) if scheme.startswith("s3") else {}
    endpoint = str(options.get("endpoint") or _first("GOOGLE_BASE_URL", "AZURE_ENDPOINT") or "")
    opened = obstore.store.from_url(
        url,
        client_options={
            "timeout": timedelta(seconds=request_seconds),
            "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, request_seconds)),
            "allow_http": endpoint.startswith("http:"),
        },
        # tried again by `Objects`, which also knows of answers that were cut
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=request_seconds)},
        **options,
    )
    return Client(obstore, opened)


def _first(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _s3_options(url: str) -> dict[str, Any]:
    """Return endpoint, region and credentials, by the rules that the AWS tools have.

    Raises
    ------
    PermissionError
        If there are no credentials.
    """
    options: dict[str, Any] = {
        "endpoint": _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "region": _first("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    in_environment = _first("AWS_ACCESS_KEY_ID") and _first("AWS_SECRET_ACCESS_KEY")
    signs_nothing = (_first("AWS_SKIP_SIGNATURE") or "").lower() in ("1", "true", "yes")
    complete = in_environment and options["region"] and not _first("AWS_PROFILE")
    if not complete and not signs_nothing:
        session = _session()
        profile = session.get_scoped_config()
        options["endpoint"] = options["endpoint"] or profile.get("endpoint_url")
        options["region"] = options["region"] or session.get_config_variable("region")
        credentials = session.get_credentials()
        if credentials is None:
            raise PermissionError(
                errno.EACCES,
                "no credentials are found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE, for this process (AWS_SKIP_SIGNATURE=true for a public bucket)",
                url,
            )
        options["credential_provider"] = lambda: _as_wanted(credentials)
    return {name: value for name, value in options.items() if value is not None}


def _session() -> Any:
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    session = get_session()
    try:
        session.get_scoped_config()
    except BotoCoreError as error:  # a profile that isn't there
        raise PermissionError(errno.EACCES, f"no credentials: {error}") from None
    return session


def _as_wanted(credentials: Any) -> dict[str, Any]:
    """Give credentials, refreshed where they have run out, as the client library takes them."""
    now = credentials.get_frozen_credentials()
    return {
        "access_key_id": now.access_key,
        "secret_access_key": now.secret_key,
        "token": now.token,
        "expires_at": getattr(credentials, "_expiry_time", None),
    }


def split_url(url: str) -> tuple[str, str]:
    """Part a URL into what a client is opened for, and how all names below the URL begin.

    One client has the connections to all of a bucket.
    """
    found = re.match(r"((?:s3a?|gs|memory)://[^/]+)/*(.*)", url, re.IGNORECASE)
    return (url.rstrip("/"), "") if found is None else (found[1], found[2].strip("/"))


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
