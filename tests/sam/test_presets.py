from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from amg_pipeline.sam.presets import PIXEL_MEAN, PIXEL_STD, PRESETS
from amg_pipeline.sam.weights.architecture import expected_shapes, of_preset

#: Frequencies of the positional encoding: fixed, so no parameters, but stored with them.
FOURIER_VALUES = 256


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)],
)
def test_preset_has_the_published_number_of_parameters(variant: str, parameters: int) -> None:
    shapes = expected_shapes(of_preset(PRESETS[variant]))
    assert sum(map(math.prod, shapes.values())) == parameters + FOURIER_VALUES


def test_tiny_fits_into_the_package_in_half_precision() -> None:
    shapes = expected_shapes(of_preset(PRESETS["tiny"]))
    assert 2 * sum(map(math.prod, shapes.values())) < 25_000_000


def test_presets_are_the_four_variants_smallest_first() -> None:
    assert list(PRESETS) == ["tiny", "vit_b", "vit_l", "vit_h"]


@pytest.mark.parametrize("variant", PRESETS)
def test_preset_sizes_divide_and_global_blocks_end_the_encoder(variant: str) -> None:
    preset = PRESETS[variant]
    assert preset.grid_size * preset.patch_size == preset.img_size
    assert preset.embed_dim % preset.num_heads == 0
    assert preset.global_attn_indexes[-1] == preset.depth - 1
    # Eight decoder heads on halved channels, and masks with an eighth of the channels.
    assert preset.out_chans % 16 == 0


def test_published_presets_share_everything_but_the_encoder() -> None:
    for variant in ("vit_b", "vit_l", "vit_h"):
        preset = PRESETS[variant]
        assert (preset.grid_size, preset.window_size, preset.out_chans) == (64, 14, 256)
        assert (preset.mlp_dim, preset.mask_in_chans, preset.iou_head_hidden_dim) == (2048, 16, 256)


def test_pixel_statistics_are_imagenets_in_levels() -> None:
    assert [mean / 255 for mean in PIXEL_MEAN] == pytest.approx([0.485, 0.456, 0.406])
    assert [std / 255 for std in PIXEL_STD] == pytest.approx([0.229, 0.224, 0.225])


def test_preset_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PRESETS["tiny"].depth = 3  # type: ignore[misc]
