"""One self-contained HTML page about a store, and about a training on it.

| module | |
|---|---|
| `page` | the page as a whole: one file |
| `sections` | its sections about a store |
| `targets` | its section about targets |
| `training` | its section about a training |
| `judgement` | the page about an evaluation |
| `charts` | from arrays to charts |
| `svg` | the shapes that charts are made of |
| `html` | words, tables and numbers |
| `sampling` | which chunks a page shows |
| `coverage` | which times the windows cover |

Charts are inline SVG drawn here: no library, no script, nothing loaded from anywhere.
"""

from grandbatch.report.page import write_report

__all__ = ["write_report"]
