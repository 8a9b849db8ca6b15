"""The command line: parsing and printing only."""

from grandbatch.cli.main import main

__all__ = ["main"]
