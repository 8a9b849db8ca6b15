"""Stores of matrices: their format, how they are written, published and read."""

from grandbatch.store.reader import Labels, MatrixStore, Verification
from grandbatch.store.reading import OpenFiles
from grandbatch.store.slices import Matrices, WindowValues

__all__ = ["Labels", "Matrices", "MatrixStore", "OpenFiles", "Verification", "WindowValues"]
