"""Errors of resources with the real `rpr`: a one-off command waits until there is enough again, and counts no failure."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.cli.conftest import RPR, Rpr

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit(2)")


def allow(pid: int, files: int) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))


def test_a_lack_of_descriptors_is_waited_for_and_is_not_a_failure(rpr: Rpr) -> None:
    running = rpr.start(
        "interval", "-e", "200ms", "-t", "4", "--fail-fast", "--success-pattern", "ran", "--", "echo", "ran"
    )
    assert running.stdout is not None
    assert running.stderr is not None
    with running:
        assert running.stdout.readline() == "ran\n"
        allow(running.pid, 6)  # more than the command needs, fewer than are open here
        told = running.stderr.readline()
        allow(running.pid, 256)
        out, err = running.communicate(timeout=60)
    assert told == "rpr: warning: cannot start `echo`: Too many open files; retrying\n"
    assert (out, err, running.returncode) == ("ran\n" * 3, "", 0), "each of the four runs was made once"


def test_a_lack_of_descriptors_from_the_start_is_not_called_a_defect(rpr: Rpr) -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 5; exec "$@"', "sh", sys.executable, RPR, "count", "-t", "2", "--", "true"],
        cwd=rpr.folder,
        env=rpr.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == (
        "rpr: out of resources: Too many open files\nhint: a system limit was reached; see `ulimit -a`\n"
    )
