"""What makes a row a bar, and what these rules are called where they are written.

| module | |
|---|---|
| `rules` | `BarRules`: all of them as a value, and the reasons why a row is no bar |
| `checking` | their values, checked where they are given |
| `extras` | extra columns: what they may be called, and what stands where one has no value |
| `clocks` | a zone, and what a clock is ahead of it |
| `timeframe` | how long bars last, and in which intervals finer ones are gathered |
| `flags` | rules as flags: what an error offers is what the command line takes |
"""

from grandbatch.bars.rules.rules import (
    DEFAULT_SYMBOL,
    MAPPABLE,
    REASONS,
    TIME_NUMBERS,
    UNITS,
    BarRules,
)

__all__ = ["DEFAULT_SYMBOL", "MAPPABLE", "REASONS", "TIME_NUMBERS", "UNITS", "BarRules"]
