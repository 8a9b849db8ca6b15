"""Bars: from files of rows to clean, ordered, cached bars.

Importing this package, and finding bars that are cached already, loads neither dask nor pandas nor
pyarrow.
"""

from grandbatch.bars.cache.bars import Bars, open_bars
from grandbatch.bars.cache.manifest import bars_fingerprint
from grandbatch.bars.inputs.files import Inputs, input_digests
from grandbatch.bars.prepare import DEFAULT_CACHE, find_bars, prepare_bars, read_bars, with_bars
from grandbatch.bars.rules import REASONS, BarRules

__all__ = [
    "DEFAULT_CACHE",
    "REASONS",
    "BarRules",
    "Bars",
    "Inputs",
    "bars_fingerprint",
    "find_bars",
    "input_digests",
    "open_bars",
    "prepare_bars",
    "read_bars",
    "with_bars",
]
