"""Format 2 of the database: its migration to format 3, and how it is read without a migration.

Format 3 has the memory and the CPU time of each run too. This module is frozen.
"""

from __future__ import annotations

import sqlite3

VIEW = "CREATE TEMP VIEW runs AS SELECT *, NULL AS memory, NULL AS cpu FROM main.runs"
"""Shows the rows of a format-2 database with the columns of format 3, on a connection that only reads."""


def migrate(db: sqlite3.Connection) -> None:
    """Change the tables of format 2 to those of format 3, in the transaction that is open."""
    db.execute("ALTER TABLE runs ADD COLUMN memory INTEGER")
    db.execute("ALTER TABLE runs ADD COLUMN cpu INTEGER")
