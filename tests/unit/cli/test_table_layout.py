"""Tables that fit the width, at 40, 80 and 120 columns."""

from __future__ import annotations

import pytest

from repeater.cli.table_layout import table_lines

HEAD = ("TIME (UTC)", "JOB", "OUTCOME", "TOOK", "REASON", "RUN")
RUN = "1a22cffd5f000cd54735"
LONG = "cannot start: the working directory does not exist"
ROWS = [
    ("15:08:13", "backup-of-the-customers-database", "failed", "4.0s", LONG, RUN),
    ("2026-11-29 15:08", "web", "skipped", "", "paused: moving", ""),
]
TABLES = {
    0: f"""\
TIME (UTC)        JOB                               OUTCOME  TOOK  REASON{" " * 46}RUN
15:08:13          backup-of-the-customers-database  failed   4.0s  {LONG}  {RUN}
2026-11-29 15:08  web                               skipped        paused: moving""",
    120: f"""\
TIME (UTC)        JOB                               OUTCOME  TOOK  REASON                           RUN
15:08:13          backup-of-the-customers-database  failed   4.0s  cannot start: the working        {RUN}
                                                                   directory does not exist
2026-11-29 15:08  web                               skipped        paused: moving""",
    80: """\
TIME (UTC)        JOB                   OUTCOME  TOOK  REASON
15:08:13          backup-of-…-database  failed   4.0s  cannot start: the working
                                                       directory does not exist
2026-11-29 15:08  web                   skipped        paused: moving""",
    40: """\
15:08:13  backup-of-…-database  failed
  4.0s
  cannot start: the working directory
  does not exist
2026-11-29 15:08  web  skipped
  paused: moving""",
}


@pytest.mark.parametrize("width", TABLES)
def test_a_table_has_this_layout(width: int) -> None:
    lines = table_lines(HEAD, ROWS, width, name=1, text=4, optional=5)
    assert "\n".join(lines) == TABLES[width]
    assert not width or max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [40, 80, 120])
def test_sixty_rows_have_the_layout_of_three(width: int) -> None:
    lines = table_lines(HEAD, ROWS * 30, width, name=1, text=4, optional=5)
    assert max(map(len, lines)) <= width
    assert " ".join(lines).count("moving") == 30


@pytest.mark.parametrize("width", [40, 120])
def test_cells_are_painted_without_a_change_of_the_layout(width: int) -> None:
    plain = table_lines(HEAD, ROWS, width, name=1, text=4, optional=5)
    painted = table_lines(HEAD, ROWS, width, name=1, text=4, optional=5, paint=lambda _c, _t, padded: f"<{padded}>")
    assert [line.replace("<", "").replace(">", "").rstrip() for line in painted] == plain
    assert "<failed" in "".join(painted)
