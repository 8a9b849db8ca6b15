"""What goes wrong with requests to object stores, told apart by what can be done about it."""

from __future__ import annotations

import errno
import re
from typing import NamedTuple

from grandbatch.errors import DiskFullError, GrandbatchError


class WireError(ConnectionError):
    """No whole answer came: of the object nothing is known. Trying again may help."""


class ObjectChangedError(OSError):
    """Another version of an object stands there than the one that was named, or none."""


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_TOOK = re.compile(r"^Error performing \w+ \S+ in \S+ - ")

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses that may be others at the next try. 409: another writer was at it."""
_REFUSED = {401, 403}
_REFUSED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"}
_SLOW_CODES = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ServerBusy"}
_FULL_CODES = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "NotEnoughQuota"}
_KINDS: dict[str, tuple[type[OSError], int, str]] = {
    "FileNotFoundError": (FileNotFoundError, errno.ENOENT, "there is no such {1}"),
    "AlreadyExistsError": (FileExistsError, errno.EEXIST, "there is an object already"),
    "PreconditionError": (
        ObjectChangedError,
        errno.ESTALE,
        "another version stands there, or none",
    ),
    "NotImplementedError": (OSError, errno.ENOTSUP, "{0.says}"),
    "NotSupportedError": (OSError, errno.ENOTSUP, "{0.says}"),
}
_BEYOND = 416
_INSUFFICIENT_STORAGE = 507


class _Answer(NamedTuple):
    """What an error of the client says of the server's answer."""

    status: int | None
    code: str
    says: str


def _answer(error: BaseException) -> _Answer:
    # behind that, the library writes what it knows as its own values
    text = str(error).split("\n\nDebug source", 1)[0]
    status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
    if code:
        says = f"{code[1]}: {message[1]}" if message else code[1]
    else:
        says = re.sub(r"<[^>]*>|\s+", " ", _TOOK.sub("", text.split(": ", 1)[-1])).strip(" :")
        says = _TOOK.sub("", says)
    return _Answer(int(status[1]) if status else None, code[1] if code else "", says)


def is_beyond_the_end(error: BaseException) -> bool:
    """Whether a range begins behind the end of an object."""
    return _answer(error).status == _BEYOND or "object was only" in str(error)


def of_client(error: Exception, where: str) -> Exception:
    """Return the error that an error of the client library means, with the URL it is about."""
    if isinstance(error, GrandbatchError) or (
        isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    ):
        return error
    kind, answer = type(error).__name__, _answer(error)
    return (
        _of_kind(kind, answer, where)
        or _of_answer(answer, where)
        or _of_text(str(error), answer, where)
    )


def _of_kind(kind: str, answer: _Answer, where: str) -> Exception | None:
    if answer.code in _SLOW_CODES:
        return WireError(answer.says)
    if answer.code in _FULL_CODES or answer.status == _INSUFFICIENT_STORAGE:
        return DiskFullError(
            f"{where}: the store takes no more ({answer.says}); make room, or raise its quota, and "
            "run the same command again, what was finished is kept"
        )
    if kind not in _KINDS and answer.code in ("NoSuchBucket", "NoSuchKey"):
        kind = "FileNotFoundError"
    if kind not in _KINDS:
        return None
    told, number, says = _KINDS[kind]
    missing = "bucket" if answer.code == "NoSuchBucket" else "object"
    return told(number, says.format(answer, missing), where)


def _of_answer(answer: _Answer, where: str) -> Exception | None:
    if answer.status is None:
        return None
    if answer.status in _REFUSED or answer.code in _REFUSED_CODES:
        return PermissionError(
            errno.EACCES,
            f"the server refuses ({answer.says or answer.status}); check the credentials in the "
            "environment of this process, and what they allow",
            where,
        )
    if answer.status in _PASSING:
        return WireError(answer.says)
    return OSError(errno.EIO, f"the server says {answer.says or answer.status}", where)


def _of_text(text: str, answer: _Answer, where: str) -> Exception:
    if "redirect" in text:
        advice = "the bucket is elsewhere: set AWS_REGION to its region, or AWS_ENDPOINT_URL"
        return OSError(errno.EREMOTE, advice, where)
    if "HTTP error" in text and "builder error" not in text:
        return WireError(answer.says)
    return OSError(errno.EIO, answer.says, where)
