from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.noise import NoiseBank, blur, noise_bank, resize


@pytest.fixture(scope="module")
def bank() -> NoiseBank:
    return NoiseBank(64)


def test_octaves_are_normalised_and_get_finer(bank: NoiseBank) -> None:
    assert len(bank.octaves) == 7
    roughness = []
    for field in bank.octaves:
        assert field.shape == (192, 192)
        assert field.mean() == pytest.approx(0.0, abs=1e-3)
        assert field.std() == pytest.approx(1.0, abs=1e-3)
        roughness.append(np.abs(np.diff(field, axis=1)).mean())
    assert roughness == sorted(roughness)


@pytest.mark.parametrize(
    ("wavelength", "octave"),
    [(64.0, 0), (1000.0, 0), (16.0, 2), (1.0, 6), (0.0, 6)],
    ids=["frame", "beyond", "quarter", "pixel", "zero"],
)
def test_octave_of_wavelength(bank: NoiseBank, wavelength: float, octave: int) -> None:
    assert bank.octave_of(wavelength) == octave


def test_fractal_has_unit_variance_whatever_its_spectrum(bank: NoiseBank) -> None:
    rng = np.random.default_rng(0)
    for persistence in (0.3, 0.6, 1.0):
        spread = np.mean(
            [
                bank.fractal(rng, 64, 64, coarsest_px=8, persistence=persistence).var()
                for _ in range(20)
            ]
        )
        assert spread == pytest.approx(1.0, abs=0.25)


def test_crops_differ_and_depend_on_the_generator_only(bank: NoiseBank) -> None:
    first = bank.grain(np.random.default_rng(1), 20, 30)
    assert first.shape == (20, 30)
    np.testing.assert_array_equal(first, bank.grain(np.random.default_rng(1), 20, 30))
    assert not np.array_equal(first, bank.grain(np.random.default_rng(2), 20, 30))


def test_oriented_noise_is_drawn_out_along_its_angle(bank: NoiseBank) -> None:
    rng = np.random.default_rng(0)
    field = bank.oriented(rng, 60, 60, wavelength_px=4, angle=0.0, stretch=6.0)
    along = np.abs(np.diff(field, axis=1)).mean()
    across = np.abs(np.diff(field, axis=0)).mean()
    assert across > 2 * along


def test_bank_is_shared_within_a_process() -> None:
    assert noise_bank(48) is noise_bank(48)
    assert noise_bank(48).size == 48


def test_resize_keeps_the_mean() -> None:
    field = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    assert resize(field, 15, 10).shape == (15, 10)
    assert resize(field, 15, 10).mean() == pytest.approx(field.mean(), abs=0.02)


def test_blur_keeps_flat_fields_and_spreads_a_point_as_a_gaussian() -> None:
    np.testing.assert_allclose(blur(np.full((3, 9, 7), 0.4, np.float32), 2.0), 0.4, rtol=1e-5)
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1.0
    spread = blur(point, 2.0)
    assert spread.sum() == pytest.approx(1.0, abs=1e-4)
    offsets = np.arange(41) - 20
    assert np.sqrt((spread.sum(axis=0) * offsets**2).sum()) == pytest.approx(2.0, rel=0.1)
    assert point.max() == 1.0, "the input is not changed"
