"""History, progress and rate limits in SQLite, and the state folder around them.

Bad state is never replaced by empty state: a database that is damaged, newer, or missing where one was, is refused and
left unchanged. `state_dir` is the state folder and its lock, `database` checks and creates the database, `mapping`
turns records into rows, `reader` reads, `store` says what is written, `write_queue` holds it and `writer` writes it.
"""
