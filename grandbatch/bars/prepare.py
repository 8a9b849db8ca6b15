"""Clean bars for inputs: reuse a cache, or build it.

Reuse imports nothing heavy: whether a cache fits is a matter of sizes, times and a few JSON files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from grandbatch.bars.cache.bars import (
    Bars,
    load_bars,
    open_bars,
    throw_away_damaged,
    throw_away_unreadable,
)
from grandbatch.bars.cache.keeping import BESIDE, remove_abandoned
from grandbatch.bars.cache.manifest import bars_fingerprint, cached_sources
from grandbatch.bars.inputs.digests import describe_source, digests_of, known_digests
from grandbatch.bars.inputs.files import InputFile, Inputs, resolve_inputs
from grandbatch.bars.rules import BarRules
from grandbatch.errors import DamagedBarsError, UsageError
from grandbatch.files.locations import is_remote, location_of
from grandbatch.files.refusals import refuse_planted, refuse_url
from grandbatch.files.verbs import is_in_objects

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

    from grandbatch.scheduling import Schedule

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ATTEMPTS = 3

DEFAULT_CACHE = Path(".grandbatch") / "bars"


def find_bars(
    inputs: Inputs, cache_dir: str | os.PathLike[str], rules: BarRules | None = None
) -> Bars | None:
    """Open the cache of some inputs' bars, if there is one.

    Sizes and modification times are compared with those on record; a file is read, and digested,
    only where they differ and a cache of a file of its name and size exists.

    Returns
    -------
    Bars or None
        None where there is no cache, or it has more bad rows than the rules allow.

    Raises
    ------
    InputError
        If a path is wrong.
    """
    return _find(resolve_inputs(inputs), location_of(cache_dir), rules or BarRules())


def _find(
    files: tuple[InputFile, ...], cache_dir: Path, rules: BarRules, *, mend: bool = False
) -> Bars | None:
    """Open the cache of some files; to `mend` is to throw it away if it can't be opened."""
    if not is_remote(cache_dir) and not cache_dir.is_dir():
        return None
    digests = known_digests(files, cache_dir)
    if None in digests:
        if is_remote(cache_dir):
            return None  # each digest is on record beside a cache that is published
        cached = cached_sources(cache_dir)
        if not all((file.name, file.size) in cached for file in files):
            return None
        digests = [*digests_of(files, cache_dir)]
    source = [
        describe_source(file, str(digest), rules)
        for file, digest in zip(files, digests, strict=True)
    ]
    path = cache_dir / bars_fingerprint(source, rules)
    try:
        bars = load_bars(path, use=True)
    except (FileNotFoundError, DamagedBarsError):
        if mend:
            throw_away_unreadable(path)
        return None
    n_bad = sum(bars.quarantined.values())
    return bars if rules.allows(n_bad, n_bad + bars.n_rows) else None


def prepare_bars(
    inputs: Inputs,
    cache_dir: str | os.PathLike[str],
    rules: BarRules | None = None,
    schedule: Schedule | None = None,
    block_bytes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    memory_limit_bytes: int | None = None,
) -> Bars:
    """Return the clean bars of some inputs, from the cache or by reading them.

    Parameters
    ----------
    inputs : path, or sequence of paths
        Files (CSV, packed CSV, Parquet), folders, patterns. Files follow each other in the order
        given, sorted within a folder or pattern; a symbol's bars must rise in time across them.
    cache_dir : path
        Where bars caches lie; made if it isn't there.
    rules : BarRules, optional
        How rows are read and which are bars.
    schedule : Schedule, optional
        Where tasks run; threads on all cores by default.
    block_bytes : int, optional
        Bytes of text a task reads; nothing but speed and memory depends on it.
    on_progress : callable, optional
        Called with the bytes done and the bytes in all.
    memory_limit_bytes : int, optional
        That all processes may use together; what the system allows by default.

    Raises
    ------
    InputError
        If a path is wrong, a file is empty or unreadable, or no row is a bar; `ColumnError`,
        `TimestampError` and `BadRowsError` for what their names say.
    DiskFullError
        If the cache doesn't fit on its disk.
    MemoryLimitError
        If the reading can't fit into the limit; nothing has been done then.
    """
    if block_bytes is not None and block_bytes < 1:
        raise UsageError(f"block_bytes must be at least 1, got {block_bytes}")
    refuse_url(str(cache_dir), "the bars cache (--cache)", but=is_in_objects)
    rules = rules or BarRules()
    folder = location_of(cache_dir)
    refuse_planted(folder)
    if not is_remote(folder) and folder.absolute().parent.name == BESIDE:
        refuse_planted(folder.absolute().parent)
    files = resolve_inputs(inputs, tell=True)
    remove_abandoned(folder)
    bars = _find(files, folder, rules)
    if bars is not None:
        return bars
    if rules.timeframe is not None:
        return _gathered(
            lambda: prepare_bars(
                inputs,
                folder,
                rules.of_inputs,
                schedule,
                block_bytes,
                on_progress,
                memory_limit_bytes,
            ),
            rules,
            schedule,
            memory_limit_bytes,
        )
    from grandbatch.bars.building.making import build_bars
    from grandbatch.memory import memory_limit
    from grandbatch.scheduling import Schedule

    return build_bars(
        files,
        folder,
        rules,
        schedule or Schedule.local(),
        block_bytes,
        memory_limit(memory_limit_bytes),
        on_progress,
        find=lambda: _find(files, folder, rules, mend=True),
    )


def _gathered(
    prepare: Callable[[], Bars],
    rules: BarRules,
    schedule: Schedule | None,
    memory_limit_bytes: int | None,
) -> Bars:
    """Gather the bars of the inputs in those of a coarser timeframe."""
    from grandbatch.bars.resampling.build import resample_bars
    from grandbatch.memory import memory_limit
    from grandbatch.scheduling import Schedule

    where = schedule or Schedule.local()
    limit = memory_limit(memory_limit_bytes)
    return with_bars(prepare, lambda finer: resample_bars(finer, rules, where, limit))


def with_bars(prepare: Callable[[], Bars], use: Callable[[Bars], T]) -> T:
    """Use bars; where their cache turns out to be damaged, throw it away, and begin again.

    Parameters
    ----------
    prepare : callable
        Returns the bars, and reads the inputs where there is no cache.
    use : callable
        What may be done again.

    Raises
    ------
    DamagedBarsError
        If what was just written is damaged again and again.
    """
    attempt = 1
    while True:
        bars = prepare()
        try:
            return use(bars)
        except DamagedBarsError as error:
            if attempt == _ATTEMPTS:
                raise
            logger.info("%s", error.args[0])
        attempt += 1
        _throw_away_line(bars)


def _throw_away_line(bars: Bars) -> None:
    """Throw away a cache if it is damaged, and those it grew from: they share files."""
    grown: Bars | None = bars
    while grown is not None:
        before = grown.growth["from"] if grown.growth else None
        throw_away_damaged(grown.path)
        grown = open_bars(grown.path.with_name(before)) if before else None


def read_bars(
    inputs: Inputs,
    *,
    rules: BarRules | None = None,
    cache: str | os.PathLike[str] | None = None,
    schedule: Schedule | None = None,
    **rule_fields: Any,
) -> DataFrame:
    """Read bars into a Dask frame, by way of a cache.

    Parameters
    ----------
    inputs : path, or sequence of paths
        Files (CSV, packed CSV, Parquet), folders, patterns.
    rules : BarRules, optional
        How rows are read; or name single fields of it as keywords: ``dayfirst=True``.
    cache : path, optional
        Where bars caches lie; ``.grandbatch/bars`` in the current folder by default.
    schedule : Schedule, optional
        Where tasks run.

    Returns
    -------
    dask.dataframe.DataFrame
        ``timestamp`` (UTC), ``symbol`` (category), ``open, high, low, close, volume`` (float64),
        ordered by symbol, then time.

    Raises
    ------
    UsageError
        If a keyword is no field of `BarRules`, or both ways are used.
    InputError
        As `prepare_bars`.
    """
    rules = chosen_rules("read_bars", rules, rule_fields)
    return prepare_bars(inputs, cache or DEFAULT_CACHE, rules, schedule).frame()


def chosen_rules(call: str, rules: BarRules | None, rule_fields: Mapping[str, Any]) -> BarRules:
    """Return rules, or those that single fields make.

    Raises
    ------
    UsageError
        If a keyword is no field of `BarRules`, or both ways are used.
    """
    known = {field.name for field in fields(BarRules)}
    unknown = sorted(set(rule_fields) - known)
    if unknown:
        raise UsageError(
            f"{call} has no option {unknown[0]!r}; choose from {', '.join(sorted(known))}"
        )
    if rules is not None and rule_fields:
        raise UsageError(f"give rules or {', '.join(sorted(rule_fields))}, not both")
    return rules or BarRules(**rule_fields)
