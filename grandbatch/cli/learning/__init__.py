"""What a training learns from, as flags say it.

| module | |
|---|---|
| `contexts` | windows of coarser bars, and the stores that they lie in |
| `splits` | parts of a store, by shares or by times |
"""
