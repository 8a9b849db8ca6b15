"""Bars: from files of rows to clean, ordered, cached bars.

| module | |
|---|---|
| `prepare` | the public way in: a cache found, or built |
| `resampling` | a cache of coarser bars, gathered from finer ones |
| `building` | a cache built: blocks read, settled together, joined or merged, published |
| `reading` | bytes of a file to typed rows; knows no rule, no cache and no Dask |
| `form` | how a file is written: its dialect, its columns, whose bars it has |
| `cache` | `Bars`, and the folder of caches |
| `inputs` | which files are meant, how they are packed and opened |
| `timestamps` | what texts and numbers mean as times |
| `rules` | `BarRules`: what makes a row a bar, and how it is written as flags |

Importing this package, and finding bars that are cached already, loads neither dask nor pandas nor
pyarrow.
"""

from grandbatch.bars.cache.bars import Bars, open_bars
from grandbatch.bars.cache.manifest import bars_fingerprint
from grandbatch.bars.inputs.digests import input_digests
from grandbatch.bars.inputs.files import Inputs
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
