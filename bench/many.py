"""Ten and a hundred thousand distinct jobs: what it takes to check them, to bring them into force, to have them and
wait, to ask about them, and to change one of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import cpu_seconds, lasting, resident_mb, run_timed, running
from bench.peers import Tools

CAPS = {"RPR_MAX_FILE_SIZE": "64MiB", "RPR_MAX_TOTAL_SIZE": "64MiB", "RPR_MAX_JOBS": "200000"}
RELOAD = {"RPR_MAX_RELOAD_TIME": "2m", "RPR_MAX_RELOAD_MEMORY": "4GiB"}


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    some, most = size(10_000, 20), size(100_000, 40)
    seconds = size(5.0, 0.3)
    return {
        "validate": Bench(
            f"check {some} distinct jobs",
            {
                "TOML": lambda folder: validate(folder, some, [kit.rpr, "validate", "jobs.toml"]),
                "YAML": lambda folder: validate(folder, some, [kit.rpr, "validate", "ours.yaml"]),
                "cronstable": lambda folder: validate(folder, some, [kit.peer("cronstable"), "-v", "-c", "jobs.yaml"]),
            },
            (
                Goal("time", most=0.125, of="cronstable"),
                Goal("time", most=0.5, of="cronstable", ours="YAML"),
            ),
        ),
        "many": Bench(
            f"{some} and {most} distinct jobs in force; CPU and memory of a job are without those of the parser",
            {
                f"{some} jobs": lambda folder: in_force(kit, folder, some, seconds),
                f"{most} jobs": lambda folder: in_force(kit, folder, most, seconds),
                "cronstable": lambda folder: peer(kit, folder, some, seconds),
            },
            (
                Goal("CPU of a job", most=150),
                Goal("memory of a job", most=3),
                Goal("reload of one", most=1),
                Goal("idle CPU", most=1, ours=f"{most} jobs"),
            ),
        ),
        "status": Bench(
            f"`rpr status` of {some} distinct jobs while 100 more start each second; the median of five",
            {f"{some} jobs": lambda folder: asked_under_load(kit, folder, some, seconds)},
            (Goal("status", most=1),),
        ),
    }


def write(folder: Path, jobs: int) -> None:
    """The same jobs in all three languages; none is due soon."""
    toml, ours, yaml = ["version = 1\n"], ["version: 1\njobs:\n"], ["jobs:\n"]
    for number in range(jobs):
        cron = f"{number % 60} {number // 60 % 24} {number % 28 + 1} 2 *"
        toml.append(
            f'[jobs.job-{number}]\ndescription = "number {number}"\ncommand = "echo job {number}"\n'
            f'schedule = {{ cron = "{cron}", timezone = "Europe/Berlin" }}\ntimeout = "{number % 50 + 10}s"\n'
            f'env = {{ NUMBER = "{number}" }}\n'
        )
        ours.append(
            f"  job-{number}:\n    description: number {number}\n    command: echo job {number}\n"
            f"    schedule: {{ cron: '{cron}', timezone: Europe/Berlin }}\n    timeout: {number % 50 + 10}s\n"
            f"    env: {{ NUMBER: '{number}' }}\n"
        )
        yaml.append(
            f"  - name: job-{number}\n    command: echo job {number}\n    schedule: '{cron}'\n"
            f"    timezone: Europe/Berlin\n    executionTimeout: {number % 50 + 10}\n    captureStdout: true\n"
            f"    environment:\n      - key: NUMBER\n        value: '{number}'\n"
        )
    for name, text in (("jobs.toml", toml), ("ours.yaml", ours), ("jobs.yaml", yaml)):
        (folder / name).write_text("".join(text))


def validate(folder: Path, jobs: int, argv: list[str]) -> Reading:
    write(folder, jobs)
    took, memory = run_timed(argv, folder)
    return {"time": (took, "s"), "a job": (took / jobs * 1e6, "us"), "peak memory": (memory, "MB")}


# Not `ru_maxrss`: a process begins with that of the one that started it, and this one has grown by then.
_PARSE = """
import time
try:
    import tomli
except ImportError:
    import tomllib as tomli
def most():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
text = open("jobs.toml", encoding="utf-8").read()
before, began = most(), time.process_time()
tables = tomli.loads(text)
print(time.process_time() - began, most() - before)
"""


def in_force(kit: Tools, folder: Path, jobs: int, seconds: float) -> Reading:
    """What a supervisor needs until it is at rest, then to be asked, then to change one job; one of a job that is done
    after its start is taken off, and so is what the parser alone needs.
    """
    parse_cpu, parse_memory = _parsed(kit, folder, jobs)
    bare_cpu, bare_memory = _bare(kit, folder, min(1.0, seconds))
    environ = {**os.environ, **CAPS, **RELOAD}
    argv = [kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")]
    found: dict[str, tuple[float, str]] = {}
    with running(argv, folder, environ) as process:
        found["loaded after"] = (_await_quiet(process, min(1.0, seconds)), "s")
        cpu, memory = cpu_seconds([process.pid]), resident_mb([process.pid])
        found["CPU of a job"] = ((cpu - bare_cpu - parse_cpu) / jobs * 1e6, "us")
        found["memory of a job"] = ((memory - bare_memory - parse_memory) / jobs * 1e3, "KB")
        found["memory"] = (memory, "MB")
        time.sleep(seconds)
        found["idle CPU"] = ((cpu_seconds([process.pid]) - cpu) / seconds * 100, "%")
        for name, words in (("status", ["status"]), ("status of one", ["status", "job-7"])):
            began = time.perf_counter()
            subprocess.run(
                [kit.rpr, *words, "--state-dir", str(folder / "state")], cwd=folder, capture_output=True, check=True
            )
            found[name] = (time.perf_counter() - began, "s")
        found["reload of one"] = (_reload(folder, process), "s")
    return found


def asked_under_load(kit: Tools, folder: Path, jobs: int, seconds: float) -> Reading:
    """How long a listing takes from the start of the command to its end, and what a listing of one job takes."""
    write(folder, jobs)
    with (folder / "jobs.toml").open("a") as file:
        for number in range(100):
            file.write(f'[jobs.load-{number}]\ncommand = ["true"]\nschedule = "every 1s"\n')
    state = str(folder / "state")
    argv = [kit.rpr, "apply", "-q", "jobs.toml", "--state-dir", state]
    found: dict[str, tuple[float, str]] = {}
    with running(argv, folder, {**os.environ, **CAPS, **RELOAD}):
        patience = time.monotonic() + 120
        while not _status(kit, folder, state, "load-0").endswith("load-0"):
            if time.monotonic() > patience:
                raise RuntimeError("cannot measure: the supervisor does not answer")
            time.sleep(0.1)
        time.sleep(seconds)
        for name, words in (("status", ()), ("status of one", ("job-7",))):
            took = []
            for _ in range(5):
                began = time.perf_counter()
                _status(kit, folder, state, *words)
                took.append(time.perf_counter() - began)
            found[name] = (statistics.median(took), "s")
    return found


def _status(kit: Tools, folder: Path, state: str, *jobs: str) -> str:
    """The first column of the last line; empty if there is no supervisor yet."""
    argv = [kit.rpr, "status", *jobs, "--state-dir", state]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[-1].split()[0] if done.returncode == 0 else ""


def _reload(folder: Path, process: subprocess.Popen[bytes]) -> float:
    """From saving one changed job, beside a new one that runs at once, until that has begun; less the debounce."""
    text = (folder / "jobs.toml").read_text()
    effect = folder / "effect"
    changed = text.replace('command = "echo job 7"', 'command = "echo another"')
    (folder / "new").write_text(f'{changed}[jobs.new]\ncommand = "touch {effect}"\n')
    began = time.perf_counter()
    (folder / "new").rename(folder / "jobs.toml")
    patience = time.monotonic() + 60
    while not effect.exists():
        if process.poll() is not None or time.monotonic() > patience:
            raise RuntimeError("cannot measure: the change does not come into force")
        time.sleep(0.005)
    return time.perf_counter() - began - 0.2


def _parsed(kit: Tools, folder: Path, jobs: int) -> tuple[float, float]:
    write(folder, jobs)
    done = subprocess.run([kit.python, "-c", _PARSE], cwd=folder, check=True, capture_output=True, text=True)
    cpu, memory = map(float, done.stdout.split())
    return cpu, memory


def _bare(kit: Tools, folder: Path, length: float) -> tuple[float, float]:
    """CPU and memory of a supervisor with one job."""
    (folder / "one.toml").write_text('version = 1\n[jobs.one]\ncommand = "true"\nschedule = "0 0 29 2 *"\n')
    with running([kit.rpr, "apply", "one.toml", "--state-dir", str(folder / "one")], folder) as process:
        _await_quiet(process, length)
        return cpu_seconds([process.pid]), resident_mb([process.pid])


def peer(kit: Tools, folder: Path, jobs: int, seconds: float) -> Reading:
    write(folder, jobs)
    with running([kit.peer("cronstable"), "-c", "jobs.yaml", "-l", "WARNING"], folder) as process:
        loaded = _await_quiet(process, min(1.0, seconds))
        parts = lasting(process.pid, kit.stamp)
        cpu = cpu_seconds(parts)
        time.sleep(seconds)
        idle, memory = cpu_seconds(parts) - cpu, resident_mb(parts)
    return {
        "loaded after": (loaded, "s"),
        "memory": (memory, "MB"),
        "idle CPU": (idle / seconds * 100, "%"),
    }


def _await_quiet(process: subprocess.Popen[bytes], length: float = 1.0) -> float:
    """Waits until the process has used next to no CPU for so many seconds; gives how long it took to begin them."""
    begun = time.perf_counter()
    last, since = -1.0, begun
    while time.perf_counter() - since < length:
        if process.poll() is not None or time.perf_counter() > begun + 300:
            raise RuntimeError("cannot measure: the process ended, or never came to rest")
        time.sleep(0.05)
        now = cpu_seconds([process.pid])
        if now > last + 0.02:
            last, since = now, time.perf_counter()
    return since - begun
