"""Stores of matrices: their format, how they are written, published and read."""

from grandbatch.store.reader import Labels, Matrices, MatrixStore, Verification, WindowValues
from grandbatch.store.reading import OpenFiles

__all__ = ["Labels", "Matrices", "MatrixStore", "OpenFiles", "Verification", "WindowValues"]
