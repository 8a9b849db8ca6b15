"""What goes wrong with inputs as a whole, in words."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from grandbatch.bars.inputs import InputFile
from grandbatch.bars.rules import BarRules
from grandbatch.bars.times import Evidence
from grandbatch.errors import BadRowsError, DiskFullError, TimestampError


def disk_full(files: Sequence[InputFile], cache_dir: Path) -> DiskFullError:
    """Say how much room the cache needs."""
    needed = sum(file.text_bytes for file in files)
    free = shutil.disk_usage(cache_dir).free
    return DiskFullError(
        f"{cache_dir}: no room for the bars cache; it needs about {needed:,} bytes (as many as the "
        f"text it is made of), {free:,} are free. Free some, or choose another disk with --cache"
    )


def undecided(file: InputFile, evidence: Evidence) -> TimestampError:
    """Say why days and months can't be told apart."""
    why = (
        f"{evidence.day_first:,} rows can only be day-first and as many only month-first"
        if evidence.day_first
        else f"none of its {evidence.rows:,} dates that could be either has a day above 12"
    )
    return TimestampError(
        f"{file.location}: days or months first? {why}. Say which with --dayfirst or "
        "--no-dayfirst, or give the form with --timestamp-format %d/%m/%Y"
    )


def bad_rows(
    path: Path, counts: Mapping[str, int], n_rows: int, rules: BarRules, *, is_all: bool
) -> BadRowsError:
    """Say what is wrong with the rows, from the quarantine; `is_all` if all were read."""
    with pq.ParquetFile(path) as file:
        first = next(file.iter_batches(batch_size=5)).to_pylist()
    lines = [f"{row['file']}:{row['line']}: {row['reason']}: {row['text']}" for row in first]
    if rules.on_bad_rows == "raise":
        return BadRowsError(f"{lines[0]}. Mend the row, or quarantine it with --on-bad-rows")
    n_bad = sum(counts.values())
    worst = max(counts, key=lambda reason: counts[reason])
    remedies = {
        "out_of_order": "--sort sorts rows by time; check first that symbols are told apart",
        "duplicate_timestamp": "check that its symbols are told apart",
        "non_positive_price": "if such prices are meant, add --allow-non-positive",
        "unparseable": "check --timestamp-format, --delimiter and --decimal",
    }
    remedy = remedies.get(worst, "mend the file")
    table = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    listed = "\n  ".join(lines)
    return BadRowsError(
        f"{n_bad:,} of {'' if is_all else 'the first '}{n_rows:,} rows are no bars "
        f"({n_bad / n_rows:.2%}; allowed are {rules.max_bad_fraction:.2%}): {table}. The first:\n"
        f"  {listed}\n"
        f"Remedy: {remedy}; or allow more with --max-bad-fraction"
    )
