"""Parts of a store by time that read no bar of each other.

| module | |
|---|---|
| `split` | what a split is, and the chain of splits that windows are dealt to |
| `reach` | from when to when a window reads bars |
| `ranked` | the times that divide windows by their number |
| `making` | `split_store` and `walk_forward`, the public calls |
"""

from grandbatch.splits.making import reach_of, read_spans, span_reader, split_store, walk_forward
from grandbatch.splits.split import Split

__all__ = ["Split", "reach_of", "read_spans", "span_reader", "split_store", "walk_forward"]
