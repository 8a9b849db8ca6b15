"""Fields that may hold a word, told from numbers and times by their bytes alone.

Coarser than what decides in the end, and never finer: a field without letters is passed over eight
bytes at a time, and one with letters that only write a number, a time or a gap needs no more looks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grandbatch.kernels.bars.loads import address_of, byte_at, word_at
from grandbatch.kernels.compilation import compiled


def _packed(*texts: str) -> npt.NDArray[np.uint64]:
    """First eight bytes of each text, the first as the lowest."""
    return np.array([int.from_bytes(text.encode()[:8], "little") for text in texts], np.uint64)


_GAPS = _packed(
    *("nan", "true", "false", "na", "n/a", "null", "none", "yes", "no", "inf", "-inf", "infinity"),
    *("nat", "#n/a"),
)
_MONTHS = _packed(
    *("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
)
_OF_TIMES = _packed(
    *("am", "pm", "utc", "gmt", "est", "edt", "cst", "cdt", "mon", "tue", "wed", "thu", "fri"),
    *("sat", "sun", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
)
_ONES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_E, _K, _M, _B, _T, _Z = (ord(letter) for letter in "ekmbtz")


@compiled
def _is_one_of(word, words):  # type: ignore[no-untyped-def]
    is_known = False
    for known in words:
        is_known |= word == known
    return is_known


@compiled
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return 48 <= byte <= 57


@compiled
def _is_letter(byte):  # type: ignore[no-untyped-def]
    return 97 <= byte | 32 <= 122


@compiled
def _lower(start, stop):  # type: ignore[no-untyped-def]
    """First eight bytes of a text in small letters, as a word; signs and digits stay apart."""
    word = np.uint64(0)
    for at in range(start, min(stop, start + 8)):
        byte = byte_at(at)
        small = byte | 32 if _is_letter(byte) else byte
        word |= np.uint64(small) << np.uint64(8 * (at - start))
    return word


@compiled
def _is_amount(start, stop):  # type: ignore[no-untyped-def]
    """Whether a text is a number, perhaps with marks between thousands or a letter behind it."""
    at = start
    at += at < stop and byte_at(at) == 36
    at += at < stop and (byte_at(at) == 43 or byte_at(at) == 45)
    begin, has_digits = at, False
    while at < stop and (_is_digit(byte_at(at)) or 44 <= byte_at(at) <= 46 or byte_at(at) == 32):
        if byte_at(at) == 45:
            return False
        has_digits |= _is_digit(byte_at(at))
        at += 1
    if at == begin or not has_digits:
        return False
    if at < stop and byte_at(at) | 32 == _E:
        at += 1
        at += at < stop and (byte_at(at) == 43 or byte_at(at) == 45)
        begin = at
        while at < stop and _is_digit(byte_at(at)):
            at += 1
        if at == begin:
            return False
    letter = byte_at(at) | 32
    at += at < stop and letter in (_K, _M, _B, _T)
    return at == stop


@compiled
def _parts_time(at, stop):  # type: ignore[no-untyped-def]
    """Whether a single letter behind a digit parts a date from a time, or ends both."""
    letter = byte_at(at) | 32
    if at + 1 == stop:
        return letter == _Z
    return letter == _T and _is_digit(byte_at(at + 1))


@compiled
def _may_be_word(start, stop):  # type: ignore[no-untyped-def]
    """Whether the text between two addresses may hold a word."""
    while start < stop and (byte_at(start) == 32 or byte_at(start) == 9):
        start += 1
    while start < stop and (byte_at(stop - 1) == 32 or byte_at(stop - 1) == 9):
        stop -= 1
    n_numbers = 0
    has_letters = False
    for at in range(start, stop):
        byte = byte_at(at)
        if byte >= 128:
            return True
        has_letters |= _is_letter(byte)
        n_numbers += _is_digit(byte) and (at == start or not _is_digit(byte_at(at - 1)))
    is_gap = stop - start <= 8 and _is_one_of(_lower(start, stop), _GAPS)
    if not has_letters or is_gap or _is_amount(start, stop):
        return False
    if n_numbers < 2:
        return True
    at = start
    while at < stop:
        if not _is_letter(byte_at(at)):
            at += 1
            continue
        begin = at
        while at < stop and _is_letter(byte_at(at)):
            at += 1
        if at - begin == 1:
            is_told = begin > start and _is_digit(byte_at(begin - 1)) and _parts_time(begin, stop)
        else:
            is_told = _is_one_of(_lower(begin, at), _OF_TIMES) or _is_one_of(
                _lower(begin, begin + 3), _MONTHS
            )
        if not is_told:
            return True
    return False


@compiled
def _digits(word):  # type: ignore[no-untyped-def]
    """Highest bit of each byte that is a digit; behind a byte that isn't ASCII it may lack."""
    digits = word ^ (_ONES * np.uint64(48))
    return ~((digits + _ONES * np.uint64(0x76)) | digits) & _HIGH_BITS


@compiled
def _are_alike(one, other, length):  # type: ignore[no-untyped-def]
    """Whether two texts of a length differ in the values of digits only."""
    for at in range(0, length, 8):
        first, second = word_at(one + at), word_at(other + at)
        differ = first ^ second
        if length - at < 8:
            differ &= (np.uint64(1) << np.uint64(8 * (length - at))) - np.uint64(1)
        low = _HIGH_BITS - _ONES
        unlike = (((differ & low) + low) | differ) & _HIGH_BITS
        if unlike & ~(_digits(first) & _digits(second)):
            return False
    return True


@compiled
def has_words(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], n_texts: int) -> bool:
    """Whether one of some texts may hold a word.

    Whatever has a letter that isn't ASCII may; a number, a time or what stands for a gap doesn't.

    Parameters
    ----------
    data : (B,) uint8
        At least eight bytes longer than the texts.
    places : (2, T) int64
        Where texts start and stop in `data`.
    n_texts : int
        How many of them count.
    """
    base = address_of(data)
    # two that hold none: most others are like them
    last, before, n_last, n_before = base, base, np.int64(0), np.int64(0)
    for text in range(n_texts):
        start = base + places[0, text]
        length = places[1, text] - places[0, text]
        if length == n_last and _are_alike(last, start, length):
            continue
        is_known = length == n_before and _are_alike(before, start, length)
        if not is_known and _may_be_word(start, start + length):
            return True
        before, n_before, last, n_last = last, n_last, start, length
    return False
