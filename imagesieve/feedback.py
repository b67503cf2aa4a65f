"""Corrections of predictions: the service writes them, training reads them.

A feedback folder holds the corrected images, `<class>/<SHA-256 of what was sent>.jpg`, and one
SQLite database with the history (who said what, when) and what is in force for each image. A change
writes the image first, then commits the event that names it, then removes the image's former file.

    python -m imagesieve.feedback export data/feedback > history.jsonl
    python -m imagesieve.feedback copy data/feedback backup/feedback
"""

import contextlib
import dataclasses
import datetime
import hashlib
import logging
import os
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec

from imagesieve import console, files
from imagesieve.class_folders import is_class_name
from imagesieve.errors import OutputError, UsageError

DATABASE_NAME = ".corrections.sqlite"
JOURNAL_NAME = ".feedback.jsonl"  # the history as it was stored before there was a database

CORRECT: Final = "correct"
REJECT: Final = "reject"
UNDO: Final = "undo"

UNCERTAIN: Final = "uncertain"
AUDIT: Final = "audit"
RECENT: Final = "recent"
SENT = "sent"
RECOVERED = "recovered"  # a file without an event: moved there by hand, or the database was lost

# Earlier releases named a file by the first 16 digits.
_STORED = re.compile(r"([^/]+)/([0-9a-f]{16}|[0-9a-f]{64})\.jpg", re.DOTALL)

LOCK_SECONDS = 5.0  # for other processes; a change takes them some milliseconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, previous INTEGER,
    time TEXT NOT NULL, action TEXT NOT NULL, sha256 TEXT NOT NULL, label TEXT, stored TEXT,
    predicted TEXT NOT NULL,  -- as JSON
    model TEXT, reason TEXT NOT NULL, reviewer TEXT, caller TEXT, note TEXT
);
CREATE TABLE IF NOT EXISTS images (
    sha256 TEXT PRIMARY KEY,
    event INTEGER,  -- id of what is in force, NULL when nothing is
    num_bytes INTEGER NOT NULL DEFAULT 0  -- of the stored file, 0 when there is none
);
CREATE TABLE IF NOT EXISTS removed (sha256 TEXT PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS journals (sha256 TEXT PRIMARY KEY)  -- those that were taken over
"""
_IN_FORCE = "SELECT events.* FROM images JOIN events ON events.id = images.event"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FeedbackEvent:
    """One entry of the history."""

    time: Annotated[datetime.datetime, msgspec.Meta(tz=True)] = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        kw_only=True,
    )
    action: Literal["correct", "reject", "undo"]
    # Of the image as it was sent; of the stored one where only that is known.
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    label: str | None = None  # in force from now on; None when it is rejected, or nothing is
    stored: str | None = None  # path of the image in the feedback folder
    predicted: Mapping[str, Any] | None = None  # the model's label, probability and decision
    model: str | None = None  # its digest
    reason: str = SENT  # why the image was reviewed
    reviewer: str | None = None  # who corrected it, as they say
    caller: str | None = None  # name of the API key
    note: str | None = None  # the reviewer's words
    # In the database alone: its number, and that of what is in force again when it is undone.
    id: int | None = dataclasses.field(default=None, compare=False)
    previous: int | None = dataclasses.field(default=None, compare=False)


_FIELDS = [field.name for field in dataclasses.fields(FeedbackEvent) if field.compare]


def parse_stored_name(name: str) -> tuple[str, str] | None:
    """Return the class and the digits of the SHA-256 in a stored image's path; None for others."""
    match = _STORED.fullmatch(name)
    return (match[1], match[2]) if match and is_class_name(match[1]) else None


def corrections(database: sqlite3.Connection, reason: str | None = None) -> list[FeedbackEvent]:
    """Return what is in force, for each image; with a `reason` only where it is so."""
    return _events(database, f"{_IN_FORCE} WHERE reason = coalesce(?, reason)", reason)


def in_force(database: sqlite3.Connection, sha256: str) -> FeedbackEvent | None:
    return next(iter(_events(database, f"{_IN_FORCE} WHERE images.sha256 = ?", sha256)), None)


def before(database: sqlite3.Connection, event: FeedbackEvent | None) -> FeedbackEvent | None:
    """Return what is in force again when an event is undone, or None."""
    previous = event.previous if event else None
    return next(iter(_events(database, "SELECT * FROM events WHERE id = ?", previous)), None)


def append(database: sqlite3.Connection, event: FeedbackEvent) -> None:
    """Add an event to the history, and set what is in force for its image from now on."""
    now = in_force(database, event.sha256)
    former = before(database, now)
    values = msgspec.to_builtins(event) | {"id": None, "previous": None}
    values["predicted"] = msgspec.json.encode(event.predicted).decode()
    if now is not None and event.action != UNDO:
        # Said twice, it is undone at once.
        values["previous"] = now.previous if now.label == event.label else now.id
    number = database.execute(
        f"INSERT INTO events ({', '.join(values)}) "  # noqa: S608 (names of our own fields)
        f"VALUES ({', '.join('?' * len(values))})",
        tuple(values.values()),
    ).lastrowid
    # An undo to another label: events before it were lost, and what it says is in force.
    if event.action == UNDO and event.label in (None, former.label if former else None):
        number = former.id if former else None
    database.execute(
        "INSERT INTO images (sha256, event) VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET event = excluded.event",
        (event.sha256, number),
    )


def stored_images(database: sqlite3.Connection) -> dict[str, str]:
    """Return path -> SHA-256 of what is in force, as far as it has an image."""
    query = _IN_FORCE.replace("events.*", "stored, events.sha256")
    return dict(database.execute(f"{query} WHERE stored IS NOT NULL").fetchall())


def image_of(database: sqlite3.Connection, digits: str) -> str | None:
    """Return the SHA-256 of a known image by its digits in a file's name; None if it is unknown."""
    query = "SELECT sha256 FROM images WHERE sha256 GLOB ? || '*'"
    row = database.execute(query, (digits,)).fetchone()
    return str(row["sha256"]) if row else None


def export(database: sqlite3.Connection, after: int = 0, limit: int = -1) -> tuple[bytes, int]:
    """Return events after a number as lines of JSON, oldest first, and the last one's number."""
    rows = database.execute(_EXPORT, (after, limit)).fetchall()
    return "".join(row["line"] for row in rows).encode(), rows[-1]["id"] if rows else after


# SQLite writes the JSON: to make an object of each row takes several times as long.
_MEMBERS = (f"'{name}', {'json(predicted)' if name == 'predicted' else name}" for name in _FIELDS)
_EXPORT = (
    f"SELECT id, json_object({', '.join(_MEMBERS)}) || char(10) AS line "  # noqa: S608
    "FROM events WHERE id > ? ORDER BY id LIMIT ?"
)


def take_over(database: sqlite3.Connection, journal: Path) -> str | None:
    """Append the events of a journal, one JSON object a line, unless that was done before.

    Damaged lines are left out with a warning. Return its SHA-256; None when there is none.
    """
    try:
        data = read_file(journal)
    except FileNotFoundError:
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    if database.execute("SELECT 1 FROM journals WHERE sha256 = ?", (sha256,)).fetchone():
        return sha256
    lines = [line for line in data.split(b"\n") if line.strip()]
    num_damaged = 0
    for line in lines:
        try:
            append(database, _parse_event(database, line))
        except (ValueError, KeyError, TypeError, RecursionError):
            num_damaged += 1
    if num_damaged:
        numbers = num_damaged, len(lines)
        _log.warning("note: %d of %d lines of %s are damaged; the others count.", *numbers, journal)
    database.execute("INSERT INTO journals VALUES (?)", (sha256,))
    return sha256


def _parse_event(database: sqlite3.Connection, line: bytes) -> FeedbackEvent:
    value = msgspec.json.decode(line)
    event = msgspec.convert({name: value[name] for name in _FIELDS}, FeedbackEvent)
    label, digits = (event.stored and parse_stored_name(event.stored)) or (None, event.sha256)
    is_reject = event.action == REJECT
    if label != event.label or (event.action != UNDO and (label is None) != is_reject):
        raise ValueError("stored in another class than it was corrected to")
    if not event.sha256.startswith(digits):  # it was recovered, and has the SHA-256 of its file
        event = dataclasses.replace(event, sha256=image_of(database, digits) or event.sha256)
    return event


def _events(
    database: sqlite3.Connection, query: str, value: str | int | None
) -> list[FeedbackEvent]:
    rows = map(dict, database.execute(query, (value,)))
    decode = msgspec.json.decode
    return [
        msgspec.convert({**row, "predicted": decode(row["predicted"])}, FeedbackEvent)
        for row in rows
    ]


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Keep out all other writers, and commit in the end, or change nothing if the block fails."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        database.rollback()
        raise


def open_database(path: Path, schema: str, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open a database that all threads and processes of one host may use; make it if need be.

    With `synchronous` FULL, what is committed outlives a power failure; with NORMAL, a kill. Raise
    OutputError if the file is a link, or its file system has no file locks or shared memory.
    """
    if path.is_symlink():
        raise OutputError(f"Cannot use {path}: it is a link, and must be a file.")
    with contextlib.ExitStack() as opened:
        database = sqlite3.connect(
            path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        opened.callback(database.close)
        if database.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise OutputError(
                f"Cannot use {path.parent}: its file system has no file locks or shared memory; "
                "choose a folder on a local disk."
            )
        database.row_factory = sqlite3.Row
        database.execute(f"PRAGMA synchronous={synchronous}")
        with transaction(database):
            for statement in schema.split(";\n"):
                database.execute(statement)
        opened.pop_all()
    return database


def remove_oldest(
    database: sqlite3.Connection, table: str, blob: str, max_bytes: int, max_rows: int = 2**31
) -> None:
    """Delete the rows of a table that were written first, as far as there are too many."""
    database.execute(
        f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM (SELECT rowid, row_number() OVER "  # noqa: S608
        f"newest AS place, sum(length({blob})) OVER newest AS num_bytes FROM {table} "
        "WINDOW newest AS (ORDER BY rowid DESC)) WHERE place > ? OR num_bytes > ?)",
        (max_rows, max_bytes),
    )


@contextlib.contextmanager
def empty_history() -> Iterator[sqlite3.Connection]:
    """Yield a database in memory with the tables of a history."""
    with contextlib.closing(sqlite3.connect(":memory:")) as memory:
        memory.row_factory = sqlite3.Row
        memory.executescript(SCHEMA)
        yield memory


@contextlib.contextmanager
def read_history(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a copy, in memory, of a folder's history; the folder is not changed."""
    path = folder / DATABASE_NAME
    with empty_history() as memory:
        if path.exists():
            # Of a database that no process uses, SQLite would leave files that are the reader's.
            is_used = path.with_name(f"{path.name}-wal").exists()
            url = f"file:{quote(str(path.absolute()))}?{'mode=ro' if is_used else 'immutable=1'}"
            with contextlib.closing(sqlite3.connect(url, uri=True)) as source:
                source.backup(memory)
            memory.executescript(SCHEMA)
        take_over(memory, folder / JOURNAL_NAME)
        memory.commit()
        yield memory


def read_corrections(folder: Path) -> dict[str, FeedbackEvent]:
    """Return what is in force in a folder, by each name without suffix that a file may have.

    A history that cannot be read is logged and empty: the images are worth more than that.
    """
    try:
        with read_history(folder) as history:
            events = corrections(history)
    except (OSError, sqlite3.Error) as error:
        _log.warning("note: the history of %s cannot be read (%s).", folder, error)
        return {}
    by_name = {name: event for event in events for name in (event.sha256[:16], event.sha256)}
    return by_name | {PurePath(event.stored).stem: event for event in events if event.stored}


def find_images(folder: Path) -> dict[str, int]:
    """Return path -> bytes of all stored images; other files and links are left out."""
    found = {}
    for path in folder.glob("*/*.jpg"):
        name, status = path.relative_to(folder).as_posix(), path.lstat()
        is_file = stat.S_ISREG(status.st_mode) and not path.parent.is_symlink()
        if is_file and parse_stored_name(name):
            found[name] = status.st_size
    return found


def image_path(folder: Path, stored: str) -> Path:
    """Return the path of a stored image; raise OutputError when its class folder is a link."""
    path = folder / stored
    if path.parent.is_symlink():
        raise OutputError(f"Cannot use {path.parent}: it is a link, and must be a folder.")
    return path


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; links are not followed."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        return file.read()


def write_image(folder: Path, stored: str, data: bytes) -> None:
    """Write an image as a whole and onto the disk, or not at all."""
    path = image_path(folder, stored)
    if not path.parent.exists():
        path.parent.mkdir()
        files.fsync(folder)
    files.write_bytes(path, data)


def copy_folder(source: Path, target: Path) -> int:
    """Copy a feedback folder that may be in use; return the number of images in the copy.

    Images that `target` has are not copied again. Raise OutputError if `source` has no history, or
    changed meanwhile.
    """
    with read_history(source) as history:
        if not export(history)[0]:
            raise OutputError(f"{source} has no history of corrections: nothing was copied.")
        target.mkdir(parents=True, exist_ok=True)
        names = stored_images(history).keys()
        missing = set()
        for name in names - find_images(target).keys():
            try:
                write_image(target, name, read_file(source / name))
            except FileNotFoundError:
                missing.add(name)
        with read_history(source) as now:
            if missing - stored_images(now).keys():
                raise OutputError(f"{source} changed meanwhile: copy it again.")
        with contextlib.closing(sqlite3.connect(target / DATABASE_NAME)) as database:
            history.backup(database)
            database.execute("PRAGMA journal_mode=DELETE")  # one plain file, for rsync and scp
    for name in find_images(target).keys() - names:
        image_path(target, name).unlink()
    return len(names - missing)


def main(arguments: Sequence[str]) -> int:
    parser = console.argument_parser(
        "Export or copy the corrections that the service stores; it may be running.",
        "  python -m imagesieve.feedback export data/feedback > history.jsonl\n"
        "  python -m imagesieve.feedback copy data/feedback backup/feedback",
    )
    parser.add_argument("command", choices=("export", "copy"))
    parser.add_argument("folder", type=Path, help="the folder of corrections")
    parser.add_argument("target", type=Path, nargs="?", help="the folder that copy writes")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is not a folder: name that of the corrections.")
    if (options.target is None) != (options.command == "export"):
        raise UsageError("export takes one folder, copy takes two.")
    try:
        if options.command == "copy":
            count = copy_folder(options.folder, options.target)
            print(f"{options.target} has {count} corrected images and their history.")
            return console.EXIT_OK
        with read_history(options.folder) as history:
            lines, _ = export(history)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"Cannot read or copy {options.folder}: {error}.") from error
    # Under PYTHONUNBUFFERED `sys.stdout.buffer` may write a part and say no more.
    with open(1, "wb", closefd=False) as out:
        out.write(lines)
    return console.EXIT_OK


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
