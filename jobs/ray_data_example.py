"""Masks as one step of a Ray Data pipeline: photos in, Parquet with masks out.

    python jobs/ray_data_example.py PHOTOS OUTPUT [POINTS_PER_SIDE]

PHOTOS is a folder or prefix and OUTPUT a folder, on local disk or in an object store. The packaged
`tiny` runs on the CPU; see `amg_pipeline.distributed.dataset` for the published models on GPUs.
"""

from __future__ import annotations

import sys

import ray

from amg_pipeline.distributed.dataset import GenerateMasks


def main(photos: str, output: str, points_per_side: str = "32") -> None:
    """Generate the masks of a folder of photos and print a line about each."""
    dataset = ray.data.read_binary_files(photos, include_paths=True)
    masked = dataset.map_batches(
        GenerateMasks,
        fn_constructor_kwargs={
            "model": {"variant": "tiny", "intra_op_threads": 1},
            "amg": {"points_per_side": int(points_per_side)},
        },
        batch_format="pyarrow",
        batch_size=4,
        num_cpus=1,
        concurrency=1,
    )
    # The photos themselves are where they were.
    masked = masked.drop_columns(["bytes"]).materialize()
    masked.write_parquet(output)
    for row in masked.select_columns(["path", "status", "num_masks"]).iter_rows():
        print(f"{row['path']}: {row['status']}, {row['num_masks']} masks")


if __name__ == "__main__":
    main(*sys.argv[1:])
