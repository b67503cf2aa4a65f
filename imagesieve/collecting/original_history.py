"""The original's `download_history.pickle`, read without running anything in it.

A pickle is a program. The standard library's reader, however restricted, still allocates what a
file merely announces and hashes whatever it nests, and both can be made to take for ever. So the
few instructions that build texts, lists, sets and dicts are carried out here; all others refuse the
file.
"""

import io
import pickletools
from pathlib import Path
from typing import Any

from imagesieve.errors import UsageError
from imagesieve.files import read_bytes
from imagesieve.web import urls

MAX_BYTES = 64 * 2**20
MAX_INSTRUCTIONS = 2_000_000  # some 300,000 images; a hostile file ends here after a few seconds

_SETS = frozenset(
    f"{module} {name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset")
)
_SET = object()  # stands for the names `set` and `frozenset`
# Values that no history needs, of which only the place on the stack counts.
_UNUSED = frozenset(
    {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
    | {"FLOAT", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)


def read_urls(path: Path) -> tuple[str, ...]:
    """Return every URL that the original tried, once each and normalised, in the order of the file.

    The file is two pickles in a row: the URLs (a list, a tuple, a set or the keys of a dict), then
    MD5 -> file name, which is read but not needed and may be missing. What follows is ignored, and
    so is every item that is not an http or https URL.

    Raises:
        UsageError: the file cannot be read, is over `MAX_BYTES`, damaged or cut off, does not begin
            with URLs, or contains more than a history needs.
    """
    data = read_bytes(path, MAX_BYTES, "download history")
    if not data:
        raise UsageError(f"{path} is empty: there is no history in it. Move it away.")
    file = io.BytesIO(data)
    machine = _Machine()
    away = "Move it away to go on without it."
    try:
        found = machine.run(file)
        if file.tell() < len(data):
            machine.run(file)
    except _RefusedError as error:
        raise UsageError(f"{path} is not imported, because it {error}. {away}") from error
    except ValueError as error:
        reason = str(error)[:200]
        raise UsageError(
            f"{path} is not a download history, or damaged or cut off: {reason}. {away}"
        ) from error
    if not isinstance(found, list | dict):
        raise UsageError(f"{path} does not begin with a list of URLs as a history does. {away}")
    # `&amp;` stays: the original requested just that, so the real URL is still untried.
    texts = (text for text in found if isinstance(text, str) and text.isprintable())
    return tuple(dict.fromkeys(url for url in map(urls.normalize, texts) if url))


class _RefusedError(Exception):
    """The pickle does something that no history does; the message follows "because it"."""


def _require(is_so: bool, problem: str) -> None:
    if not is_so:
        raise ValueError(f"it {problem}")


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
        """Run one pickle, and leave `file` behind its end."""
        self._stack, self._marks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(file):
            self._num_instructions += 1
            if self._num_instructions > MAX_INSTRUCTIONS:
                raise _RefusedError(f"has more than {MAX_INSTRUCTIONS:,} instructions")
            self._carry_out(opcode.name, argument)
        return self._pop()

    def _carry_out(self, name: str, argument: Any) -> None:
        push = self._stack.append
        match name:
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                push(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                push(_text(argument))
            case "EMPTY_LIST" | "EMPTY_SET" | "EMPTY_TUPLE":
                push([])
            case "EMPTY_DICT":
                push({})
            case "MARK":
                self._marks.append(len(self._stack))
            case "APPEND":
                self._extend([self._pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                self._update(self._pop_last(2))
            case "SETITEMS":
                self._update(self._pop_to_mark())
            case "LIST" | "TUPLE" | "FROZENSET":
                push(self._pop_to_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(self._pop_last(int(name[-1])))
            case "DICT":
                items = self._pop_to_mark()
                push({})
                self._update(items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                _require(argument in self._memo, "recalls a value that was never stored")
                push(self._memo[argument])
            case "DUP":
                push(self._top())
            case "POP" if self._marks and self._marks[-1] == len(self._stack):
                self._marks.pop()
            case "POP":
                self._pop()
            case "POP_MARK":
                self._pop_to_mark()
            case "GLOBAL":
                push(_find(argument))
            case "STACK_GLOBAL":
                push(_find(*self._pop_last(2)))
            case "REDUCE":
                push(_call(*self._pop_last(2)))
            case "PROTO" | "FRAME" | "STOP":  # genops ends at STOP by itself
                pass
            case _ if name in _UNUSED:
                push(None)
            case _:
                raise _RefusedError(f"uses the instruction {name}")

    def _pop(self) -> Any:
        _require(bool(self._stack), "takes a value where there is none")
        return self._stack.pop()

    def _pop_last(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_to_mark(self) -> list[Any]:
        _require(bool(self._marks), "takes values up to a mark that is not there")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _top(self) -> Any:
        _require(bool(self._stack), "takes a value where there is none")
        return self._stack[-1]

    def _extend(self, items: list[Any]) -> None:
        _require(isinstance(self._top(), list), "appends to something else than a list")
        self._top().extend(items)

    def _update(self, items: list[Any]) -> None:
        is_fit = isinstance(self._top(), dict) and len(items) % 2 == 0
        _require(is_fit, "stores keys in something else than a dict")
        pairs = zip(items[::2], items[1::2], strict=True)
        self._top().update((key, value) for key, value in pairs if isinstance(key, str))


def _find(*parts: object) -> object:
    """Return what stands for a global name; `GLOBAL` has module and name in one text."""
    texts = [part for part in parts if isinstance(part, str)]
    _require(len(texts) == len(parts), "names something by other values than texts")
    name = " ".join(texts)
    if name not in _SETS:
        raise _RefusedError(f"asks for {name[:100].replace(' ', '.')!r}")
    return _SET


def _call(called: object, arguments: object) -> list[Any]:
    """Return the items of a set: older pickles call `set` with a list. All else is refused."""
    match arguments:
        case [] if called is _SET:
            return []
        case [list() as items] if called is _SET:
            return items
    raise _RefusedError("calls a function")


def _text(value: str) -> str:
    """Return what Python 2 wrote: bytes, of which genops makes one character each."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
