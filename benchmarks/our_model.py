"""Our model run on prompts of every kind, and the measure of how far outputs are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.prompt_cases import PromptCase

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM

#: Largest difference allowed, as a fraction of the largest absolute value.
TOLERANCE = 1e-4

Outputs = dict[str, NDArray[Any]]


def run_ours(
    sam: SAM, image: NDArray[np.uint8], cases: list[PromptCase], *, whole_calls: int
) -> tuple[NDArray[np.float32], dict[str, Outputs]]:
    """Run prompts on one image with our model.

    Args:
        sam: A built model.
        image: uint8 `(height, width, 3)`.
        cases: The prompts.
        whole_calls: So many of them go through the whole call, which embeds the image anew; the
            others through the prompt encoder and the decoder.

    Returns:
        The image embedding, and by case: `low_res_logits`, `iou_predictions` and `masks`.
    """
    from keras import ops

    embedding = sam.image_encoder(sam.preprocess(image[None]))
    outputs: dict[str, Outputs] = {}
    for index, case in enumerate(cases):
        if index < whole_calls:
            found = sam(
                {"image": image[None], "multimask_output": case.multimask_output, **case.inputs}
            )
        else:
            found = _run_parts(sam, embedding, image.shape[:2], case)
        outputs[case.name] = {key: ops.convert_to_numpy(value) for key, value in found.items()}
    return ops.convert_to_numpy(embedding), outputs


def _run_parts(sam: SAM, embedding: Any, hw: tuple[int, ...], case: PromptCase) -> dict[str, Any]:
    from amg_pipeline.sam.transforms import longest_side_size

    input_size = longest_side_size(*hw, sam.image_encoder.img_size)
    scale = [input_size[1] / hw[1], input_size[0] / hw[0]]
    prompts = dict(case.inputs)
    if case.points is not None:
        prompts["points"] = (case.points[0] * scale, case.points[1])
    if case.boxes is not None:
        prompts["boxes"] = case.boxes * (scale * 2)
    sparse, dense = sam.prompt_encoder(**prompts)
    logits, iou = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=case.multimask_output,
    )
    masks = sam.postprocess_masks(logits, input_size, hw) > sam.mask_threshold
    return {"low_res_logits": logits, "iou_predictions": iou, "masks": masks}


def relative_error(
    found: NDArray[Any], expected: NDArray[Any], *, largest: float | None = None
) -> float:
    """Give the largest difference over the largest absolute value expected; inf for NaN.

    Args:
        found: What our model gives.
        expected: What it should give.
        largest: Largest absolute value, where `expected` holds only some of the values.
    """
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max()) if largest is None else largest
    error = float(np.abs(found - expected).max() / largest)
    return error if np.isfinite(error) else float("inf")
