"""Runs blocks of code from standard input in one namespace, each after a line with its length."""

from __future__ import annotations

import sys
import traceback
from typing import Any

names: dict[str, Any] = {"__name__": "__main__"}
while head := sys.stdin.readline():
    length, _, source = head.rstrip("\n").partition(" ")
    code = sys.stdin.read(int(length))
    try:
        exec(compile(code, source, "exec"), names)
        print("<<done>>", flush=True)
    except Exception:  # noqa: BLE001 - any failure of a block is the reader's to see
        traceback.print_exc(file=sys.stdout)
        print("<<failed>>", flush=True)
