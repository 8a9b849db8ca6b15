"""Bytes of a file to typed rows. Knows no Dask, no cache and no rule.

| module | |
|---|---|
| `rows` | rows of a block as columns, and columns of text as numbers |
| `text_blocks` | byte ranges of text files, cut at line ends |
| `csv_rows` | lines of CSV to rows |
| `odd_lines` | lines that the fast reader leaves |
| `row_groups` | row groups of Parquet files, read by column and slice |
| `parquet_rows` | row groups to the rows that lines of CSV give |
| `opened` | a block, opened: its rows, and the text of some, however its file is written |
| `choosing` | rows that are left out: others than those asked for |
"""
