"""How what a run stored is written into a page: as text, whatever it says."""

from __future__ import annotations

from html import escape
from typing import Any


def visible(text: str) -> str:
    """Spell out signs that cannot be seen, such as line ends and those that turn the writing."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def text(value: Any) -> str:
    """Write a stored value so that a browser shows it and does nothing else with it."""
    return escape(visible(str(value)))


def named(value: str) -> str:
    """Write a stored name, kept apart from the direction of the writing around it."""
    return f"<bdi>{text(value)}</bdi>"


def count_of(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
