"""How an input is written: which column is which, marks, headers, what columns tell apart.

| module | |
|---|---|
| `columns` | where the columns of a bar stand |
| `header` | names to columns: exact names, aliases, what was likely meant |
| `headerless` | columns of rows without a header |
| `undated` | columns named as timestamps that are none |
| `side_by_side` | headers over several columns: several symbols in a row |
| `instruments` | text columns that may tell instruments apart |
| `left_out` | columns of numbers that nobody asked for |
| `texts` | what texts of the first rows tell: times, decimals, thousands |
| `foreign` | files that are no CSV, by their first bytes |
| `dialect` | how a CSV file is written, from its first bytes |
"""
