"""`MatrixBatch`: what a loader hands over."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from grandbatch.errors import UsageError
from grandbatch.position import Position

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from tensordict import TensorDict

    from grandbatch.statistics import FeatureStatistics

BatchLabels = tuple["torch.Tensor", ...]

LABELS = ("index", "end_time", "symbol", "close_price", "next_return", "first_row", "weight")
"""Names of a batch's per-window tensors, in order; `targets` come behind, where there are any."""


_LABELS_AND_TARGETS = (*LABELS, "targets")


class Positioned(Protocol):
    """Something that can tell a position when asked: most batches are never asked."""

    def position(self) -> Position:
        """Return the position."""
        ...


class Arriving(Protocol):
    """Something that a device has still to make."""

    def meet(self) -> None:
        """Let what the calling thread asks of the device from here on come behind it."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class ContextWindows:
    """What a context gives the windows of a batch: to each the last one known by then."""

    matrices: torch.Tensor
    """(B, L, F), of the context's store."""
    index: torch.Tensor
    """Number of each window in the context's store, (B,) int64."""
    end_time: torch.Tensor
    """Time of its last bar as in that store, ns since 1970 UTC, (B,) int64: of its opening or
    closing, as `bar_time` of that store says."""

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> ContextWindows:
        """Return what a function makes of the tensors."""
        return ContextWindows(*map(function, self.tensors().values()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name."""
        return {"matrices": self.matrices, "index": self.index, "end_time": self.end_time}


class MatrixBatch:
    """Windows of a store, their labels, and where the epoch stands after them.

    A batch's tensors are its own: nothing overwrites them as long as one of them, or a view of
    one, is in use.

    Parameters
    ----------
    matrices : (B, L, F) float32 tensor
    index : (B,) int64 tensor
        Number of each window in the store.
    end_time : (B,) int64 tensor
        ns since 1970 UTC of the window's last bar.
    symbol : (B,) int32 tensor
        Index into the store's symbols.
    close_price : (B,) float64 tensor
        Close of the last bar.
    next_return : (B,) float64 tensor
        c[t+1]/c[t] - 1 after the last bar; NaN at a segment's end.
    first_row : (B,) int64 tensor
        Row number, in bars order, of the first bar.
    weight : (B,) float32 tensor
        1, or 0 for a window repeated so that all ranks see equally many.
    position : Position
        Where the epoch stands once this batch is handed over.
    targets : (B, K) float32 tensor, optional
        Of a store with targets: those at the window's last bar, NaN where unknown.
    context : mapping of str to ContextWindows, optional
        Of a loader with contexts: for each window the last one of coarser bars known by then.

    Examples
    --------
    >>> import grandbatch as gb
    >>> made = gb.create_large_dataset_simulation("bars.csv", num_rows=2_000)
    >>> store = gb.build_store("bars.csv", "bars.zarr", overlap=47)
    >>> batch = next(iter(gb.SlidingWindowDataLoader(store)))
    >>> batch.matrices.shape, batch.next_return.shape
    (torch.Size([32, 48, 13]), torch.Size([32]))
    """

    __slots__ = ("_arriving", "_behind", "_context", "_every", "_labels", "_rows", "matrices")

    def __init__(
        self,
        matrices: torch.Tensor,
        index: torch.Tensor,
        end_time: torch.Tensor,
        symbol: torch.Tensor,
        close_price: torch.Tensor,
        next_return: torch.Tensor,
        first_row: torch.Tensor,
        weight: torch.Tensor,
        position: Position | Positioned,
        targets: torch.Tensor | None = None,
        context: Mapping[str, ContextWindows] | None = None,
    ):
        self.matrices = matrices
        self._context: tuple[Mapping[str, ContextWindows], bool] = context or {}, True
        self._every: Callable[[], BatchLabels] | None = None
        self._rows = slice(0, len(matrices))
        labels = index, end_time, symbol, close_price, next_return, first_row, weight
        more = () if targets is None else (targets,)
        self._labels: dict[int, torch.Tensor] = dict(enumerate((*labels, *more)))
        self._behind = position
        self._arriving: Arriving | None = None

    @classmethod
    def cut(
        cls,
        matrices: torch.Tensor,
        labels: Callable[[], BatchLabels],
        start: int,
        behind: Positioned,
        context: Mapping[str, ContextWindows],
        arriving: Arriving | None = None,
    ) -> MatrixBatch:
        """Make a batch of as many windows as matrices, whose labels begin at `start` of many.

        Each is asked for, and cut, when it is; so is the context. One that a device has still to
        make is for `arrive` before it is used.
        """
        batch = cls.__new__(cls)
        batch.matrices = matrices
        batch._labels, batch._every = {}, labels
        batch._context = context, not context
        # as many as come, whatever is put in the matrices' place before a label is asked for
        batch._rows = slice(start, start + matrices.shape[0])
        batch._behind = behind
        batch._arriving = arriving
        return batch

    def arrive(self) -> None:
        """Let what the calling thread asks of the device from here on find the batch made.

        A loader does it for the thread that it hands the batch to.
        """
        if self._arriving is not None:
            self._arriving.meet()
            self._arriving = None

    def _cut_labels(self) -> BatchLabels:
        n = len(self._labels if self._every is None else self._every())
        return tuple(map(self._label, range(n)))

    def _label(self, which: int) -> torch.Tensor:
        label = self._labels.get(which)
        if label is None:
            assert self._every is not None
            mine = self._every()[which][self._rows].contiguous()
            label = self._labels.setdefault(which, mine)  # another thread may have asked meanwhile
        return label

    index = property(lambda self: self._label(0), doc="Number of each window in the store.")
    end_time = property(lambda self: self._label(1), doc="Time of the last bar, ns since 1970 UTC.")
    symbol = property(lambda self: self._label(2), doc="Index into the store's symbols.")
    close_price = property(lambda self: self._label(3), doc="Close of the last bar.")
    next_return = property(lambda self: self._label(4), doc="Return after the last bar.")
    first_row = property(lambda self: self._label(5), doc="Row number of the first bar.")
    weight = property(lambda self: self._label(6), doc="1, or 0 for a repeated window.")

    @property
    def targets(self) -> torch.Tensor | None:
        """Targets at the last bar, (B, K) float32; None where the store has none."""
        return dict(zip(_LABELS_AND_TARGETS, self._cut_labels(), strict=False)).get("targets")

    @property
    def context(self) -> dict[str, ContextWindows]:
        """Windows of coarser bars by name; none where the loader has no context."""
        windows_of, is_own = self._context
        if not is_own:
            windows_of = {
                name: ContextWindows(
                    windows.matrices[self._rows],
                    windows.index[self._rows].contiguous(),
                    windows.end_time[self._rows].contiguous(),
                )
                for name, windows in windows_of.items()
            }
            self._context = windows_of, True
        return dict(windows_of)

    @property
    def position(self) -> Position:
        """Where the epoch stands once this batch is handed over."""
        behind = self._behind
        return behind if isinstance(behind, Position) else behind.position()

    @property
    def behind(self) -> Position | Positioned:
        """What tells the position, without asking it."""
        return self._behind

    def __len__(self) -> int:
        return self.matrices.shape[0]

    def __repr__(self) -> str:
        shape = "x".join(str(size) for size in self.matrices.shape)
        return f"<MatrixBatch {shape} {self.matrices.dtype} on {self.matrices.device}>"

    def __reduce__(self) -> tuple[Any, ...]:
        labels = self._cut_labels()
        first, targets = labels[: len(LABELS)], labels[len(LABELS) :]
        given = targets[0] if targets else None
        return MatrixBatch, (self.matrices, *first, self.position, given, self.context)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name, `matrices` first, as `TensorDict` takes them.

        Those of a context are named such as ``strategic.matrices``.
        """
        labels = zip(_LABELS_AND_TARGETS, self._cut_labels(), strict=False)
        contexts = {
            f"{name}.{field}": tensor
            for name, windows in self.context.items()
            for field, tensor in windows.tensors().items()
        }
        return {"matrices": self.matrices, **dict(labels), **contexts}

    def to_tensordict(self) -> TensorDict:
        """Return the tensors as a `TensorDict` of as many entries as windows, without a copy.

        Raises
        ------
        UsageError
            If the package tensordict isn't installed.
        """
        try:
            from tensordict import TensorDict
        except ModuleNotFoundError:
            raise UsageError(
                "to_tensordict needs the package tensordict: pip install 'grandbatch[rl]'"
            ) from None
        return TensorDict(self.tensors(), batch_size=[len(self)])

    def numpy(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return views of the tensors as numpy arrays, by name."""
        return {name: tensor.numpy() for name, tensor in self.tensors().items()}

    def split(self, size: int) -> Iterator[MatrixBatch]:
        """Cut the batch into parts of `size` windows; each carries the whole batch's position."""
        for start in range(0, len(self), size):
            yield self._map(lambda tensor, begin=start: tensor[begin : begin + size])  # type: ignore[misc]

    def to(self, device: Any, *, non_blocking: bool = False) -> MatrixBatch:
        """Copy the tensors to a device.

        With `non_blocking`, keep this batch until the device has finished copying: its memory is
        used again once it is dropped.
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def normalised(self, statistics: FeatureStatistics) -> MatrixBatch:
        """Return the batch with each feature less its mean, over its standard deviation.

        Parameters
        ----------
        statistics : FeatureStatistics
            Of the training split, as `feature_statistics` gathers them. A feature that is
            constant there becomes 0, and a warning names its column.

        Returns
        -------
        MatrixBatch
            Matrices of their own, in the same dtype, computed in float64; the labels are shared,
            and so is the context, as it is.

        Raises
        ------
        UsageError
            If the statistics are of another number of features, or of none for one of them.
        """
        import torch

        n_features = self.matrices.shape[-1]
        if len(statistics.count) != n_features or not bool((statistics.count > 0).all()):
            counted = int((statistics.count > 0).sum())
            raise UsageError(
                f"statistics of {n_features} features are needed, got those of {counted}; gather "
                "them with feature_statistics over batches of the same store"
            )
        constant = statistics.is_constant
        if bool(constant.any()):
            columns = ", ".join(map(str, constant.nonzero().flatten().tolist()))
            warnings.warn(
                f"constant in the statistics, and so 0 when normalised: feature(s) {columns}",
                stacklevel=2,
            )
        device = self.matrices.device
        mean = statistics.mean.to(device)
        scale = torch.where(constant, 0.0, 1.0 / statistics.std).to(device)
        matrices = ((self.matrices - mean) * scale).to(self.matrices.dtype)
        batch = self._map(lambda tensor: tensor)
        batch.matrices = matrices
        return batch

    def pin_memory(self) -> MatrixBatch:
        """Copy the tensors to pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> MatrixBatch:
        labels = zip(_LABELS_AND_TARGETS, self._cut_labels(), strict=False)
        return MatrixBatch(
            function(self.matrices),
            **{name: function(tensor) for name, tensor in labels},
            position=self._behind,
            context={name: windows.map(function) for name, windows in self.context.items()},
        )
