"""Batches of a store, shuffled, sharded and resumable, at memory speed."""

from grandbatch.loader.sliding import SlidingWindowDataLoader

__all__ = ["SlidingWindowDataLoader"]
