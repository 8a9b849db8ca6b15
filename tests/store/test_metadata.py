"""Metadata is written as zarr itself writes it, to the byte."""

from __future__ import annotations

import warnings

import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from grandbatch.store.format import StoreSpec
from grandbatch.store.metadata import metadata_documents

COMPRESSORS = {
    "none": [],
    "lz4": [BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=4)],
    "zstd": [ZstdCodec(level=1)],
}


def written_by_zarr(spec, attributes, folder):
    group = zarr.create_group(folder, zarr_format=3, attributes={"grandbatch": attributes})
    for array in spec.arrays:
        chunk = array.chunk_shape
        group.create_array(
            array.name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunk,
            shards=(array.shard_chunks * chunk[0], *chunk[1:]) if array.shard_chunks > 1 else None,
            filters=None,
            compressors=[*COMPRESSORS[array.codec], Crc32cCodec()],
            fill_value=array.fill_value,
            dimension_names=array.dimension_names,
            attributes=array.attributes,
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("zarr.json")}


@pytest.mark.parametrize("layout", ["windows", "rows"])
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize(("n_windows", "n_targets"), [(1, 0), (70_000, 2)])
@pytest.mark.parametrize("chunk_windows", [7, 4096])
def test_metadata_has_the_bytes_that_zarr_writes(
    tmp_path, layout, codec, n_windows, n_targets, chunk_windows
):
    spec = StoreSpec.plan(
        n_windows=n_windows,
        sequence_length=8,
        stride=3,
        n_features=2,
        chunk_windows=chunk_windows,
        layout=layout,
        codec=codec,
        block_rows=8 + (chunk_windows - 1) * 3 if layout == "rows" else 0,
        n_targets=n_targets,
    )
    attributes = {
        "name": 'é "日"',
        "none": None,
        "numbers": [1, -0.5, 1e300, 3e-7],
        "of": {"a": []},
    }
    documents = metadata_documents(spec, attributes)
    assert documents == written_by_zarr(spec, attributes, tmp_path / "s.zarr")
