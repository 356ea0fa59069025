"""Measure what eight bits make of `tiny`: size, speed, and how many masks stay the same.

    python -m benchmarks.quantised [--photos 8] [--photo-folder DIR]

Against float32: Keras's own `quantize("int8")` of the whole model, and TensorFlow Lite's image
encoder, in float32 and with weights of eight bits, before this project's decoder. Writes
`benchmarks/results/quantised.json` and the table in `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from amg_pipeline.assets import PHOTOS_FOLDER
from benchmarks.bench_parts import agreement
from benchmarks.bench_report import DOCS, put_between
from benchmarks.photos import load_photo

RESULTS = Path(__file__).parent / "results" / "quantised.json"


class LiteEncoder:
    """An image encoder as TensorFlow Lite runs it, in place of a segmenter's own.

    Args:
        sam: The model to convert.
        is_quantised: Whether weights are stored and multiplied in eight bits.
    """

    def __init__(self, sam: Any, *, is_quantised: bool) -> None:
        import tensorflow as tf

        size = sam.image_encoder.img_size
        spec = tf.TensorSpec((1, size, size, 3), tf.float32)
        function = tf.function(
            lambda images: sam.image_encoder(images), autograph=False
        ).get_concrete_function(spec)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], sam)
        if is_quantised:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        self.content: bytes = converter.convert()
        self._interpreter = tf.lite.Interpreter(
            model_content=self.content, num_threads=os.cpu_count()
        )
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, images: Any) -> Any:
        """Embed images `(1, H, W, 3)`."""
        import tensorflow as tf

        self._interpreter.set_tensor(self._input, np.asarray(images))
        self._interpreter.invoke()
        return tf.constant(self._interpreter.get_tensor(self._output))


def _run(sam: Any, photos: list[Any], encoder: Any = None) -> dict[str, Any]:
    from amg_pipeline import AutomaticMaskGenerator

    generator = AutomaticMaskGenerator(sam, output_mode="coco_rle")
    segmenter = generator._segmenter
    if encoder is not None:
        segmenter._embed = encoder
    frame = np.zeros((1, sam.image_encoder.img_size, sam.image_encoder.img_size, 3), np.float32)
    generator.generate(photos[0])  # compiles
    masks, seconds, encoding = [], [], []
    for photo in photos:
        started = time.perf_counter()
        found = generator.generate(photo)
        seconds.append(time.perf_counter() - started)
        masks.append([annotation["segmentation"] for annotation in found])
        started = time.perf_counter()
        np.asarray(segmenter._embed(frame))
        encoding.append(time.perf_counter() - started)
    return {
        "masks": masks,
        "seconds": statistics.median(seconds),
        "encoder_seconds": statistics.median(encoding),
    }


def _saved_bytes(sam: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        sam.save(path)
        return path.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--photo-folder", type=Path, help="the packaged photos if absent")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    from amg_pipeline import SAM

    folder = arguments.photo_folder or PHOTOS_FOLDER
    photos = [load_photo(str(p)) for p in sorted(folder.glob("*.jpg"))[: arguments.photos]]
    sam = SAM.from_variant("tiny")
    rows: dict[str, dict[str, Any]] = {"float32": {**_run(sam, photos), "bytes": _saved_bytes(sam)}}
    for name, is_quantised in (("TFLite encoder, float32", False), ("TFLite encoder, int8", True)):
        encoder = LiteEncoder(sam, is_quantised=is_quantised)
        rows[name] = {**_run(sam, photos, encoder), "bytes": len(encoder.content)}
    quantised = SAM.from_variant("tiny")
    quantised.quantize("int8")
    rows["Keras int8"] = {**_run(quantised, photos), "bytes": _saved_bytes(quantised)}
    strict = rows["float32"]["masks"]
    for row in rows.values():
        row["agreement"] = agreement(strict, row.pop("masks"))
    arguments.results.write_text(json.dumps({"photos": len(photos), "rows": rows}, indent=1) + "\n")
    lines = _table(rows)
    print("\n".join(lines))
    page = DOCS / "performance.md"
    page.write_text(put_between(page.read_text(), "quantised", lines))
    return 0


def _table(rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| `tiny` | file | encoder | a photo | counts differ by | masks matched at IoU 0.9 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        found = row["agreement"]
        lines.append(
            f"| {name} | {row['bytes'] / 1e6:.1f} MB | {1e3 * row['encoder_seconds']:.0f} ms | "
            f"{row['seconds']:.2f} s | {found['median_count_difference']:.1%} | "
            f"{found['matched_share']:.1%} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
