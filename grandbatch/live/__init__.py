"""A store's rows and matrices, bar by bar as bars arrive.

| module | |
|---|---|
| `features` | `LiveFeatures`: bars of any symbols, judged as a build judges them |
| `reading` | one bar: its columns by name, its numbers |
| `times` | its time |
| `judging` | whether it is a bar |
| `segment` | what is kept of a symbol |
| `contexts` | coarser timeframes whose windows come with those of the bars |
| `coarser` | where a symbol stands in one of them |
| `durations` | how long bars last, and so when they are known |
"""

from grandbatch.live.coarser import LiveWindow
from grandbatch.live.contexts import LiveContext
from grandbatch.live.features import LiveFeatures

__all__ = ["LiveContext", "LiveFeatures", "LiveWindow"]
