"""History, progress and rate limits in SQLite, and the state directory.

Bad state is never replaced by empty state: a database that is damaged, newer or deleted is refused and not changed.
`state_dir` has the state directory and its lock. `database` checks and creates SQLite files, `history_database` and
`rate_limits` define their tables. `mapping` turns records into rows. `reader` reads the history. `store` decides what
is written, `write_queue` holds it and `writer` writes it.
"""
