"""The process of one contender: reads steps from its input, a JSON object a line, and answers so.

python -m benchmarks.contenders.worker NAME TASK
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from dataclasses import replace
from typing import Any

from benchmarks.contenders.protocol import POINTS_PER_BATCH, Task, grid_points
from benchmarks.photos import load_photo

#: Module, class and arguments of each.
CONTENDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ours": ("benchmarks.contenders.ours", "OurContender", {"precision": "strict"}),
    "ours, fast": ("benchmarks.contenders.ours", "OurContender", {"precision": "fast"}),
    "reference": ("benchmarks.contenders.reference", "ReferenceContender", {}),
    "hugging face": ("benchmarks.contenders.hugging_face", "HuggingFaceContender", {}),
    "kerashub": ("benchmarks.contenders.keras_hub", "KerasHubContender", {}),
    "products": ("benchmarks.contenders.products", "Products", {}),
}


def main() -> None:
    name, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    # Libraries print what they like; the pipe is for answers alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, kind, arguments = CONTENDERS[name]
    contender: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        step = request.pop("step")
        started, started_cpu = time.perf_counter(), time.process_time()
        try:
            if step == "load":
                task = replace(task, **request)
                contender = getattr(importlib.import_module(module), kind)(task, **arguments)
                value: Any = None
            else:
                value = _do(contender, step, task, request)
            answer = {
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - started_cpu,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "value": value,
            }
        except Exception as error:  # noqa: BLE001 (whatever it is, the parent must hear of it)
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _do(contender: Any, step: str, task: Task, request: dict[str, Any]) -> Any:
    if step in ("rate", "measure", "stabilities", "set_thresholds"):
        return getattr(contender, step)(**request)
    if step == "save_logits":
        import numpy as np

        np.save(request["path"], contender.logits())
        return None
    size = request.get("size_wh")
    photo = load_photo(request["photo"], size_wh=None if size is None else (size[0], size[1]))
    if step in ("embed", "generate", "masks"):
        return getattr(contender, step)(photo)
    points = grid_points(photo, task.points_per_side, request.get("count", POINTS_PER_BATCH))
    if step == "score":
        return contender.score(points).tolist()
    if step == "work":
        return contender.work(photo, points)
    raise ValueError(f"Unknown step: {step}")


if __name__ == "__main__":
    main()
