"""Windows of coarser bars, beside those that a team decides on.

| module | has |
|---|---|
| `sight` | what a team makes of windows, with and without those |
| `trainer` | a trainer whose team sees them |
"""
