"""Settings of any depth: what an override changes, and how a fault is named."""

from __future__ import annotations

from typing import Any

import pytest

from amg_pipeline.config.documents import apply_overrides, parse_document, validate
from amg_pipeline.config.settings import Section
from amg_pipeline.errors import ConfigError


class Wheel(Section):
    spokes: int
    spare: bool | None = None


class Axle(Section):
    wheels: tuple[Wheel, ...] = ()
    length: float = 1.0


class Lights(Section):
    colour: str = "white"


class Cart(Section):
    name: str = "cart"
    axle: Axle = Axle()
    lights: Lights | None = Lights()


def load(document: str = "", *overrides: str) -> Cart:
    values = parse_document(document, Cart)
    apply_overrides(values, overrides, example="axle.length=2")
    return validate(Cart, values, also=("axle.preset",))


def test_overrides_reach_any_depth() -> None:
    values: dict[str, Any] = {"a": {"b": {"c": 1, "d": 2}}}

    apply_overrides(values, ["a.b.c=3", "x.y=[4]", "e=5"], example="")

    assert values == {"a": {"b": {"c": 3, "d": 2}}, "x": {"y": [4]}, "e": 5}


def test_mappings_that_were_given_stay_as_they_are() -> None:
    inner = {"b": {"c": 1}}

    apply_overrides({"a": inner}, ["a.b.c=3"], example="")

    assert inner == {"b": {"c": 1}}


@pytest.mark.parametrize("document", ["", "axle:", "axle: {}"])
def test_section_without_keys_has_its_defaults(document: str) -> None:
    assert load(document) == Cart()


def test_section_that_may_be_none_can_be_turned_off() -> None:
    assert load("lights:").lights is None


def test_switch_that_may_be_none_is_no_number() -> None:
    assert load("axle: {wheels: [{spokes: 1, spare: yes}]}").axle.wheels[0].spare is True


@pytest.mark.parametrize(
    ("document", "override", "message"),
    [
        pytest.param(
            "[1]", "", "a YAML mapping with name, axle, lights. Received: list", id="list"
        ),
        pytest.param("", "axle", "section.key=value, e.g. axle.length=2. Rec", id="no-value"),
        pytest.param("", "axle..length=1", "An override must look like", id="no-name"),
        pytest.param(
            "name: x", "name.x=1", "Section name must be a mapping. Received: 'x'", id="in"
        ),
        pytest.param(
            "axle: {wheels: [1]}",
            "axle.wheels.0.spokes=1",
            "Section axle.wheels must be a mapping. Received: [1]",
            id="inside-a-list",
        ),
        pytest.param("axle: 1", "", "Section axle must be a mapping. Received: 1", id="section"),
        pytest.param(
            "axle: {wheels: [1]}",
            "",
            "Section axle.wheels.0 must be a mapping",
            id="section-in-list",
        ),
        pytest.param(
            "axle: {wheels: [{}]}", "", "axle.wheels.0.spokes must be given", id="missing"
        ),
        pytest.param(
            "axle: {wheels: [{spoke: 1, spokes: 1}]}",
            "",
            "Unknown setting axle.wheels.0.spoke. Did you mean axle.wheels.0.spokes?",
            id="unknown-in-list",
        ),
        pytest.param("", "lights.color=x", "mean lights.colour?", id="unknown-in-optional"),
        pytest.param("", "colour=x", "mean lights.colour?", id="misplaced"),
        pytest.param("", "axle.presets=x", "mean axle.preset?", id="no-field"),
        pytest.param("", "axel.length=1", "Unknown setting axel. Did you mean axle?", id="top"),
        pytest.param("", "lights.colour=*", "as in 'lights.colour=\"*\"'", id="glob"),
    ],
)
def test_fault_is_named(document: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(document, *[override] * bool(override))

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
