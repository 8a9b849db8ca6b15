"""Loops over bars on their way in: bytes to numbers and times, and which rows are bars.

| module | |
|---|---|
| `loads` | bytes of memory by their address |
| `numbers` | decimal numbers in text to the nearest doubles |
| `csv_rows` | lines of CSV to numbers and the places of texts |
| `texts` | texts that lie scattered in a block |
| `calendar` | Gregorian dates to days since 1970 |
| `timestamps` | timestamps in text to nanoseconds |
| `epochs` | timestamps that are one number |
| `bar_rules` | which rows are bars, and why the others aren't |
| `intervals` | where intervals of a clock begin, and bars gathered in them |
| `looks` | leaps of the price, and how volumes are spread |
| `words` | fields that may hold a word, told from numbers and times |
"""
