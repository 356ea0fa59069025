"""The least time that mask generation can take on an accelerator, and the share that is reached.

    python -m benchmarks.roofline [--models vit_b vit_l vit_h] [--survivors 0.5] [--measure]

Counts the products of the graphs that the package compiles for an accelerator, and gives each the
time that its operations or its bytes need, whichever is longer, at a device's published rates:
element-wise work is taken to ride along, so this is a bound and no forecast. Writes
`benchmarks/results/roofline.json`, where models that are not asked for stay, and the table in
`docs/performance.md`. With `--measure`, on a
machine with a GPU, it also times the stages there and gives the fraction of the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np

from benchmarks.bench_report import DOCS, put_between
from benchmarks.work_counter import Compiled, Product, WorkRecorder

RESULTS = Path(__file__).parent / "results" / "roofline.json"
_POINTS_PER_SIDE, _POINTS_PER_BATCH = 32, 64
_IMAGE_HW = (683, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Published rates of a device, dense, without sparsity.

    Attributes:
        float32: Operations a second of float32 without tensor cores, which strict precision needs.
        bfloat16: Operations a second of the tensor cores.
        bandwidth: Bytes a second to and from its memory.
    """

    float32: float
    bfloat16: float
    bandwidth: float


#: NVIDIA's data sheets: A100 80 GB SXM (2021), H100 SXM5 (2023).
DEVICES = {
    "A100": Device(float32=19.5e12, bfloat16=312e12, bandwidth=2.039e12),
    "H100": Device(float32=67e12, bfloat16=989e12, bandwidth=3.35e12),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """What a stage of one image does.

    Attributes:
        calls: How often its graph is called.
        products: Products of one call.
    """

    calls: float
    products: tuple[Product, ...]

    @property
    def flops(self) -> float:
        """Operations of all calls."""
        return self.calls * sum(p.times * p.flops for p in self.products)

    @property
    def operand_bytes(self) -> float:
        """Bytes that all products read and write, none of them kept in caches in between."""
        return self.calls * sum(p.times * p.operand_bytes for p in self.products)

    def seconds(self, rate: float, bandwidth: float, *, width: float = 1.0) -> float:
        """Give the least time, each product being bound by operations or by bytes.

        Args:
            rate: Operations a second.
            bandwidth: Bytes a second.
            width: Size of a number as a fraction of what was counted.
        """
        return self.calls * sum(
            p.times * max(p.flops / rate, width * p.operand_bytes / bandwidth)
            for p in self.products
        )


def budgets(model: str, *, survivors: float) -> dict[str, Budget]:
    """Count the stages of one image at the default grid, as compiled for an accelerator.

    Args:
        model: Name of a preset.
        survivors: Share of the prompts whose masks are made.
    """
    segmenter, recorder = _segmenter(model)
    functions: dict[str, Compiled] = {f.name: f for f in recorder.functions}
    shapes: dict[str, Any] = {}

    def products(name: str, *arguments: Any) -> tuple[Product, ...]:
        traced, found = functions[name].trace(*arguments)
        shapes[name] = traced.structured_outputs
        return tuple(found)

    import tensorflow as tf

    from amg_pipeline.sam import segmenter as segmenter_module

    size = segmenter._img_size
    points = _POINTS_PER_SIDE**2
    batches = points / _POINTS_PER_BATCH
    embed = products("embed_batch", tf.TensorSpec((1, size, size, 3), tf.float32))
    features = tf.TensorSpec(shapes["embed_batch"].shape, shapes["embed_batch"].dtype)
    share = products("share_image", features)
    coords = tf.TensorSpec((_POINTS_PER_BATCH, 1, 2), tf.float32)
    attend = products("attend_points", shapes["share_image"], coords)
    state, _ = shapes["attend_points"]
    upscaled = segmenter_module._PROMPTS_UPSCALED
    prompts = tf.TensorSpec((upscaled,), tf.int32)
    wanted = tf.TensorSpec((1,), tf.bool)
    make = products("make_low_res_logits", shapes["share_image"], state, prompts, wanted)
    return {
        "encoder": Budget(1, embed),
        "shared by all prompts": Budget(1, share),
        "prompts to scores": Budget(batches, attend),
        "their masks": Budget(points * survivors / upscaled, make),
    }


def _segmenter(model: str) -> tuple[Any, WorkRecorder]:
    """Make a model as for an accelerator; its weights are zero, since none of them is read."""
    import keras

    from amg_pipeline.sam import SAM, rel_pos_attention
    from amg_pipeline.sam import segmenter as segmenter_module

    recorder = WorkRecorder()
    # Asked when graphs are traced; nothing else of this process runs them.
    for module in (segmenter_module, rel_pos_attention):
        module.has_accelerator = lambda: True
    for initializer in (keras.initializers.GlorotUniform, keras.initializers.RandomNormal):
        initializer.__call__ = lambda _, shape, dtype=None, **__: keras.ops.zeros(shape, dtype)
    with recorder:
        sam = SAM.from_variant(model, weights=None)
        return sam.segmenter(points_per_batch=_POINTS_PER_BATCH), recorder


def bound(stages: Iterable[Budget], device: Device, *, fast: bool = False) -> float:
    """Give the least seconds of all stages of an image on a device."""
    rate = device.bfloat16 if fast else device.float32
    width = 0.5 if fast else 1.0
    return sum(stage.seconds(rate, device.bandwidth, width=width) for stage in stages)


def _row(stages: dict[str, Budget]) -> dict[str, Any]:
    return {
        "stages": {
            name: {"flops": round(stage.flops), "operand_bytes": round(stage.operand_bytes)}
            for name, stage in stages.items()
        },
        "milliseconds": {
            f"{name}, {precision}": {
                "encoder": 1e3 * bound([stages["encoder"]], device, fast=is_fast),
                "all": 1e3 * bound(stages.values(), device, fast=is_fast),
            }
            for name, device in DEVICES.items()
            for precision, is_fast in (("float32", False), ("bfloat16", True))
        },
    }


def _table(models: dict[str, Any], survivors: float) -> list[str]:
    lines = [
        f"Masks of {survivors:.0%} of the prompts are made; the photo is embedded once.",
        "",
        "| one image, 32 x 32 points | "
        + " | ".join(f"`{model}` {what}" for model in models for what in ("GFLOP", "GB"))
        + " |",
        "|---|" + "---|" * (2 * len(models)),
    ]
    stages = next(iter(models.values()))["stages"]
    for stage in stages:
        cells = [
            f"{row['stages'][stage][key] / 1e9:,.0f}"
            for row in models.values()
            for key in ("flops", "operand_bytes")
        ]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| least milliseconds, encoder / all | " + " | ".join(f"`{m}`" for m in models) + " |",
        "|---|" + "---|" * len(models),
    ]
    for device in next(iter(models.values()))["milliseconds"]:
        rows = [row["milliseconds"][device] for row in models.values()]
        cells = [f"{row['encoder']:.1f} / {row['all']:.1f}" for row in rows]
        lines.append(f"| {device} | " + " | ".join(cells) + " |")
    return lines


def measure(model: str, *, repeats: int = 5) -> dict[str, Any]:
    """Time the stages of one image on the GPU of this machine.

    Raises:
        SystemExit: If there is none.
    """
    import tensorflow as tf

    from amg_pipeline.sam import SAM

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise SystemExit("No GPU is at hand: only the bound can be given, without --measure")
    details = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    segmenter = SAM.from_variant(model, weights=None).segmenter(points_per_batch=_POINTS_PER_BATCH)
    photo = np.random.default_rng(0).integers(0, 256, (*_IMAGE_HW, 3), dtype=np.uint8)
    points = np.random.default_rng(1).uniform(0, _IMAGE_HW[0], (_POINTS_PER_BATCH, 2))
    (embedding,) = segmenter.encode([photo])
    seconds = {
        "encoder": _median(lambda: segmenter.encode([photo])[0].features.numpy(), repeats),
        "64 prompts to scores": _median(
            lambda: segmenter.score(embedding, points).predicted_iou, repeats
        ),
    }
    return {"device": details, "seconds": seconds}


def _median(work: Callable[[], Any], repeats: int) -> float:
    work()  # compiles
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _fractions(measured: dict[str, Any], stages: dict[str, Budget]) -> dict[str, float]:
    device = next((d for n, d in DEVICES.items() if n in measured["device"]), None)
    if device is None:
        raise SystemExit(f"No published rates are known here of {measured['device']}")
    batches = _POINTS_PER_SIDE**2 / _POINTS_PER_BATCH
    least = {
        "encoder": bound([stages["encoder"], stages["shared by all prompts"]], device),
        "64 prompts to scores": bound([stages["prompts to scores"]], device) / batches,
    }
    return {name: least[name] / seconds for name, seconds in measured["seconds"].items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--survivors", type=float, default=0.5, help="share of prompts with masks")
    parser.add_argument("--measure", action="store_true", help="time the stages on a GPU too")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--docs", action=argparse.BooleanOptionalAction, default=True, help="write docs/ too"
    )
    arguments = parser.parse_args()
    models: dict[str, Any] = {}
    if arguments.results.is_file():
        before = json.loads(arguments.results.read_text())
        models = before["models"] if before["survivors"] == arguments.survivors else {}
    for model in arguments.models:
        stages = budgets(model, survivors=arguments.survivors)
        models[model] = _row(stages)
        if arguments.measure:
            measured = measure(model)
            measured["fraction_of_the_bound"] = _fractions(measured, stages)
            models[model]["measured"] = measured
            print(model, measured, flush=True)
    models = dict(sorted(models.items(), key=lambda item: item[1]["stages"]["encoder"]["flops"]))
    document = {"survivors": arguments.survivors, "models": models}
    arguments.results.write_text(json.dumps(document, indent=1) + "\n")
    lines = _table(models, arguments.survivors)
    print("\n".join(lines))
    if arguments.docs:
        page = DOCS / "performance.md"
        page.write_text(put_between(page.read_text(), "roofline", lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
