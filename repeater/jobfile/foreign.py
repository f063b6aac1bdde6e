"""Keys of other programs, and their equivalents here.

The table has the keys of cron, compose, systemd, supervisord, process-compose, dagu and cronstable, and other words
that people try. Keys are compared without `_`, `-` and case, so `depends_on`, `dependsOn` and `DependsOn` are one key.
The table is checked before the nearest name, because `image` is not a typing error for `timeout`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from repeater.jobfile.hints import LONG, length, literal, rate_of

Form: TypeAlias = "str | Callable[[Any], str]"
"""The equivalent text, or a function that makes it from the found value."""


def foreign_key(key: str, value: Any, place: str) -> str | None:
    """The equivalent of `key` of another program; None if the key is not known.

    `place` is the table: `job`, `top`, or a table of a job such as `retry`.
    """
    plain = _plain(key)
    table = _TABLES.get(place, _Table({}))
    form = table.forms.get(plain)
    if form is None:
        return table.sentences.get(plain)
    return f"write `{form if isinstance(form, str) else form(value)}`"


def _plain(key: str) -> str:
    return re.sub(r"[_\-\s]", "", key).lower()


def _as(key: str) -> Callable[[Any], str]:
    """The same value under another key; only the key if the value cannot be printed."""
    return lambda value: f"{key} = {literal(value)}" if value and isinstance(value, str | int) else key


def _time(key: str, default: str) -> Callable[[Any], str]:
    return lambda value: f'{key} = "{length(value, default)}"'


def _cron(value: Any) -> str:
    return f"schedule = {literal(value)}" if isinstance(value, str) and value.strip() else 'schedule = "0 3 * * *"'


def _zone(value: Any) -> str:
    zone = literal(value) if isinstance(value, str) and "/" in value else '"Europe/Berlin"'
    return f'schedule = {{ cron = "0 3 * * *", timezone = {zone} }}'


def _instant(value: Any) -> str:
    is_instant = isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T.*(?:Z|[+-][0-9:]+)$", value)
    return f"schedule = {{ at = {literal(value if is_instant else '2027-01-01T00:00:00Z')} }}"


def _rate(value: Any) -> str:
    return f'schedule = {{ rate = "{rate_of(str(value)) or "100/1h"}" }}'


def needs(value: Any) -> str:
    """The names of one or several jobs as a list, and conditions as a table."""
    if isinstance(value, dict) and value:
        name, keys = next(iter(value.items()))
        condition = CONDITIONS.get(
            _plain(str(keys.get("condition", ""))) if isinstance(keys, dict) else "", "succeeded"
        )
        return f'needs = {{ {_name(name)} = {{ condition = "{condition}" }} }}'
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    names = literal(value) if isinstance(value, list) else ""
    return f"needs = {names}" if names[:1] == "[" and LONG not in names else 'needs = ["other-job"]'


def _name(name: Any) -> str:
    text = str(name)
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else literal(text)


def _restart(value: Any) -> str:
    return f'restart = "{RESTARTS.get(_plain(str(value)), "always")}"'


def _off(value: Any) -> str:
    return f"enabled = {'true' if _is_false(value) else 'false'}"


def _on(value: Any) -> str:
    return f"enabled = {'false' if _is_false(value) else 'true'}"


def _is_false(value: Any) -> bool:
    return value is False or str(value).lower() in ("false", "no", "off", "0")


def attempts(value: Any, *, more: int = 1) -> str:
    """A number of retries as `attempts`, which also count the first one."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1000
    return f"attempts = {(value if is_count else 3) + more}"


def _retries(value: Any) -> str:
    return f"retry = {{ {attempts(value)} }}"


def _tries(value: Any) -> str:
    return f"retry = {{ {attempts(value, more=0)} }}"


def _count(key: str, default: int, *, table: str = "stop") -> Callable[[Any], str]:
    def form(value: Any) -> str:
        count = value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
        return f"{table} = {{ {key} = {count} }}" if table else f"{key} = {count}"

    return form


def _table(table: str, key: str, example: str) -> Callable[[Any], str]:
    """A text under a key of a table."""

    def form(value: Any) -> str:
        text = literal(value) if isinstance(value, str) and value.strip() else LONG
        return f"{table} = {{ {key} = {example if text == LONG else text} }}"

    return form


def _codes(value: Any) -> str:
    codes = value if isinstance(value, list) else [value]
    are_codes = bool(codes) and all(type(one) is int and 0 <= one <= 255 for one in codes)
    return f"success = {{ exit_codes = [{', '.join(map(str, codes)) if are_codes else '0, 1'}] }}"


def _overlap(value: Any) -> str:
    return f'overlap = "{OVERLAPS.get(_plain(str(value)), "skip")}"'


def environment(value: Any) -> str:
    """`A=1`, or a list of such texts, as a table."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str) and "=" in value:
        name, _, text = value.partition("=")
        return f"env = {{ {_name(name.strip())} = {literal(text.strip())} }}"
    return "env" if isinstance(value, dict) else 'env = { NAME = "value" }'


CONDITIONS = {
    "servicehealthy": "healthy", "processhealthy": "healthy", "ready": "healthy", "processlogready": "healthy",
    "servicestarted": "started", "processstarted": "started", "running": "started", "start": "started",
    "servicecompletedsuccessfully": "succeeded", "processcompletedsuccessfully": "succeeded", "success": "succeeded",
    "processcompleted": "completed", "finished": "completed", "done": "completed", "failure": "failed",
}  # fmt: skip
"""Conditions of other programs."""
RESTARTS = {
    "no": "never", "false": "never", "off": "never", "unlessstopped": "always", "true": "always", "yes": "always",
    "onfailure": "on-failure", "exitonfailure": "on-failure", "unexpected": "on-failure", "onabnormal": "on-failure",
    "onabort": "on-failure", "never": "never", "always": "always",
}  # fmt: skip
"""Restart policies of other programs."""
OVERLAPS = {
    "forbid": "skip", "ignore": "skip", "drop": "skip", "allow": "allow", "parallel": "allow", "concurrent": "allow",
    "replace": "replace", "kill": "replace", "restart": "replace", "wait": "queue", "serial": "queue", "true": "skip",
}  # fmt: skip
"""Overlap policies of other programs."""
_NAME = "the name of a job is that of its table: `[jobs.NAME]`"
_CONTAINER = "a job is a command of this machine: `docker run` can be the command"
_STEPS = "a job has one command: write one job for each step, and connect them with `needs`"
_TEST = "test it in the command: `test -f FILE && …`"
_TREE = "leave it out: the stop of a run ends its whole process tree"
_SERVICE = 'write `schedule = "always"` for a service, `schedule = "once"` for one run at start'
_MANY = "write `matrix = { number = [1, 2] }` for several jobs like this one"


class _Table:
    """The foreign keys of one table: equivalents and complete sentences by normalized key."""

    def __init__(self, forms: Mapping[str, Form], sentences: Mapping[str, str] | None = None) -> None:
        self.forms: dict[str, Form] = dict(_by_key(forms))
        self.sentences: dict[str, str] = dict(_by_key(sentences or {}))


def _by_key(groups: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for words, one in groups.items():
        yield from ((word, one) for word in words.split())


_JOB = _Table(
    {
        "cmd args exec execstart run script program entrypoint commands exe executable": "command",
        "cron crontab cronexpression cronexpr oncalendar": _cron,
        "every interval period frequency repeatevery onunitactivesec onunitinactivesec": lambda value: (
            f'schedule = "every {length(value, "5m")}"'
        ),
        "minute hour day month weekday dayofweek dayofmonth": 'schedule = "0 3 * * *"',
        "onbootsec onstartupsec": 'schedule = "once"',
        "delay startdelay initialdelay": 'schedule = { every = "5m", immediate = false }',
        "at startat runat date": _instant,
        "timezone tz": _zone,
        "rate": _rate,
        "dependson depends after requires wants bindsto partof dependencies upstream": needs,
        "restartpolicy autorestart availability respawn": _restart,
        "environment envs environ envvars variables": environment,
        "environmentfile environmentfiles envfiles dotenv": _as("env_file"),
        "workingdir workingdirectory workdir dir directory chdir": _as("cwd"),
        "retries maxretries startretries retrycount retrylimit": _retries,
        "maxattempts tries retrypolicy": _tries,
        "timeoutsec timeoutseconds timeoutsecs executiontimeout runtimemaxsec maxruntime timelimit maxduration "
        "activedeadlineseconds": _time("timeout", "5m"),
        "timeoutstopsec killtimeout graceperiod stopgraceperiod stopwaitsecs terminationgraceperiodseconds "
        "shutdowntimeout stoptimeoutsec": _time("stop_timeout", "10s"),
        "killsignal shutdownsignal signal": _as("stop_signal"),
        "uid runas username": _as("user"),
        "gid groupname": _as("group"),
        "priority niceness": "nice = 10",
        "ulimits ulimit limitnofile": "rlimits = { nofile = 1024 }",
        "cpu cputime cpulimit": "rlimits = { cpu = 60 }",
        "memory mem memlimit memorylimit memorymax": 'rlimits = { as = "1GiB" }',
        "persistent anacron missed misfire catchupwindow catchup": 'catch_up = "latest"',
        "randomizeddelaysec splay jitterseconds": lambda value: (
            f'schedule = {{ cron = "0 3 * * *", jitter = "{length(value, "5m")}" }}'
        ),
        "concurrencypolicy concurrency overlappolicy singleton maxactiveruns": _overlap,
        "exitcodes exitcode successexitstatus failswhen continueon ignoreexitcode": _codes,
        "onfailure onpermanentfailure onerror onfail execstoppost handleron": _table(
            "hooks", "on_failure", '"./alert.sh"'
        ),
        "mailon mailto mailonfailure notify alert email": 'hooks = { on_failure = "./send-mail.sh" }',
        "onsuccess execstartpost": _table("hooks", "on_success", '"./done.sh"'),
        "stdout stdoutlogfile stderrlogfile logfile logpath log logs loglocation logging standardoutput logdir": _table(
            "output", "file", '"job.log"'
        ),
        "healthcheck readiness readinessprobe startupprobe startsecs": 'ready = { http = "http://127.0.0.1:8080/" }',
        "liveness livenessprobe": 'live = { http = "http://127.0.0.1:8080/" }',
        "readylogline": _table("ready", "log", '"listening on"'),
        "tags annotations profiles": 'labels = { team = "db" }',
        "disabled suspend suspended paused": _off,
        "autostart active": _on,
        "maxruns runs times count iterations repeat repetitions": _count("times", 10),
        "maxrestarts startlimitburst": _count("consecutive_failures", 5),
        "restartsec backoffseconds restartdelay": lambda value: f'slowdown = {{ base = "{length(value, "5s")}" }}',
    },
    {
        "name processname containername jobname id": _NAME,
        "image ports volumes networks build container expose deploy": _CONTAINER,
        "steps stages pipeline tasks": _STEPS,
        "when if unless only precondition preconditions execcondition": _TEST,
        "killmode killasgroup stopasgroup": _TREE,
        "capturestdout capturestderr redirectstderr": "leave it out: the output of a run is both of its streams",
        "before": "write `needs` in the other job",
        "execstop stopcommand shutdown": "a run ends by its `stop_signal`, and is killed after its `stop_timeout`",
        "pre execstartpre onstart beforescript": 'put it into the command: `command = "./prepare && ./run"`',
        "type kind isdaemon service daemon oneshot": _SERVICE,
        "replicas numprocs instances scale": _MANY,
    },
)
_PROBE = _Table({
    "cmd command test": "exec",
    "interval period periodseconds": _time("every", "10s"),
    "retries failurethreshold threshold": "failures",
    "httpget url uri": "http",
    "port host": "tcp",
    "pattern": "log",
    "timeoutseconds": _time("timeout", "5s"),
})  # fmt: skip
_TABLES: Mapping[str, _Table] = {
    "job": _JOB,
    "top": _Table(
        {
            "services processes tasks programs program job task service crons cronjobs process": "jobs",
            "variables var": "vars",
            "name": _as("project"),
            "environment envs": "defaults.env",
            "imports includes": "include",
            "default": "defaults",
        }
    ),
    "schedule": _Table({
        "interval period": _time("every", "5m"),
        "expression crontab expr": "cron",
        "tz zone": _as("timezone"),
        "splay randomizeddelaysec": _time("jitter", "5m"),
        "date time datetime": "at",
        "files paths glob globs": "watch",
    }),
    "retry": _Table({
        "retries maxretries count times limit": attempts,
        "delay interval intervalsec wait initialdelay initial": _time("base", "5s"),
        "maxdelay maximumdelay maxinterval": _time("max", "1m"),
        "factor backoffmultiplier": "multiplier",
    }),
    "stop": _Table({"runs count max maxruns iterations": _count("times", 10, table="")}),
    "output": _Table({
        "path stdout logfile filename": _as("file"),
        "maxbytes rotate size": 'max_size = "10MB"',
        "backupcount maxfiles keep": "backups",
    }),
    "ready": _PROBE,
    "live": _PROBE,
    "need": _Table({"restart": "while"}),
    "limit": _Table({"limit max starts": 'rate = "100/1h"'}),
    "pool": _Table({"size max limit concurrency count": "slots"}),
}  # fmt: skip


def known_keys(place: str) -> dict[str, Form]:
    """The foreign keys of a table that have an equivalent."""
    return _TABLES[place].forms
