"""The original's `download_history.pickle`, read without running anything in it.

A pickle is a program. The standard library's reader, however restricted, still allocates what a
file merely announces and hashes whatever it nests, and both can be made to take for ever. So the
few instructions that build texts, lists, sets and dicts are carried out here; all others refuse the
file.
"""

import dataclasses
import io
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imagesieve.collecting.bing.result_page import clean_url
from imagesieve.errors import UsageError

MAX_BYTES = 64 * 2**20
MAX_INSTRUCTIONS = 2_000_000  # some 300,000 images; a hostile file ends here after a few seconds

_MD5 = re.compile(r"[0-9a-f]{32}")
_UNSAFE_IN_NAMES = frozenset("/\\:")
_SETS = frozenset(
    f"{module} {name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset")
)


@dataclasses.dataclass(frozen=True)
class History:
    """What the original remembered.

    Attributes:
        urls: every http and https address that it tried, once each, in the order of the file and
            in the form of `SearchResult.url`.
        md5s: MD5 of an image it kept (32 lower-case hexadecimal digits) -> plain file name.
    """

    urls: tuple[str, ...] = ()
    md5s: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_history(path: Path) -> History:
    """Read two pickles in a row: the tried addresses, then MD5 -> file name. No code can run.

    The addresses may be a list, a tuple, a set or the keys of a dict. Without a second pickle, or
    if it is no dict, there are no MD5s. What follows is ignored, and so is every item that is no
    text, no http or https address, no MD5 or no plain file name.

    Raises:
        UsageError: the file cannot be read, is over `MAX_BYTES`, damaged or cut off, does not begin
            with addresses, or wants to do more than a history needs.
    """
    data = _read(path)
    file = io.BytesIO(data)
    machine = _Machine()
    try:
        urls = machine.run(file)
        md5s = machine.run(file) if file.tell() < len(data) else {}
    except _RefusedError as error:
        raise UsageError(
            f"{path} is not imported, because it {error}: a download history holds nothing but "
            "addresses, MD5s and file names. Move it away to go on without it."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path} is no download history, or damaged or cut off: {str(error)[:200]}. "
            "Move it away to go on without it."
        ) from error
    if not isinstance(urls, list | dict):
        raise UsageError(
            f"{path} does not begin with a list of addresses as a history does. Move it away."
        )
    return History(_addresses(urls), _file_names(md5s))


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"The download history {path} cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{path} has more than {MAX_BYTES:,} bytes: no download history is so large"
        )
    if not data:
        raise UsageError(f"{path} is empty: there is no history in it. Move it away.")
    return data


def _addresses(values: list[Any] | dict[str, Any]) -> tuple[str, ...]:
    # `&amp;` stays: the original asked for just that, so the real address is still untried.
    texts = (value for value in values if isinstance(value, str) and value.isprintable())
    return tuple(dict.fromkeys(url for url in map(clean_url, texts) if url))


def _file_names(values: object) -> dict[str, str]:
    items = values.items() if isinstance(values, dict) else ()
    return {
        md5.lower(): name
        for md5, name in items
        if isinstance(name, str) and _MD5.fullmatch(md5.lower()) and _is_file_name(name)
    }


def _is_file_name(name: str) -> bool:
    return name.strip(" .") != "" and name.isprintable() and not _UNSAFE_IN_NAMES & set(name)


class _RefusedError(Exception):
    """The pickle does something that no history does; the message follows "because it"."""


class _Machine:
    """Carries out pickle instructions that build data. Lists, tuples and sets all become lists.

    Only references move, nothing is copied, hashed or walked through, so neither time nor memory
    can outgrow the number of instructions and the bytes of the file.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._num_instructions = 0  # of all pickles in the file

    def run(self, file: io.BytesIO) -> object:
        """Run one pickle, and leave `file` behind its end.

        Raises:
            _RefusedError: an instruction that is not for us, or too many.
            ValueError: the pickle is damaged or cut off.
        """
        self._stack, self._marks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(file):
            self._num_instructions += 1
            if self._num_instructions > MAX_INSTRUCTIONS:
                raise _RefusedError(f"has more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name in _VALUES:
                self._stack.append(_VALUES[opcode.name](argument))
            elif opcode.name in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode.name](self, argument)
            else:
                raise _RefusedError(f"uses the instruction {opcode.name}")
        return self._pop()

    def _pop(self) -> Any:
        _require(bool(self._stack), "takes a value where there is none")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        _require(bool(self._marks), "takes values up to a mark that is not there")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _last(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _top(self) -> Any:
        _require(bool(self._stack), "takes a value where there is none")
        return self._stack[-1]

    def ignore(self, _: object) -> None:
        """PROTO and FRAME say nothing that matters here; genops ends at STOP by itself."""

    def mark(self, _: object) -> None:
        """Remember the height of the stack."""
        self._marks.append(len(self._stack))

    def pop(self, _: object) -> None:
        """Drop the last value, or the mark that was set after it."""
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def pop_mark(self, _: object) -> None:
        """Drop all values up to the mark."""
        self._pop_to_mark()

    def duplicate(self, _: object) -> None:
        """Put the last value on the stack once more."""
        self._stack.append(self._top())

    def remember(self, key: int | None) -> None:
        """Put the last value into the memo; without a key, under the next number."""
        self._memo[len(self._memo) if key is None else key] = self._top()

    def recall(self, key: int) -> None:
        """Put a value from the memo on the stack."""
        _require(key in self._memo, "recalls a value that was never stored")
        self._stack.append(self._memo[key])

    def add_one(self, _: object) -> None:
        """Append the last value to the list below it."""
        self._extend(self._last(1))

    def add_marked(self, _: object) -> None:
        """Append the values up to the mark to the list below it."""
        self._extend(self._pop_to_mark())

    def set_one(self, _: object) -> None:
        """Store the last two values as key and value in the dict below them."""
        self._update(self._last(2))

    def set_marked(self, _: object) -> None:
        """Store keys and values up to the mark in the dict below it."""
        self._update(self._pop_to_mark())

    def collect_list(self, _: object) -> None:
        """Make a list of the values up to the mark."""
        self._stack.append(self._pop_to_mark())

    def collect_last(self, count: int) -> None:
        """Make a list of the last values."""
        self._stack.append(self._last(count))

    def collect_dict(self, _: object) -> None:
        """Make a dict of the keys and values up to the mark."""
        items = self._pop_to_mark()
        self._stack.append({})
        self._update(items)

    def find(self, _: object) -> None:
        """Name something by the two texts on the stack."""
        module, name = self._last(2)
        is_text = isinstance(module, str) and isinstance(name, str)
        _require(is_text, "names something by other values than texts")
        self._stack.append(_find(f"{module} {name}"))

    def call(self, _: object) -> None:
        """Make a set of a list: how older pickles write one. Nothing else can be called."""
        called, arguments = self._last(2)
        if called is not _SET or not isinstance(arguments, list) or len(arguments) > 1:
            raise _RefusedError("calls a function")
        items = arguments[0] if arguments else []
        if not isinstance(items, list):
            raise _RefusedError("makes a set of something else than a list")
        self._stack.append(items)

    def _extend(self, items: list[Any]) -> None:
        _require(isinstance(self._top(), list), "appends to something else than a list")
        self._top().extend(items)

    def _update(self, items: list[Any]) -> None:
        is_fit = isinstance(self._top(), dict) and len(items) % 2 == 0
        _require(is_fit, "stores keys in something else than a dict")
        pairs = zip(items[::2], items[1::2], strict=True)
        self._top().update((key, value) for key, value in pairs if isinstance(key, str))


def _require(is_so: bool, problem: str) -> None:
    if not is_so:
        raise ValueError(f"it {problem}")


_SET = object()  # stands for the names `set` and `frozenset`


def _find(name: str) -> object:
    if name not in _SETS:
        raise _RefusedError(f"asks for {name[:100].replace(' ', '.')!r}")
    return _SET


def _text(value: str) -> str:
    """Read what Python 2 wrote: bytes, of which genops makes one character each."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _unused(_: object) -> None:
    """Stand for a value that no history needs: a number, bytes, None."""


_VALUES: Mapping[str, Callable[[Any], object]] = {
    **dict.fromkeys(
        ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), lambda text: text
    ),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _text),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE"), lambda _: []),
    "EMPTY_DICT": lambda _: {},
    "GLOBAL": _find,
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1"), _unused),
    **dict.fromkeys(("BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _unused),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _unused),
}

_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _Machine.ignore),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "APPEND": _Machine.add_one,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.add_marked),
    "SETITEM": _Machine.set_one,
    "SETITEMS": _Machine.set_marked,
    **dict.fromkeys(("LIST", "TUPLE", "FROZENSET"), _Machine.collect_list),
    "DICT": _Machine.collect_dict,
    "TUPLE1": lambda machine, _: machine.collect_last(1),
    "TUPLE2": lambda machine, _: machine.collect_last(2),
    "TUPLE3": lambda machine, _: machine.collect_last(3),
    "STACK_GLOBAL": _Machine.find,
    "REDUCE": _Machine.call,
}
