"""One self-contained HTML page about a store, and about a training on it.

Charts are inline SVG drawn here: no library, no script, nothing loaded from anywhere.
"""

from grandbatch.report.page import write_report

__all__ = ["write_report"]
