from __future__ import annotations

import builtins
import collections
import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.pickle_machine import GlobalName, PickleMachine

PAIR = GlobalName("torch.pair")


def machine() -> PickleMachine:
    return PickleMachine(
        {"torch.pair": PAIR, "torch.kind": "kind"},
        {PAIR: lambda *arguments: ["pair", *arguments]},
        lambda identifier: ("persistent", identifier),
    )


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=300),
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), children, max_size=4)
    ),
    max_leaves=20,
)


# Protocols below 3 have no opcode for bytes and call an encoder instead, which is refused.
@given(value=plain, protocol=st.sampled_from([3, 4, 5]))
def test_load_plain_value_gives_it_back(value: Any, protocol: int) -> None:
    assert machine().load(pickle.dumps(value, protocol)) == value


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    ),
    protocol=st.sampled_from([0, 1, 2]),
)
def test_load_text_protocols_give_plain_values_back(value: Any, protocol: int) -> None:
    loaded = machine().load(pickle.dumps(value, protocol))
    # Protocol 0 has no booleans: they are the integers 00 and 01, which pickletools tells apart.
    assert loaded == value


@given(data=st.binary(max_size=200))
def test_load_noise_is_refused_or_plain(data: bytes) -> None:
    with contextlib.suppress(WeightsError):
        machine().load(data)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_load_damaged_pickle_never_raises_another_error(position: int, byte: int) -> None:
    data = bytearray(pickle.dumps({"a": [1, 2.5, ("x", None)], "b": {"c": b"bytes" * 9}}, 4))
    data[position % len(data)] = byte
    with contextlib.suppress(WeightsError):
        machine().load(bytes(data))


def test_load_shared_list_stays_shared() -> None:
    shared: list[Any] = []
    loaded = machine().load(pickle.dumps([shared, shared], 2))
    assert loaded[0] is loaded[1]


def test_load_allowed_call_runs_only_its_entry() -> None:
    data = pickle.PROTO + b"\x02" + pickle.GLOBAL + b"torch\npair\n" + b"K\x01K\x02"
    data += pickle.TUPLE2 + pickle.REDUCE + pickle.STOP
    assert machine().load(data) == ["pair", 1, 2]


def test_load_stack_global_is_looked_up_too() -> None:
    data = b"\x80\x04\x8c\x05torch\x8c\x04kind\x93."
    assert machine().load(data) == "kind"


def test_load_persistent_id_is_resolved() -> None:
    assert machine().load(b"\x80\x02K\x05Q.") == ("persistent", 5)


class Reduced:
    def __init__(self, *reduction: Any) -> None:
        self.reduction = reduction

    def __reduce__(self) -> Any:
        return self.reduction


def hostile(canary: Path) -> dict[str, bytes]:
    command = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": pickle.dumps(Reduced(os.system, (command,)), 2),
        "subprocess": pickle.dumps(Reduced(subprocess.call, (["touch", str(canary)],)), 4),
        "eval": pickle.dumps(Reduced(builtins.eval, (code,)), 2),
        "exec protocol 0": pickle.dumps(Reduced(builtins.exec, (code,)), 0),
        "getattr chain": b"cbuiltins\ngetattr\n(cos\n__dict__\nS'system'\ntR.",
        "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x1cOrderedDict.__init__.__globals__\x93.",
        "inst": f"(S'{command}'\nios\nsystem\n.".encode(),
        "obj": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "newobj": b"\x80\x02cos\nsystem\n(S'" + command.encode() + b"'\nt\x81.",
        "newobj_ex": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
        "memo swap": (
            b"\x80\x02ctorch\npair\nq\x00cos\nsystem\nq\x00h\x00(X"
            + len(command).to_bytes(4, "little")
            + command.encode()
            + b"tR."
        ),
        "in a dict": pickle.dumps({"model": {"w": Reduced(os.system, (command,))}}, 2),
        "in a persistent id": b"\x80\x02(cos\nsystem\ntQ.",
        "as state": b"\x80\x02}cos\nsystem\nb.",
        "ordered dict subclass": pickle.dumps(Reduced(collections.Counter, ()), 2),
        "extension registry": b"\x80\x02\x82\x01.",
        "text persistent id": b"P0\n.",
        "set": pickle.dumps({1, 2}, 4),
        "bytearray": pickle.dumps(bytearray(b"x"), 5),
        "out-of-band buffer": b"\x80\x05\x97.",
    }


CASES = sorted(hostile(Path("canary")))


@pytest.mark.parametrize("case", CASES)
def test_load_hostile_pickle_is_refused_and_nothing_runs(case: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = hostile(canary)[case]
    modules = set(sys.modules)
    with pytest.raises(WeightsError):
        machine().load(data)
    assert not canary.exists()
    assert set(sys.modules) == modules


@pytest.mark.parametrize("case", ["os.system", "exec protocol 0", "eval"])
def test_hostile_pickles_would_run_in_pythons_unpickler(case: str, tmp_path: Path) -> None:
    # Otherwise the test above would show nothing.
    canary = tmp_path / "canary"
    pickle.loads(hostile(canary)[case])
    assert canary.exists()


def test_load_unknown_name_is_named_in_the_message() -> None:
    with pytest.raises(WeightsError, match=r"numpy\.core\.scalar.*nothing was executed"):
        machine().load(b"\x80\x02cnumpy.core\nscalar\n.")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "damaged", id="empty"),
        pytest.param(b"\x80\x02}", "damaged", id="no-stop"),
        pytest.param(b"\x80\x02.", "damaged", id="nothing-on-the-stack"),
        pytest.param(b"\x80\x02(.", "damaged", id="mark-as-result"),
        pytest.param(b"\x80\x02h\x05.", "damaged", id="memo-never-set"),
        pytest.param(b"\x80\x02](K\x01e", "damaged", id="cut-off"),
        pytest.param(b"\x80\x02}K\x01a.", "damaged", id="append-to-a-dict"),
        pytest.param(b"\x80\x02]K\x01K\x02s.", "damaged", id="item-for-a-list"),
        pytest.param(b"\x80\x02}(K\x01u.", "damaged", id="key-without-value"),
        pytest.param(b"\x80\x02})K\x02s.", "damaged", id="tuple-as-key"),
        pytest.param(b"\x80\x02K\x01}b.", "damaged", id="state-for-a-number"),
        pytest.param(b"\x80\x02K\x01)R.", "only rebuild tensors", id="call-of-a-number"),
        pytest.param(b"\x80\x02ctorch\nkind\n)R.", "only rebuild tensors", id="call-of-a-type"),
        pytest.param(
            b"\x80\x02ctorch\npair\nK\x01R.", "only rebuild tensors", id="call-without-a-tuple"
        ),
        pytest.param(b"\x80\x04\x8a\xff.", "damaged", id="long-beyond-the-end"),
        pytest.param(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged", id="huge-bytes"),
    ],
)
def test_load_damaged_pickle_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        machine().load(data)


def test_load_huge_memo_index_costs_nothing() -> None:
    # Python's own unpickler would reserve memory for every index below.
    assert machine().load(b"\x80\x02K\x07r\xff\xff\xff\x7fj\xff\xff\xff\x7f.") == 7


def test_load_popped_and_listed_values() -> None:
    assert machine().load(b"(K\x01K\x02l.") == [1, 2]
    assert machine().load(b"(S'a'\nK\x02d.") == {"a": 2}
    assert machine().load(b"K\x01K\x020.") == 1
