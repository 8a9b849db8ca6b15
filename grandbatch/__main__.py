"""`python -m grandbatch`."""

from grandbatch.cli import main

main()
