"""Make a cache of bars: of the files that were added to another, or of all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from grandbatch.bars.building.build import BytesProgress, CacheBuild
from grandbatch.bars.building.growth import EntangledError, find_base
from grandbatch.bars.building.memory import plan_memory, shares_of_workers, turns_of_reading
from grandbatch.bars.building.problems import disk_full
from grandbatch.bars.building.quarantine import HopelessError
from grandbatch.bars.cache.bars import Bars
from grandbatch.bars.cache.joining import Base
from grandbatch.bars.cache.keeping import (
    build_lock,
    fresh_staging,
    put_aside_unused,
    remove_staging,
)
from grandbatch.bars.inputs.files import InputFile
from grandbatch.bars.rules import BarRules
from grandbatch.errors import DamagedBarsError, InputError
from grandbatch.files.locations import is_remote
from grandbatch.files.verbs import make_folder, one_round
from grandbatch.files.whole import Syncer, is_full
from grandbatch.memory import MemoryLimit
from grandbatch.memory.allocator import give_back_where_tight
from grandbatch.scheduling import Schedule

logger = logging.getLogger("grandbatch")

_READ_AGAIN = "all inputs %s read again, not the new ones only: %s"


def build_bars(
    files: Sequence[InputFile],
    cache_dir: Path,
    rules: BarRules,
    schedule: Schedule,
    block_bytes: int | None,
    limit: MemoryLimit,
    on_progress: BytesProgress | None,
    find: Callable[[], Bars | None],
) -> Bars:
    """Read all files, and publish the cache of their bars.

    One process builds: another that wants the same files under the same rules waits, and builds
    anew only if `find` finds no cache then.
    """
    make_folder(cache_dir)
    seen = [[file.location, file.size, file.mtime_ns] for file in files]
    text = json.dumps([seen, rules.identity()], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    with build_lock(cache_dir, key):
        bars = find()
        if bars is not None:
            return bars
        # a name of its own: a cluster's tasks may outlive the build that they belonged to
        staging, base = one_round(
            partial(fresh_staging, cache_dir, key),
            partial(find_base, files, cache_dir, rules),
            far=is_remote(cache_dir),
        )
        shared = files, rules, schedule, block_bytes, limit, on_progress
        wrong: InputError | None = None
        if base is not None:
            try:
                return _build(base, staging, *shared)
            except InputError as error:
                # were it an error, it is met again, and told in view of all files
                wrong = error
            except (EntangledError, HopelessError, DamagedBarsError) as reason:
                logger.info(_READ_AGAIN, "are", reason)
        bars = _build(None, staging, *shared)
        if wrong is not None:
            logger.info(_READ_AGAIN, "were", wrong)
        return bars


def _build(
    base: Base | None,
    staging: Path,
    files: Sequence[InputFile],
    rules: BarRules,
    schedule: Schedule,
    block_bytes: int | None,
    limit: MemoryLimit,
    on_progress: BytesProgress | None,
) -> Bars:
    """Build a cache in a staging folder of its own: of all files, or by growing another."""
    read = files if base is None else base.new_of(files)
    cache_dir = staging.parent
    plan = plan_memory(
        read,
        rules=rules,
        workers=schedule.workers,
        limit=limit,
        worker_shares=shares_of_workers(schedule),
        block_bytes=block_bytes,
        turns=turns_of_reading(read, cache_dir),
    )
    plan.check(limit)
    try:
        make_folder(staging)
        with Syncer() as syncer:
            build = CacheBuild(files, staging, rules, schedule, syncer, plan, limit, base)
            bars = build.run(cache_dir, on_progress)
    except OSError as error:
        if not is_full(error):
            raise
        raise disk_full(read, cache_dir) from None
    finally:
        remove_staging(staging)
        give_back_where_tight(limit)
    if base is not None:
        told = f"{len(read):,} of {len(files):,} inputs are read"
        logger.info("the cache of bars grows: %s, the bars of the others stay", told)
        before = base.facts["from"]
        if before is not None:  # what the base grew from is two steps behind
            put_aside_unused(cache_dir / before)
    return bars
