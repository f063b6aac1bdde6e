"""What people know from the usage guide of the Go program of the same name, line by line: each use that needs no network
has its counterpart here, in a shell, with shorter times and local commands. What needs a server is in `test_push_back`.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cli.conftest import RPR, Rpr

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the lines are for bash")

SCRIPTS = {
    "health.sh": "echo HEALTHY; exit 1",
    "deploy.sh": "echo deployment successful; exit 1",
    "check.sh": "echo warning: disk is full",
    "work.sh": "sleep 0.01; echo worked",
    "slow.sh": "sleep 60",
    "flaky.sh": "echo x >>tries; [ $(wc -l <tries) -ge 3 ]",
}


def shell(rpr: Rpr, line: str) -> tuple[str, str, int]:
    for name, text in SCRIPTS.items():
        rpr.write(name, f"#!/bin/sh\n{text}\n").chmod(0o755)
    rpr.write("user.json", '{"login": "ada", "status": "ok"}\n')
    rpr.write("app.log", "all fine\nERROR: no route\n")
    (rpr.folder / "bin").mkdir()
    (rpr.folder / "bin" / "rpr").symlink_to(RPR)
    env = rpr.env | {"PATH": f"{rpr.folder}/bin:{rpr.env['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", line], cwd=rpr.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    return done.stdout, done.stderr, done.returncode


T3 = "test\n" * 3
LINES = [
    # pipelines
    ("rpr interval --every 20ms --times 10 -- cat user.json | grep -c ada", "10\n", 0),
    ("rpr duration --for 50ms --every 1s -- df -h / | awk 'NR == 1 {print $1}' | tee usage.log", "Filesystem\n", 0),
    ("rpr count --times 5 -- cat user.json | cut -d'\"' -f4 | sort -u", "ada\n", 0),
    ("rpr i -e 5ms -t 20 -- sh -c 'echo $$' | sort -n | wc -l", "20\n", 0),
    ("rpr count --times 3 -- echo test | wc -l", "3\n", 0),
    ("rpr count --times 3 -- sh -c 'echo test' | wc -l", "3\n", 0),
    # output
    ("rpr interval --every 20ms --times 3 -- echo test", T3, 0),
    ("rpr interval --every 20ms --times 3 --quiet -- echo test", "", 0),
    ("rpr interval --every 20ms --times 3 --verbose -- echo test 2>told; grep -c started told", T3 + "3\n", 0),
    ("rpr interval --every 20ms --times 3 --stats-only -- echo test | head -3", "runs: 3\nsucceeded: 3\nfailed: 0\n", 0),
    ("rpr i -e 5ms -t 10 --stream -- tail -n 1 app.log | uniq -c | xargs", "10 ERROR: no route\n", 0),
    # short words
    ("rpr i -e30ms -t2 -- echo x", "x\n" * 2, 0),
    ("rpr int -e 20ms -t 2 -- echo x", "x\n" * 2, 0),
    ("rpr c -t 5 -- echo hello", "hello\n" * 5, 0),
    ("rpr cnt -t 2 -e 10ms -- echo n", "n\n" * 2, 0),
    ("rpr d -f 30ms -e 1s -- echo d", "d\n", 0),
    ("rpr dur -f 30ms -e 1s -- echo d", "d\n", 0),
    ("rpr cr --cron '0 9 * * *' -f 30ms -- ./backup.sh", "", 0),
    ("rpr rl -r 10/1h -t 2 -- echo r", "r\n" * 2, 0),
    ("rpr a -b 10ms -t 2 -- echo a", "a\n" * 2, 0),
    ("rpr la -b 10ms -t 2 -- echo l", "l\n" * 2, 0),
    # interval, count, duration
    ("rpr interval --every 10ms --times 6 -- echo 'Status check'", "Status check\n" * 6, 0),
    ("rpr interval --every 1s --for 50ms -- echo date", "date\n", 0),
    ("rpr count --times 10 -- ./work.sh | sort | uniq -c | xargs", "10 worked\n", 0),
    ("rpr count --times 2 --every 20ms -- sh -c 'echo \"a b\"'", "a b\n" * 2, 0),
    ("rpr duration --for 80ms -- ./work.sh | head -1", "worked\n", 0),
    # cron
    ("rpr cron --cron '0 9 * * *' --times 1 --for 30ms -- ./daily.sh", "", 0),
    ("rpr cron --cron '0 9 * * 1-5' --timezone America/New_York --dry-run -- ./r.sh | grep -c ' 09:00:00 -0.*New_York'",
     "5\n", 0),
    ("rpr cron --cron '*/15 * * * *' --dry-run -- x | grep -cE ':(00|15|30|45):00Z'", "5\n", 0),
    ("rpr cron --cron @daily --dry-run -- x | grep -c ' 00:00:00Z'", "5\n", 0),
    ("rpr cron --cron @hourly --dry-run -- x | grep -c ':00:00Z'", "5\n", 0),
    # adaptive, load, rate
    ("rpr adaptive --base-interval 10ms --show-metrics -t 3 -- ./work.sh 2>told; grep -c '^rpr: every ' told",
     "worked\n" * 3 + "3\n", 0),
    ("rpr adaptive --base-interval 20ms --min-interval 10ms --max-interval 5s -t 2 -- echo a", "a\n" * 2, 0),
    ("rpr load-adaptive --base-interval 10ms --target-cpu 70 -t 2 -- echo l", "l\n" * 2, 0),
    ("rpr load-adaptive --base-interval 10ms --target-memory 0.8 --target-load 1.5 -t 2 -- echo l", "l\n" * 2, 0),
    ("rpr rate-limit --rate 100/1h -t 3 -- echo r", "r\n" * 3, 0),
    ("rpr rate-limit --rate 2/1h --for 800ms -- echo r", "r\n" * 2, 0),
    # delays that grow
    ("rpr exponential --base-delay 1ms --max-delay 30ms --attempts 3 -- sh -c 'exit 4'", "", 4),
    ("rpr exponential --base-delay 1ms --attempts 5 -- ./flaky.sh; wc -l <tries", "3\n", 0),
    ("rpr fibonacci --base-delay 1ms --attempts 4 -- echo up", "up\n", 0),
    ("rpr linear --base-delay 1ms --increment 1ms --attempts 2 -- false", "", 1),
    ("rpr polynomial --base-delay 1ms --exponent 1.5 --attempts 2 -- false", "", 1),
    # patterns
    ("rpr interval --every 10ms --times 2 --success-pattern 'deployment successful' -- ./deploy.sh",
     "deployment successful\n" * 2, 0),
    ("rpr count --times 2 --success-pattern '\"status\":\\s*\"ok\"' -- sh -c 'cat user.json; false' | wc -l", "2\n", 0),
    ("rpr duration --for 20ms --every 1s --failure-pattern '(?i)error|exception|failed' -- tail -n 1 app.log",
     "ERROR: no route\n", 1),
    ("rpr count --times 2 --failure-pattern 'down|inactive|failed' -- echo inactive", "inactive\n" * 2, 1),
    ("rpr interval --every 10ms -t 1 --case-insensitive --success-pattern 'healthy|ok|running' -- ./health.sh",
     "HEALTHY\n", 0),
    ("rpr d --for 20ms --every 1s --case-insensitive --failure-pattern 'error|WARNING' -- ./check.sh",
     "warning: disk is full\n", 1),
    ("rpr c -t 1 --success-pattern 'status.*ok' --failure-pattern '(?i)error' -- echo status ok, one Error",
     "status ok, one Error\n", 1),
    # settings
    ("RPR_TIMEOUT=100ms rpr i -e 10s -t 1 -- ./slow.sh", "", 1),
    ("printf '[scheduling]\\ndefault_interval = \"10ms\"\\n' >c.toml; rpr --config c.toml i -t 2 -- echo x", "x\n" * 2, 0),
    # statuses in scripts
    ("if rpr interval --every 5ms --times 3 --quiet -- true; then echo healthy; else echo failed with $?; fi",
     "healthy\n", 0),
    ("if rpr interval --every 5ms --times 3 --quiet -- false; then echo healthy; else echo failed with $?; fi",
     "failed with 1\n", 0),
    ("rpr count --times 2 -- false && echo Success || echo Failed", "Failed\n", 0),
    ("rpr interval --every nonsense -- true 2>/dev/null; echo $?", "2\n", 0),
    ("rpr i -e 1h -- sh -c 'touch up; sleep 60' & until [ -e up ]; do sleep 0.02; done; kill -INT $!; wait $!; echo $?",
     "130\n", 0),
    # the shell around it
    ("rpr interval --every 10ms -t 2 -- sh -c 'echo a & echo b & wait' | sort | xargs", "a a b b\n", 0),
    ("rpr interval --every 10ms -t 1 -- timeout 0.1s ./slow.sh", "", 1),
    ("rpr interval --every 10ms -t 1 -T 100ms -- ./slow.sh 2>&1", "rpr: timed out after 100ms\n", 1),
    ("rpr interval --every 10ms -t 2 -- date +%Y >>stamps; wc -l <stamps", "2\n", 0),
    ("rpr interval -e 10ms -t 2 -- sh -c 'false || echo down at $(date +%Z)'", "down at UTC\n" * 2, 0),
    ("rpr d -f 20ms -e 1s -- find . -name 'user*' -exec echo {} \\;", "./user.json\n", 0),
    ("rpr i -e 10ms -t 2 -- sh -c 'echo \"$(echo 7 | tail -1),x\"' | tee -a usage.csv", "7,x\n" * 2, 0),
    # lengths
    *((f"rpr i -e {length} -t 1 -- echo x", "x\n", 0) for length in ("30s", "5m", "2h", "1d", "1h30m", "100ms")),
    # help
    ("rpr --version | cut -d' ' -f1", "rpr\n", 0),
    ("rpr --help | grep -c 'interval, int, i'", "1\n", 0),
    ("rpr interval --help | head -1", "Usage: rpr interval [OPTIONS] [--] COMMAND [ARGUMENT]...\n", 0),
    ("rpr i -h | head -1", "Usage: rpr interval [OPTIONS] [--] COMMAND [ARGUMENT]...\n", 0),
    ("rpr c -h | head -1", "Usage: rpr count [OPTIONS] [--] COMMAND [ARGUMENT]...\n", 0),
    ("rpr examples | grep -c '^rpr interval --every'", "1\n", 0),
]  # fmt: skip


@pytest.mark.parametrize(("line", "out", "code"), LINES, ids=[line for line, _, _ in LINES])
def test_the_lines_of_the_usage_guide_work(rpr: Rpr, line: str, out: str, code: int) -> None:
    shown, _, status = shell(rpr, line)
    assert (shown, status) == (out, code)


def test_every_option_of_http_awareness_is_taken(rpr: Rpr) -> None:
    words = "--http-aware --http-max-delay 10m --http-min-delay 2s --http-custom-fields wait,backoff_seconds"
    assert shell(rpr, f"rpr i -e 30s {words} --http-no-parse-json --http-trust-client --as-job -- curl x")[0] == (
        'version = 1\n\n[jobs.curl]\ncommand = ["curl", "x"]\nschedule = { every = "30s" }\n'
        'http_aware = { max_delay = "10m", min_delay = "2s", fields = ["wait", "backoff_seconds"], json = false, '
        "trust_client = true }\n"
    )
