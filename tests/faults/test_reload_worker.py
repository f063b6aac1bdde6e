"""The process that reads job files again for a supervisor: bombs, death, hanging; nothing of it reaches who asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repeater.apps.reload_client import ReloadWorkerClient
from repeater.apps.reload_worker import LoadedJobs, load_selected
from repeater.errors import ApplyRefused, JobFileError, RepeaterError
from repeater.model.spec import JobSpec
from repeater.worker.protocol import Limits

PATIENCE = 60.0
STALL = 0.5
"""Seconds that the loop of the asker may stand still, on a busy machine; ordinary are ten milliseconds."""


class Client:
    """A client of the reload worker with its event loop."""

    def __init__(self, in_force: Callable[[str], JobSpec | None] = lambda _: None, **limits: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.rereading = ReloadWorkerClient(self.loop, {**os.environ, **limits}, in_force)
        self.stall = 0.0

    @property
    def pid(self) -> int | None:
        return self.rereading._worker.pid

    def until(self, condition: Callable[[], object]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    began = time.perf_counter()
                    await asyncio.sleep(0.002)
                    self.stall = max(self.stall, time.perf_counter() - began - 0.002)

        self.loop.run_until_complete(wait())

    def ask(self, path: Path, **more: str | None) -> list[LoadedJobs | RepeaterError]:
        answers: list[LoadedJobs | RepeaterError] = []
        self.rereading.read((str(path),), (), (), answers.append, **more)
        return answers

    def read(self, path: Path, **more: str | None) -> LoadedJobs | RepeaterError:
        answers = self.ask(path, **more)
        self.until(lambda: answers)
        return answers[0]

    def good(self, path: Path) -> LoadedJobs:
        answer = self.read(path)
        assert isinstance(answer, LoadedJobs), answer
        return answer

    def close(self) -> None:
        self.rereading.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("RPR_MAX_RELOAD_TIME", "1s")
    made = Client()
    made.rereading._worker._limits = Limits(1 << 29, 1, PATIENCE)  # by the clock a busy machine may need long
    yield made
    made.close()


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def job(command: str, head: str = "") -> str:
    return f"{head}\n[jobs.a]\ncommand = {json.dumps(command)}\n"


LONG = f'vars = {{ a = "{"ab" * 100_000}" }}'
SLOW = job("{% for i in range(1000) %}" + "{{ vars.a | replace('a', 'b') | upper | unique | list | length }}" * 9 + "{% endfor %}", LONG)  # fmt: skip
LARGE = job("{{ range(1000) | map('string') | map('replace', '', vars.a) | list | length }}", LONG)
ALIASES = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "a text a thousand million times.toml": job("{{ 'x' * 10**9 }}"),
    "loops in loops.toml": job("{% for i in range(999) %}{% for j in range(999) %}x{% endfor %}{% endfor %}"),
    "a large list.toml": LARGE,
    "many slow loops.toml": LONG + "".join(f"\n[jobs.j{n}]{SLOW.partition('[jobs.a]')[2]}" for n in range(20)),
    "a cube of cells.toml": "[jobs.a]\ncommand = 'x'\n[jobs.a.matrix]\n"
    + "".join(f'{axis} = "{{{{ range(1000) | list }}}}"\n' for axis in "abc"),
    "a pattern.toml": job("x") + 'success = { pattern = "(?:(?:(?:x{1000}){1000}){1000}){1000}" }\n',
    "aliases of aliases.yaml": ALIASES,
    "two hundred thousand brackets.yaml": "[" * 200_000,
    "a hundred thousand brackets.toml": "a = " + "[" * 100_000,
    "a hundred thousand braces.json": '{"a":' * 100_000,
    "a key of a hundred thousand parts.toml": ".".join("a" * 100_000) + " = 1",
    "numbers of a million digits.toml": f"a = {'9' * 1_000_000}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_reported_in_one_line_and_costs_the_supervisor_nothing(
    client: Client, tmp_path: Path, name: str
) -> None:
    good, bomb = tmp_path / "good.toml", tmp_path / name
    good.write_text(job("echo x"))
    bomb.write_text(BOMBS[name])
    client.good(good)
    before, client.stall = resident(), 0.0
    answer = client.read(bomb)
    assert isinstance(answer, RepeaterError)
    assert len(str(answer).splitlines()) <= 20, str(answer)
    assert all(len(line) < 500 for line in str(answer).splitlines())
    assert "Error" not in str(answer)
    assert resident() - before < 30e6
    assert client.stall < STALL
    assert len(client.good(good).jobfile.jobs) == 1


def test_a_template_that_takes_too_long_is_named_with_the_limit(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(SLOW)
    answer = client.read(tmp_path / "jobs.toml")
    assert isinstance(answer, JobFileError)
    assert answer.problems[0].key == "jobs.a.command"
    assert answer.problems[0].line == 3
    assert answer.problems[0].message.endswith("it takes more than 1s of CPU time")


def test_a_template_that_wants_too_much_memory_is_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(LARGE)
    answer = client.read(tmp_path / "jobs.toml")
    assert isinstance(answer, JobFileError)
    assert answer.problems[0].key == "jobs.a.command"
    assert "needs too much memory" in answer.problems[0].message


def test_too_much_memory_for_all_files_is_reported_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RPR_MAX_RELOAD_MEMORY", "8MiB")
    client = Client()
    many = tmp_path / "jobs.toml"
    many.write_text("".join(f'[jobs.j{n}]\ncommand = "x {n}"\n' for n in range(20_000)))
    try:
        told = "cannot read the job files: it needs more than 8 MiB of memory"
        assert [str(client.read(many)) for _ in range(2)] == [told, told]
    finally:
        client.close()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_crashes_is_named_and_the_next_one_loads(
    client: Client, tmp_path: Path, blow: signal.Signals
) -> None:
    good, slow = tmp_path / "good.toml", tmp_path / "slow.toml"
    good.write_text(job("echo x"))
    slow.write_text(SLOW)
    client.good(good)
    answers = client.ask(slow)
    time.sleep(0.1)
    assert client.pid is not None
    os.kill(client.pid, blow)
    client.until(lambda: answers)
    assert str(answers[0]).startswith(f"cannot read the job files: its process was ended by {blow.name}")
    assert len(client.good(good).jobfile.jobs) == 1


def test_a_worker_that_exits_between_two_loads_is_replaced(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(job("echo x"))
    client.good(tmp_path / "jobs.toml")
    first = client.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    client.until(lambda: client.pid is None)
    client.good(tmp_path / "jobs.toml")
    assert client.pid not in (None, first)


def test_a_worker_that_exited_and_is_not_reaped_yet_gets_no_request(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(job("echo x"))
    client.good(tmp_path / "jobs.toml")
    process = client.rereading._worker._process
    assert process is not None
    assert client.pid is not None
    poll, process._popen.poll = process._popen.poll, lambda: None  # type: ignore[method-assign]
    os.kill(client.pid, signal.SIGKILL)
    client.until(process._is_closed)
    client.good(tmp_path / "jobs.toml")
    process._popen.poll = poll  # type: ignore[method-assign]


def test_a_worker_that_hangs_is_given_up(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(job("echo x"))
    client.good(tmp_path / "jobs.toml")
    assert client.pid is not None
    os.kill(client.pid, signal.SIGSTOP)
    client.rereading._worker._limits = Limits(1 << 29, 1, 0.3)
    assert str(client.read(tmp_path / "jobs.toml")) == "cannot read the job files: it took longer than 0.3s"
    client.rereading._worker._limits = Limits(1 << 29, 1, PATIENCE)
    client.good(tmp_path / "jobs.toml")


def test_a_worker_that_cannot_be_started_is_reported(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs.toml").write_text(job("echo x"))
    monkeypatch.setattr(client.rereading._worker, "_argv", ["/no/such/python"])
    told = "cannot read the job files: cannot start a process for it: No such file or directory"
    client.rereading.warm()
    assert str(client.read(tmp_path / "jobs.toml")) == told


def test_an_idle_worker_exits(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(job("echo x"))
    client.rereading._worker._idle = 0.05
    first = client.good(tmp_path / "jobs.toml")
    client.until(lambda: client.pid is None)
    assert client.good(tmp_path / "jobs.toml").jobfile == first.jobfile


def test_a_reader_that_has_grown_gives_its_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPR_MAX_RELOAD_MEMORY", "20MiB")
    client = Client()
    many = tmp_path / "jobs.toml"
    many.write_text("".join(f'[jobs.j{n}]\ncommand = "x {n}"\n' for n in range(8000)))
    try:
        first = client.good(many)
        client.until(lambda: client.pid is None)
        assert client.good(many).jobfile == first.jobfile
    finally:
        client.close()


def test_a_job_that_did_not_change_stays_the_very_same_object(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text("".join(f'[jobs.j{n}]\ncommand = "x {n}"\n' for n in range(300)))
    first = client.good(path)
    jobs = [f'[jobs.j{n}]\ncommand = "x {n}"\n' for n in reversed(range(300))]
    path.write_text("".join(jobs).replace('"x 7"', '"y 7"') + '[jobs.new]\ncommand = "z"\n')
    second = client.good(path)
    before, after = ({one.name: one for one in reading.jobfile.jobs} for reading in (first, second))
    assert [one.name for one in second.jobfile.jobs] == [f"j{n}" for n in reversed(range(300))] + ["new"]
    assert {name for name in after if before.get(name) is not after[name]} == {"j7", "new"}
    assert after["j7"].process.command == "y 7"
    assert list(json.loads(second.document)) == list(after)
    path.write_text("broken")
    assert isinstance(client.read(path), JobFileError)
    path.write_text("".join(jobs))
    assert client.good(path).jobfile.jobs[0] is after["j299"]


def test_a_job_equal_to_an_active_one_is_the_same_object(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text("".join(f'[jobs.j{n}]\ncommand = "x {n}"\n' for n in range(150)))
    in_force = {one.name: one for one in load_selected([str(path)]).jobfile.jobs}
    path.write_text(path.read_text().replace('"x 7"', '"y 7"') + '[jobs.new]\ncommand = "z"\n')
    client = Client(in_force=in_force.get)
    try:
        found = {one.name: one for one in client.good(path).jobfile.jobs}
    finally:
        client.close()
    assert {name for name in found if in_force.get(name) is not found[name]} == {"j7", "new"}
    assert found["j7"].process.command == "y 7"


def test_loads_requested_together_are_done_one_after_the_other(client: Client, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.toml" for n in range(5)]
    for number, path in enumerate(paths):
        path.write_text(job(f"echo {number}"))
    answers = [client.ask(path) for path in paths]
    client.until(lambda: all(answers))
    told = [answer[0] for answer in answers]
    assert [one.jobfile.jobs[0].process.command for one in told if isinstance(one, LoadedJobs)] == [
        f"echo {n}" for n in range(5)
    ]


def test_files_of_another_project_are_refused(client: Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text('project = "one"\n' + job("x"))
    answer = client.read(tmp_path / "jobs.toml", project="two")
    assert isinstance(answer, ApplyRefused)
    assert str(answer) == "cannot apply: the files are of project `one`, the supervisor of `two`"


def test_modules_in_the_folder_of_the_job_file_are_not_imported(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("yaml", "jinja2", "repeater", "json"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close()\n")
    (tmp_path / "jobs.yaml").write_text("jobs: { a: { command: 'echo {{ 1 + 1 }}' } }\n")
    assert client.good(tmp_path / "jobs.yaml").jobfile.jobs[0].process.command == "echo 2"
    assert not (tmp_path / "imported").exists()


ASKER = """
import asyncio, os, sys
from repeater.apps.reload_client import ReloadWorkerClient

async def main():
    loop = asyncio.get_running_loop()
    rereading = ReloadWorkerClient(loop, os.environ)
    done = loop.create_future()
    rereading.read((sys.argv[1],), (), (), done.set_result)
    await done
    rereading.read((sys.argv[2],), (), (), print)
    print(rereading._worker.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_worker_does_not_outlive_its_client_even_during_a_load(tmp_path: Path) -> None:
    good, slow = tmp_path / "good.toml", tmp_path / "slow.toml"
    good.write_text(job("echo x"))
    slow.write_text(SLOW)
    asker = subprocess.Popen([sys.executable, "-c", ASKER, good, slow], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    with asker.stdout:
        pid = int(asker.stdout.readline())
        assert alive(pid)
        asker.kill()
        asker.wait()
    end = time.monotonic() + PATIENCE
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
