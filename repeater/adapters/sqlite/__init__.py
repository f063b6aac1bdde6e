"""History and progress in SQLite.

Used by `app` and `once` only; the fake with the same contract is `tests/fakes/store.py`. It must never replace bad
state by empty state: a database that is damaged, newer or missing where one was is refused and left as it is. Reached
through two doors: `SqliteStore` for the one supervisor, which takes the lock before it touches anything, and
`open_reader` for commands, which needs no lock and creates nothing.

`folder` is the state folder and its lock, `opening` checks and makes the database, `rows` turns records into rows,
`reader` asks; `store` says what is written, `inbox` is where that waits, `writer` writes it.

The names below are imported when they are first used: most commands only want to know where the folder is.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repeater.adapters.sqlite.folder import DATABASE, MARKER, Lock, make_folder, owner_of, state_folder
    from repeater.adapters.sqlite.opening import VERSION
    from repeater.adapters.sqlite.origin import Origin, read_origin, write_origin
    from repeater.adapters.sqlite.reader import Reader, open_reader
    from repeater.adapters.sqlite.store import SqliteStore

_HOMES = {
    **dict.fromkeys(("DATABASE", "MARKER", "Lock", "make_folder", "owner_of", "state_folder"), "folder"),
    "VERSION": "opening",
    **dict.fromkeys(("Origin", "read_origin", "write_origin"), "origin"),
    **dict.fromkeys(("Reader", "open_reader"), "reader"),
    "SqliteStore": "store",
}
__all__ = [
    "DATABASE",
    "MARKER",
    "VERSION",
    "Lock",
    "Origin",
    "Reader",
    "SqliteStore",
    "make_folder",
    "open_reader",
    "owner_of",
    "read_origin",
    "state_folder",
    "write_origin",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
