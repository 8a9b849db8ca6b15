"""`python -m grandbatch`, and the command `grandbatch`."""

import gc


def main() -> None:
    """Run the command line; until a command begins, nothing is looked for that could go.

    What is imported stays: looking through it again and again takes a fifth of a short run.
    """
    gc.disable()
    from grandbatch.cli import main as run

    run()


if __name__ == "__main__":
    main()
