"""Which live services a start restarts, because their definition changed while no supervisor ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from repeater.apps.job_files import load_job_files
from repeater.apps.recovery import changed_services
from repeater.apps.reload_worker import reading_of
from repeater.store.store import SqliteStore

JOBS = """
[jobs.s]
command = "exec sleep 60"
schedule = "always"
env_file = "s.env"
[jobs.t]
command = "exec sleep 60"
schedule = "always"
[jobs.u]
command = "true"
schedule = "manual"
env_file = "s.env"
"""


@pytest.mark.parametrize(("env", "expected"), [("A=1\n", set()), ("A=1 # same\n", set()), ("A=2\n", {"s"})])
def test_a_service_whose_env_file_changed_meanwhile_is_restarted(env: str, expected: set[str], tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(JOBS)
    (tmp_path / "s.env").write_text("A=1\n")
    store = SqliteStore(tmp_path / "state", lambda call: call())
    try:
        reading = reading_of(load_job_files([str(path)]), store.salt)
        store.begin(1, reading.document, reading.extras)
        store.flush()
        (tmp_path / "s.env").write_text(env)
        assert changed_services(store, load_job_files([str(path)]).jobfile) == expected
    finally:
        store.close()
