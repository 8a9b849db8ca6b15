"""Values that people and files give, checked, read and written; no other part is below.

| module | has |
|---|---|
| `arrays` | the names of array types |
| `columns` | the names of a bar's columns |
| `checksums` | crc32c of bytes |
| `checks` | whole numbers, numbers, sizes: within their bounds or an error that names them |
| `texts` | text of others, safe to show and to store; JSON that any reader takes |
| `times` | times and lengths of time |
| `zones` | when clocks change, by the zone database |
"""
