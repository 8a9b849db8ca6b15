"""Bars: from files of rows to clean, ordered, cached bars.

| module | |
|---|---|
| `making` | a cache made: by growing another, or from all files |
| `growth` | what a cache must know to grow by new files, and when it can't |
| `prepare` | the public way in: a cache found, or built |
| `resampling` | a cache of coarser bars, gathered from finer ones |
| `building` | a cache built: blocks read, settled together, joined or merged, published |
| `judging` | which rows of a block are bars, given the blocks beside it |
| `filling` | rows whose extra columns lack a value: no bars, or a gap to fill |
| `cache` | `Bars`, and the folder of caches |
| `reading` | bytes of a file to typed rows; knows no rule, no cache and no Dask |
| `form` | how a file is written: its dialect, its columns, whose bars it has |
| `inputs` | which files are meant, how they are packed and opened |
| `timestamps` | what texts and numbers mean as times |
| `rules` | `BarRules`: what makes a row a bar, and the reasons why one is none |
| `extras` | extra columns: what they may be called, and what stands where one has no value |
| `clocks` | a zone, and what a clock is ahead of it |
| `timeframe` | how long bars last, and in which intervals finer ones are gathered |
| `flags` | rules as flags: what an error offers is what the command line takes |

Importing this package, and finding bars that are cached already, loads neither dask nor pandas nor
pyarrow.
"""

from grandbatch.bars.cache.bars import Bars, open_bars
from grandbatch.bars.cache.manifest import bars_fingerprint
from grandbatch.bars.inputs.files import Inputs, input_digests
from grandbatch.bars.prepare import (
    DEFAULT_CACHE,
    chosen_rules,
    find_bars,
    prepare_bars,
    read_bars,
    with_bars,
)
from grandbatch.bars.rules import REASONS, BarRules

__all__ = [
    "DEFAULT_CACHE",
    "REASONS",
    "BarRules",
    "Bars",
    "Inputs",
    "bars_fingerprint",
    "chosen_rules",
    "find_bars",
    "input_digests",
    "open_bars",
    "prepare_bars",
    "read_bars",
    "with_bars",
]
