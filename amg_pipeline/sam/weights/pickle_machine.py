"""A machine that reads pickles as data: it builds plain containers and runs nothing.

Python's own unpickler calls whatever a pickle names, and even with a guarded `find_class` it lets
a pickle set attributes on what it was given, hash nested keys for hours and reserve memory for a
made-up memo index. This machine knows only the opcodes with which `torch.save` writes a state
dict. The objects that it hands out are inert: a name is a `GlobalName`, never the thing named,
and the only calls are those that its `calls` table lists.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amg_pipeline.errors import WeightsError

Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A name that a pickle refers to, as `module.name`."""

    path: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a run of stack items begins."""


_MARK = _Mark()

#: Opcodes whose argument, as decoded by `pickletools`, is the value to push.
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}

_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleMachine:
    """Reads one pickle.

    Args:
        globals_: Names that the pickle may mention, with the inert value each becomes.
        calls: What happens when one of those values is called; called with the pickle's
            arguments, which are only numbers, text, containers and values of these two tables.
        persistent: Resolves a persistent id (`torch.save` writes storages this way).
    """

    def __init__(
        self,
        globals_: Mapping[str, Any],
        calls: Mapping[GlobalName, Call],
        persistent: Callable[[Any], Any],
    ) -> None:
        self._globals = globals_
        self._calls = calls
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self, data: bytes) -> Any:
        """Return what the pickle describes.

        Raises:
            WeightsError: If the pickle is broken, names something that is not allowed, or uses an
                opcode that a state dict does not need.
        """
        self._stack, self._memo = [], {}
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise WeightsError(
                "Expected a pickled state dict as torch.save writes it. "
                f"Received: a damaged pickle ({type(error).__name__}: {error})"
            ) from None
        raise WeightsError("Expected a pickled state dict. Received: a pickle without an end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _PUTS:
            self._memo[argument] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in _TUPLE_SIZES:
            items = [self._pop() for _ in range(_TUPLE_SIZES[name])]
            self._stack.append(tuple(reversed(items)))
        else:
            action = _ACTIONS.get(name)
            if action is None:
                raise WeightsError(
                    "A weights file may only hold tensors, numbers, text and containers of them. "
                    f"Received: the pickle opcode {name}; nothing was executed"
                )
            action(self, argument)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value was expected")
        return value

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        self._stack.pop()
        return items[::-1]

    def _ignore(self, argument: Any) -> None:
        """PROTO and FRAME only describe the encoding."""

    def _discard(self, argument: Any) -> None:
        self._stack.pop()

    def _memoize(self, argument: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _append(self, argument: Any) -> None:
        self._extend_list([self._pop()])

    def _appends(self, argument: Any) -> None:
        self._extend_list(self._pop_to_mark())

    def _extend_list(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError(f"items for a {type(target).__name__}, not for a list")
        target.extend(items)

    def _setitem(self, argument: Any) -> None:
        value = self._pop()
        self._update_dict([self._pop(), value])

    def _setitems(self, argument: Any) -> None:
        self._update_dict(self._pop_to_mark())

    def _update_dict(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError(f"{len(items)} keys and values for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A nested key could take forever to hash; a state dict has none.
            if type(key) not in (str, int):
                raise TypeError(f"a key of type {type(key).__name__}")
            target[key] = value

    def _tuple(self, argument: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _list(self, argument: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _dict(self, argument: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._update_dict(items)

    def _global(self, argument: Any) -> None:
        # pickletools joins module and name with a space.
        self._push_global(*str(argument).split(" ", 1))

    def _stack_global(self, argument: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_global(module, name)

    def _push_global(self, module: Any, name: Any) -> None:
        path = f"{module}.{name}"
        if path not in self._globals:
            raise WeightsError(
                "A weights file may only name tensors and their storages. "
                f"Received: a reference to {path[:200]!r}; nothing was executed. "
                "Save the state dict alone: torch.save(model.state_dict(), path)"
            )
        self._stack.append(self._globals[path])

    def _reduce(self, argument: Any) -> None:
        arguments, function = self._pop(), self._pop()
        call = self._calls.get(function) if isinstance(function, GlobalName) else None
        if call is None or type(arguments) is not tuple:
            raise WeightsError(
                "A weights file may only rebuild tensors. "
                f"Received: a call of {str(function)[:200]}; nothing was executed"
            )
        self._stack.append(call(*arguments))

    def _build(self, argument: Any) -> None:
        # torch hangs version numbers on state dicts as attributes; nobody needs them.
        self._pop()
        if type(self._stack[-1]) is not dict:
            raise TypeError(f"a state for a {type(self._stack[-1]).__name__}")

    def _persistent_id(self, argument: Any) -> None:
        self._stack.append(self._persistent(self._pop()))


_ACTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "PROTO": PickleMachine._ignore,
    "FRAME": PickleMachine._ignore,
    "POP": PickleMachine._discard,
    "MEMOIZE": PickleMachine._memoize,
    "APPEND": PickleMachine._append,
    "APPENDS": PickleMachine._appends,
    "SETITEM": PickleMachine._setitem,
    "SETITEMS": PickleMachine._setitems,
    "TUPLE": PickleMachine._tuple,
    "LIST": PickleMachine._list,
    "DICT": PickleMachine._dict,
    "GLOBAL": PickleMachine._global,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "REDUCE": PickleMachine._reduce,
    "BUILD": PickleMachine._build,
    "BINPERSID": PickleMachine._persistent_id,
}
