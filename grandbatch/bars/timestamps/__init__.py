"""Texts and numbers to UTC nanoseconds, by what a whole file shows of their meaning.

| module | |
|---|---|
| `texts` | columns of timestamps to nanoseconds |
| `evidence` | what rows say on how timestamps are meant, and what follows from it |
| `forms` | forms that aren't known by themselves |
| `scales` | numbers that count otherwise than epochs |
| `sessions` | night sessions that stand under the date of the day that they open |
"""
