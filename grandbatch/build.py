"""`build_store`: the public call."""

from __future__ import annotations

import os
from typing import Any

from grandbatch.bars import BarRules, Inputs, chosen_rules
from grandbatch.builder.builder import BuildOptions, build
from grandbatch.builder.reuse import Request
from grandbatch.builder.settings import make_settings
from grandbatch.features import FeatureSet
from grandbatch.scheduling import Schedule
from grandbatch.store import MatrixStore
from grandbatch.targets.named import Named
from grandbatch.values.checks import parse_bytes


def build_store(
    inputs: Inputs,
    store: str | os.PathLike[str],
    *,
    feature_set: str | FeatureSet = "strategic",
    sequence_length: int | None = None,
    overlap: int | None = None,
    layout: str = "windows",
    chunk_windows: int | None = None,
    codec: str = "auto",
    max_gap: Any = None,
    order: str = "symbol",
    period: str | None = None,
    targets: Named | None = None,
    engine: str = "auto",
    client: Any = None,
    scheduler: str = "threads",
    workers: int | None = None,
    memory_limit: str | int | None = None,
    partition_bars: int | None = None,
    overwrite: bool = False,
    durable: bool = True,
    check: bool = True,
    cache: str | os.PathLike[str] | None = None,
    rules: BarRules | None = None,
    progress: Any = None,
    **rule_fields: Any,
) -> MatrixStore:
    """Build the store of a feature set's matrices from market bars, or reuse it.

    Where the inputs are those of the store at the path with bars added at their end, the store is
    extended: its files before the first window that changes are kept. The result is the same.

    Parameters
    ----------
    inputs : path or sequence of paths
        CSV or Parquet files, folders or globs.
    store : path
        Where the store is, or is to be.
    feature_set : str or FeatureSet
        What to compute of the bars: a set, or its name, which is that of a built-in one, or
        `module:NAME` or `path.py:NAME`, imported from the working directory.
    sequence_length, overlap : int, optional
        Rows of a window, and rows that neighbours share; by default the set's own.
    layout : {"windows", "rows"}
        Store each window, or each feature row once.
    chunk_windows : int, optional
        Windows in a chunk; by default 1,024, or 256 where neighbours share more than half their
        rows.
    codec : {"auto", "none", "lz4", "zstd"}
        "auto" is lz4; where neighbours share more than half their rows, zstd in layout "windows",
        which repeats them, and none in layout "rows", which doesn't.
    max_gap : pandas.Timedelta or str, optional
        A larger gap between bars starts a new segment.
    order : {"symbol", "period"}
        By what windows are numbered first. With "period", new bars of many symbols change the last
        files only, and a split by time is a range of chunks.
    period : str, optional
        Calendar days, weeks, months, quarters or years (UTC) of `order` "period", such as "1W"; by
        default "1M".
    targets : Target, str, or sequence of them, optional
        What is stored of the bars after each window, such as ``(forward_return(5),)`` or
        "forward_return:5": `MatrixStore.targets`. Windows stay as they are; their targets are NaN
        where the horizon leaves the segment.
    engine : {"auto", "overlap", "direct"}
        How bars reach the tasks: through one `map_overlap`, or read by each, as "auto" does. The
        same bytes.
    client : distributed.Client, optional
        Build on this cluster; its workers must see the store's folder.
    scheduler : {"threads", "sync"}
        Where to build without a client.
    workers : int, optional
        Threads; by default one for each core.
    memory_limit : str or int, optional
        Bytes, or a size such as "2GiB", that the build's processes may use in all, wherever they
        run.
    partition_bars : int, optional
        Bars in a partition. Changes speed and memory, never the store.
    overwrite : bool
        Replace another store at the path.
    durable : bool
        Put every file on the disk before its name appears, not only in the page cache.
    check : bool
        Run kernels that aren't built in on a few thousand bars before anything is written, as
        `check` does: on simulated ones, and on the first of a few segments.
    cache : path, optional
        Folder of the bars cache; by default `.grandbatch/bars` beside the store.
    rules : BarRules, optional
        How bars are read and what makes a row bad; or name single fields of it as keywords:
        ``resample="30min"``.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    MatrixStore

    Raises
    ------
    InputError
        If the inputs are missing or bad.
    UsageError
        If a setting makes no sense.
    KernelError
        If a kernel looks ahead (a target beyond its horizon), reads past its lookback, or depends
        on more than its bars.
    StoreMismatchError
        If another store stands at the path.
    MemoryLimitError
        If the build can't fit into the limit; nothing has been done then.
    DiskFullError
        If the disk is full; the same call goes on later.
    """
    settings = make_settings(
        feature_set,
        sequence_length,
        overlap,
        layout,
        chunk_windows,
        codec,
        max_gap,
        order,
        period,
        targets,
    )
    local = client is None
    schedule = Schedule.local(scheduler, workers) if local else Schedule.on_cluster(client)
    options = BuildOptions(
        engine=engine,
        partition_bars=partition_bars,
        schedule=schedule,
        memory_limit_bytes=None if memory_limit is None else parse_bytes(memory_limit),
        overwrite=overwrite,
        durable=durable,
        check=check,
    )
    request = Request.of(
        inputs, store, settings, chosen_rules("build_store", rules, rule_fields), cache
    )
    return build(request, options, progress).store
