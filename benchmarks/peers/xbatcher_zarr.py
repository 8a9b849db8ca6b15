"""xbatcher: windows along `row` of an xarray dataset in Zarr, through its torch MapDataset.

https://xbatcher.readthedocs.io/en/latest/user-guide/training-a-neural-network-with-Pytorch-and-Xbatcher.html
As there, the dataset is loaded first and a DataLoader shuffles single windows. Larger patches
(`batch_dims`) are several times faster but hold neighbours only, so they can't be shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import xbatcher
from source import L, load_rows
from torch.utils.data import DataLoader
from xbatcher.loaders.torch import MapDataset


def prepare(source: Path, folder: Path) -> None:
    rows = xr.DataArray(np.array(load_rows(source)), dims=("row", "feature"))
    rows.to_dataset(name="rows").to_zarr(folder / "rows.zarr")


class Loader:
    def __init__(self, folder: Path, batch: int, seed: int):
        rows = xr.open_zarr(folder / "rows.zarr")["rows"].load()
        windows = xbatcher.BatchGenerator(
            rows, input_dims={"row": L}, input_overlap={"row": L - 1}, preload_batch=False
        )
        rng = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(MapDataset(windows), batch, shuffle=True, generator=rng)

    def epoch(self) -> Iterator[torch.Tensor]:
        return iter(self._loader)
