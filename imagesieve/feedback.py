"""Corrections of predictions: the service writes them, training reads them.

A feedback folder holds the corrected images, `<class>/<key>.jpg`, and one SQLite database with the
history (who said what, when) and what is in force for each image. A change writes the image first,
then commits the event that names it, then removes the image's former file; a file that no event
names, since a process was killed in between, is removed when the folder is opened again.

    python -m imagesieve.feedback export data/feedback > history.jsonl
    python -m imagesieve.feedback copy data/feedback backup/feedback
"""

import collections
import contextlib
import dataclasses
import datetime
import hashlib
import json
import logging
import os
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec

from imagesieve import console, files
from imagesieve.class_folders import is_class_name
from imagesieve.errors import OutputError, UsageError

DATABASE_NAME = ".feedback.sqlite"
JOURNAL_NAME = ".feedback.jsonl"  # the history as it was stored before there was a database

CORRECT: Final = "correct"
REJECT: Final = "reject"
UNDO: Final = "undo"

UNCERTAIN: Final = "uncertain"
AUDIT: Final = "audit"
RECENT: Final = "recent"
SENT = "sent"
RECOVERED = "recovered"  # a file without an event: moved there by hand, or the database was lost

KEY_DIGITS = 16  # of an image's SHA-256, in the name of its file

_STORED = re.compile(f"([^/]+)/([0-9a-f]{{{KEY_DIGITS}}}|[0-9a-f]{{64}})\\.jpg", re.DOTALL)

LOCK_SECONDS = 5.0  # for other processes; a change takes them some milliseconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL,
    previous INTEGER,  -- id of what is in force again when this event is undone
    time TEXT NOT NULL, action TEXT NOT NULL, sha256 TEXT NOT NULL, label TEXT, stored TEXT,
    predicted TEXT, model TEXT, reason TEXT NOT NULL, reviewer TEXT, caller TEXT, note TEXT
);
CREATE TABLE IF NOT EXISTS images (
    key TEXT PRIMARY KEY, sha256 TEXT NOT NULL,
    event INTEGER,  -- id of what is in force, NULL when nothing is
    num_bytes INTEGER NOT NULL DEFAULT 0  -- of the stored file, 0 when there is none
);
CREATE INDEX IF NOT EXISTS images_sha256 ON images (sha256);
CREATE TABLE IF NOT EXISTS removed (key TEXT PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS journals (num_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL)
"""

_log = logging.getLogger(__name__)


def stored_name(label: str, key: str) -> str:
    """Return the path of a stored image in the feedback folder."""
    return f"{label}/{key}.jpg"


def parse_stored_name(name: str) -> tuple[str, str]:
    """Return label and key of a stored image; raise ValueError for any other path."""
    match = _STORED.fullmatch(name)
    if match is None or not is_class_name(match[1]):
        raise ValueError(f"{name!r} is not the path of a stored image")
    return match[1], match[2]


@dataclasses.dataclass(frozen=True)
class FeedbackEvent:
    """One entry of the history.

    Attributes:
        action: what was done.
        sha256: of the image as it was sent, 64 hexadecimal digits; of the stored one when it was
            `RECOVERED`.
        label: the class in force from now on; None when the image is rejected, or nothing is.
        stored: path of the image in the feedback folder; None when there is none.
        predicted: label, probability and decision of the model; None when it was not asked.
        model: digest of the model.
        reason: why the image was reviewed.
        reviewer: who corrected it, as they say.
        caller: name of the API key.
        note: the reviewer's words.
        time: with its zone.
    """

    action: Literal["correct", "reject", "undo"]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    label: str | None = None
    stored: str | None = None
    predicted: Mapping[str, Any] | None = None
    model: str | None = None
    reason: str = SENT
    reviewer: str | None = None
    caller: str | None = None
    note: str | None = None
    time: Annotated[datetime.datetime, msgspec.Meta(tz=True)] = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    )

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return {name: values[name] for name in _FIELDS}


_FIELDS = ("time", *(name for name in FeedbackEvent.__dataclass_fields__ if name != "time"))


def _parse_event(line: bytes) -> FeedbackEvent:
    value = json.loads(line)
    event = msgspec.convert({name: value[name] for name in _FIELDS}, FeedbackEvent)
    label = None if event.stored is None else parse_stored_name(event.stored)[0]
    is_reject = event.action == REJECT
    if label != event.label or (event.action != UNDO and (label is None) != is_reject):
        raise ValueError("stored in another class than it was corrected to")
    return event


class History:
    """The events of a feedback folder, and what is in force for each image.

    An image is stored under its key, the first digits of its SHA-256. Methods that write are to be
    called inside a `transaction`. The database has the tables of `SCHEMA`.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        database.row_factory = sqlite3.Row
        self.database = database

    def row(self, query: str, *values: object) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        row: sqlite3.Row | None = self.database.execute(query, values).fetchone()
        return row

    def key_of(self, sha256: str) -> str:
        """Return the key of an image, registered or not."""
        known = self.row("SELECT key FROM images WHERE sha256 = ?", sha256)
        if known is not None:
            return str(known["key"])
        key = sha256[:KEY_DIGITS]
        other = self.row("SELECT sha256 FROM images WHERE key = ?", key)
        # A recovered file is registered by its own SHA-256: it may be of the image that was sent.
        return sha256 if other is not None and other["sha256"].startswith(key) else key

    def register(self, key: str, sha256: str) -> None:
        """Add an image for which nothing is in force, unless it is there already."""
        self.database.execute(
            "INSERT INTO images (key, sha256) VALUES (?, ?) ON CONFLICT (key) DO UPDATE "
            "SET sha256 = excluded.sha256 WHERE instr(excluded.sha256, key) = 1",
            (key, sha256),
        )

    def in_force(self, key: str) -> FeedbackEvent | None:
        """Return the event in force for an image, or None."""
        row = self._in_force(key)
        return _event(row) if row else None

    def before(self, key: str) -> FeedbackEvent | None:
        """Return the event that is in force again when the one in force is undone, or None."""
        row = self._previous(self._in_force(key))
        return _event(row) if row else None

    def corrections(self, reason: str | None = None) -> dict[str, FeedbackEvent]:
        """Return what is in force, by the key of the image; with a `reason` only where it is so."""
        rows = self.database.execute(
            "SELECT events.*, images.sha256 AS sent FROM images JOIN events ON events.id = event "
            "WHERE reason = coalesce(?, reason)",
            (reason,),
        )
        return {row["key"]: dataclasses.replace(_event(row), sha256=row["sent"]) for row in rows}

    def events(self, after: int = 0, limit: int = -1) -> dict[int, FeedbackEvent]:
        """Return the events, oldest first, by their number; only those with one above `after`."""
        query = "SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?"
        rows = self.database.execute(query, (after, limit))
        return {row["id"]: _event(row) for row in rows}

    def append(self, key: str, event: FeedbackEvent) -> None:
        """Add an event, and set what is in force for its image from now on."""
        before = self._in_force(key)
        previous = None
        if before is not None and event.action != UNDO:
            is_same = before["label"] == event.label  # said twice, it is undone at once
            previous = before["previous"] if is_same else before["id"]
        values = {**event.to_json(), "key": key, "previous": previous}
        if event.predicted is not None:
            values["predicted"] = json.dumps(event.predicted, allow_nan=False)
        in_force = self.database.execute(
            f"INSERT INTO events ({', '.join(values)}) "  # noqa: S608 (names of our own fields)
            f"VALUES ({', '.join('?' * len(values))})",
            tuple(values.values()),
        ).lastrowid
        if event.action == UNDO:
            after = self._previous(before)
            # Otherwise events before this one were lost, and what it says is in force.
            if event.label is None or (after is not None and after["label"] == event.label):
                in_force = after["id"] if after is not None else None
        self.database.execute("UPDATE images SET event = ? WHERE key = ?", (in_force, key))

    def take_over(self, journal: Path) -> bool:
        """Append the events of a journal, one JSON object a line, that are not here yet.

        Lines that are damaged are left out with a warning. Return whether there is a journal.
        """
        try:
            data = read_image(journal)
        except FileNotFoundError:
            return False
        done = 0
        for num_bytes, sha256 in self.database.execute("SELECT num_bytes, sha256 FROM journals"):
            if hashlib.sha256(data[:num_bytes]).hexdigest() == sha256:
                done = max(done, num_bytes)
        lines = [line for line in data[done:].split(b"\n") if line.strip()]
        num_damaged = 0
        for line in lines:
            try:
                self._append_line(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                num_damaged += 1
        if num_damaged:
            damage = f"{num_damaged} of {len(lines)} lines of {journal} are damaged"
            _log.warning("note: %s; the others count.", damage)
        seen = (len(data), hashlib.sha256(data).hexdigest())
        self.database.execute("INSERT INTO journals VALUES (?, ?)", seen)
        return True

    def _append_line(self, line: bytes) -> None:
        event = _parse_event(line)
        key = self.key_of(event.sha256)
        if event.stored is not None:
            key = parse_stored_name(event.stored)[1]
        self.register(key, event.sha256)
        self.append(key, event)

    def _in_force(self, key: str) -> sqlite3.Row | None:
        return self.row(
            "SELECT events.* FROM images JOIN events ON events.id = event WHERE images.key = ?", key
        )

    def _previous(self, row: sqlite3.Row | None) -> sqlite3.Row | None:
        return self.row("SELECT * FROM events WHERE id = ?", row["previous"]) if row else None


def _event(row: sqlite3.Row) -> FeedbackEvent:
    values = {name: row[name] for name in _FIELDS}
    if values["predicted"] is not None:
        values["predicted"] = json.loads(values["predicted"])
    return msgspec.convert(values, FeedbackEvent)


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
    """Open a database that all threads and processes of one host may use.

    Args:
        path: of the file; it is made if need be.
        schema: statements that make the tables which do not exist yet.
        synchronous: FULL: what is committed outlives a power failure; NORMAL: a killed process.

    Raises:
        OutputError: the file is a link, or the file system has no file locks or shared memory.
        sqlite3.Error: it cannot be used for another reason.
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
                f"Cannot use {path.parent}: its file system has no file locks or shared memory, "
                "which SQLite needs; choose a folder on a local disk."
            )
        database.execute(f"PRAGMA synchronous={synchronous}")
        with transaction(database):
            for statement in schema.split(";\n"):
                database.execute(statement)
        opened.pop_all()
    return database


@contextlib.contextmanager
def read_history(folder: Path) -> Iterator[History]:
    """Yield a copy, in memory, of a folder's history; the folder is not changed."""
    path = folder / DATABASE_NAME
    with contextlib.closing(sqlite3.connect(":memory:")) as memory:
        if path.exists():
            # Of a database that no process uses, SQLite would leave files that are the reader's.
            is_used = path.with_name(f"{path.name}-wal").exists()
            address = f"file:{quote(str(path.absolute()))}"
            options = "mode=ro" if is_used else "immutable=1"
            with contextlib.closing(sqlite3.connect(f"{address}?{options}", uri=True)) as source:
                source.backup(memory)
        memory.executescript(SCHEMA)
        history = History(memory)
        history.take_over(folder / JOURNAL_NAME)
        memory.commit()
        yield history


def read_corrections(folder: Path) -> dict[str, FeedbackEvent]:
    """Return what is in force in a folder, by the key of the image.

    A history that cannot be read is logged and empty: the images are worth more than what is known
    about them.
    """
    try:
        with read_history(folder) as history:
            return history.corrections()
    except (OSError, sqlite3.Error) as error:
        _log.warning("note: the history of %s cannot be read (%s).", folder, error)
        return {}


def find_images(folder: Path) -> Mapping[str, Mapping[str, int]]:
    """Return key -> path -> size of all stored images; other files and links are left out."""
    found: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for path in sorted(folder.glob("*/*.jpg")):
        name, status = path.relative_to(folder).as_posix(), path.lstat()
        if _STORED.fullmatch(name) and stat.S_ISREG(status.st_mode):
            label, key = name.split("/")[0], path.stem
            if is_class_name(label) and not path.parent.is_symlink():
                found[key][name] = status.st_size
    return found


def image_path(folder: Path, stored: str) -> Path:
    """Return the path of a stored image; raise OutputError when its class folder is a link."""
    path = folder / stored
    if path.parent.is_symlink():
        raise OutputError(f"Cannot use {path.parent}: it is a link, and must be a folder.")
    return path


def read_image(path: Path) -> bytes:
    """Return the bytes of a file; links are not followed."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        return file.read()


def write_image(folder: Path, stored: str, data: bytes) -> None:
    """Write an image as a whole and onto the disk, or not at all."""
    path = image_path(folder, stored)
    if not path.parent.exists():
        path.parent.mkdir()
        files.fsync_folder(folder)
    files.write_bytes(path, data)


def copy_folder(source: Path, target: Path) -> int:
    """Copy a feedback folder that may be in use; return the number of images in the copy.

    Images that `target` has are not copied again.

    Raises:
        OutputError: it cannot be written, or `source` changed meanwhile.
        OSError, sqlite3.Error: it cannot be read.
    """
    target.mkdir(parents=True, exist_ok=True)
    with read_history(source) as history:
        names = _stored_names(history)
        missing = set()
        for name in names - _all_paths(target):
            try:
                write_image(target, name, read_image(source / name))
            except FileNotFoundError:
                missing.add(name)
        with read_history(source) as now:
            if missing - _stored_names(now):
                raise OutputError(f"{source} changed meanwhile: copy it again.")
        with contextlib.closing(sqlite3.connect(target / DATABASE_NAME)) as database:
            history.database.backup(database)
            database.execute("PRAGMA journal_mode=DELETE")  # one plain file, for rsync and scp
    for name in _all_paths(target) - names:
        image_path(target, name).unlink()
    return len(names - missing)


def _stored_names(history: History) -> set[str]:
    return {event.stored for event in history.corrections().values() if event.stored is not None}


def _all_paths(folder: Path) -> set[str]:
    return {path for paths in find_images(folder).values() for path in paths}


def main(arguments: Sequence[str]) -> int:
    """Run `python -m imagesieve.feedback`."""
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
        else:
            with read_history(options.folder) as history:
                for event in history.events().values():
                    print(json.dumps(event.to_json()))
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"Cannot read or copy {options.folder}: {error}.") from error
    return console.EXIT_OK


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
