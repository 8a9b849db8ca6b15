"""A store's rows and matrices, bar by bar as bars arrive.

| module | |
|---|---|
| `features` | `LiveFeatures`: bars of any symbols, judged as a build judges them |
| `reading` | one bar: its columns by name, its numbers |
| `segment` | what is kept of a symbol |
"""

from grandbatch.live.features import LiveFeatures

__all__ = ["LiveFeatures"]
