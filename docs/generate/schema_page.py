"""The page of the output's columns, made from the Arrow schema."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from amg_pipeline.config import SCHEMA_VERSION
from amg_pipeline.storage.mask_table import MASK_SCHEMA

#: A column without a meaning here fails the build, and so does a meaning without a column.
_MEANINGS = {
    "image_id": "path relative to the input, or the manifest's own id",
    "uri": "where the image was read",
    "status": "`ok`, `decode_error`, `fetch_error`, `too_large`, `out_of_memory`, `crash` or `timeout`",
    "error_type": "kind of the error of an image that failed",
    "error_message": "what was wrong with it, at most 500 characters; no time, host or address",
    "width": "pixels, upright; null where unknown",
    "height": "pixels, upright; null where unknown",
    "num_masks": "length of `masks`",
    "masks": "empty for an image without masks, and for a failed one",
    "masks.counts": "COCO's compressed run lengths, of size `[height, width]`",
    "masks.bbox": "left, top, width and height in pixels, tight, as pycocotools' `toBbox`",
    "masks.area": "pixels",
    "masks.predicted_iou": "the model's own estimate of the mask's IoU",
    "masks.stability_score": "IoU of the mask between a higher and a lower threshold",
    "masks.point_coords": "the prompt, x and y in pixels",
    "masks.crop_box": "left, top, width and height of the crop it was found in",
}

_HEAD = """# Output

A run writes one folder, on the same kinds of storage as its input:

```text
OUTPUT/masks/part-SHARD-FP8.parquet   one row per image; the single write of it is the commit
OUTPUT/_amg/plan.json                 settings, fingerprint, model and its digest, counts
OUTPUT/_amg/plan/part-*.parquet       which image is in which row of which shard
OUTPUT/_amg/attempts/                 what failed, and why; written after failures only
OUTPUT/_amg/stats/                    timings of each shard
OUTPUT/_amg/reviews/                  what people decided about masks, if they did
OUTPUT/_amg/summary.json, _SUCCESS    written last
```

A shard is done exactly when its object is there; `FP8` are the first digits of the run's fingerprint.
No image of the input is ever without a row. The same settings, package and kind of device give the same
bytes, whatever the number of workers and however often a shard was tried.
"""

_TAIL = """
The files are compressed with zstd, in row groups of 16 images. Their footer has, under keys that begin
with `amg_pipeline.`, the schema's version, the fingerprint, the package's version, the model and the
resolved settings of mask generation.

## Reading it

Any Parquet reader does. From Python, `load_masks` opens the finished shards of a run, here or on any
store, also while it runs:

```python
from amg_pipeline import load_masks

table = load_masks("masks").to_table(columns=["image_id", "status", "num_masks"])
print(table.to_pydict())
```

A mask as pixels, with pycocotools:

```python
from pycocotools import mask as coco

row = load_masks("masks").to_table().to_pylist()[0]
best = max(row["masks"], key=lambda mask: mask["predicted_iou"])
pixels = coco.decode({"size": [row["height"], row["width"]], "counts": best["counts"]})
```

With SQL, for instance DuckDB's:

```sql
SELECT image_id, m.area, m.predicted_iou
FROM (SELECT image_id, unnest(masks) AS m FROM 'masks/masks/*.parquet')
WHERE m.predicted_iou > 0.3;
```
"""


def make_page() -> str:
    """Write the page in Markdown."""
    columns = list(_columns(MASK_SCHEMA))
    names = {name for name, _, _ in columns}
    if names != _MEANINGS.keys():
        raise ValueError(f"columns and meanings differ: {sorted(names ^ _MEANINGS.keys())}")
    lines = [f"## Columns\n\nSchema version {SCHEMA_VERSION}.\n"]
    lines += ["| column | type | null | meaning |", "|---|---|---|---|"]
    for name, kind, is_nullable in columns:
        null = "may be" if is_nullable else "never"
        lines.append(f"| `{name}` | {kind} | {null} | {_MEANINGS[name]} |")
    return _HEAD + "\n" + "\n".join(lines) + "\n" + _TAIL


def _columns(
    fields: pa.Schema | pa.StructType, prefix: str = ""
) -> Iterator[tuple[str, str, bool]]:
    for field in fields:
        yield prefix + field.name, _kind(field.type), field.nullable
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from _columns(field.type.value_type, f"{prefix}{field.name}.")


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} {_kind(kind.value_type)}"
    if pa.types.is_list(kind):
        return "list of struct"
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))
