"""The options of the one-off commands as a table, for the parser, help, completion, documents and tests.

An option with a `key` sets that key of the job; the other options are for rpr itself. This module does not interpret
keys.
"""

from __future__ import annotations

from typing import Any, Literal

from repeater._lazy_dataclasses import dataclass, replace
from repeater.cli.commands import ONE_OFF

Key = tuple[str, ...]
Kind = Literal["text", "whole", "number", "share", "moment", "list", "words", "codes", "pair"]


@dataclass(frozen=True, slots=True)
class Option:
    """`metavar` is empty for a flag, which sets `value`. `kind` is the type of the value."""

    flags: tuple[str, ...]
    words: str
    metavar: str = ""
    key: Key = ()
    kind: Kind = "text"
    value: Any = True
    needed: bool = False

    @property
    def name(self) -> str:
        """The long flag, used in messages."""
        return next(flag for flag in self.flags if flag.startswith("--"))


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `fixed` are keys that its job always has, `strategy` is its kind of backoff."""

    name: str
    words: str
    example: str
    own: tuple[Option, ...]
    fixed: tuple[tuple[Key, Any], ...] = ()
    strategy: str = ""
    usage: str = "[OPTIONS] [--] COMMAND [ARGUMENT]..."

    @property
    def options(self) -> tuple[Option, ...]:
        """Its own options, then the common options whose flags it does not redefine."""
        taken = {flag for option in self.own for flag in option.flags}
        rest = []
        for option in (option for _, group in COMMON for option in group):
            flags = tuple(flag for flag in option.flags if flag not in taken)
            if any(flag.startswith("--") for flag in flags):
                rest.append(replace(option, flags=flags))
        return (*self.own, *rest)


# --- options of all commands --------------------------------------------------------------------------------------

TIMES = Option(("-t", "--times"), "Stop after N runs.", "N", ("stop", "times"), "whole")
FOR = Option(("-f", "--for"), "Start no run after this time. The current run may finish.", "DURATION", ("stop", "for"))
UNTIL = Option(
    ("-u", "--until"),
    "Start no run at or after this time. The current run may finish.",
    "TIME",
    ("stop", "until"),
    "moment",
)

COMMON: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("When to stop", (
        TIMES,
        FOR,
        UNTIL,
        Option(("--max-failures",), "Stop after N consecutive failures.", "N",
               ("stop", "consecutive_failures"), "whole"),
        Option(("--until-success",), "Stop after the first success. Exit code 0 if there was one.",
               key=("stop", "on_success")),
        Option(("--until-failure",), "Stop after the first failure. Exit code 0 if there was one.",
               key=("stop", "on_failure")),
        Option(("--kill-at-end",), "Stop the current run too when `--for` or `--until` ends."),
    )),
    ("What counts as success", (
        Option(("-k", "--continue-on-error"), "Continue after a failure. This is the default."),
        Option(("--fail-fast",), "Stop after the first failure.", key=("stop", "on_failure")),
        Option(("--success-pattern",), "Regular expression: output that matches it means success.", "REGEX",
               ("success", "pattern")),
        Option(("--failure-pattern",),
               "Regular expression: output that matches it means failure, even with exit code 0.", "REGEX",
               ("success", "failure_pattern")),
        Option(("--case-insensitive",), "Ignore case in patterns.", key=("success", "ignore_case")),
    )),
    ("The process", (
        Option(("-T", "--timeout"), "Maximum duration of a run; `0s` means no limit.", "DURATION", ("timeout",)),
        Option(("--kill-timeout",), "Time between SIGTERM and SIGKILL (default 10s).", "DURATION", ("stop_timeout",)),
        Option(("-C", "--working-dir"), "Working directory of the command.", "DIR", ("cwd",)),
        Option(("--env",), "Set an environment variable. Repeatable.", "NAME=VALUE", ("env",), "pair"),
        Option(("--shell",), "Run COMMAND with `/bin/sh -c`. Arguments are joined by spaces."),
        Option(("--stdin",), "Pass rpr's standard input to the runs, one after another."),
    )),
    ("Output", (
        Option(("-q", "--quiet", "--suppress"), "Do not show the output of the command.",
               key=("output", "mode"), value="suppress"),
        Option(("-v", "--verbose"), "Log every start and exit to stderr, and a summary at the end."),
        Option(("--stats-only",), "Print only a summary to stdout at the end.",
               key=("output", "mode"), value="suppress"),
        Option(("-s", "--stream"), "Show output as it arrives. This is the default.",
               key=("output", "mode"), value="stream"),
        Option(("--aggregate",), "Show the output of a run when the run ends.",
               key=("output", "mode"), value="aggregate"),
        Option(("-o", "--output-file"), "Append the output of the command to FILE instead of showing it.", "FILE",
               ("output", "file")),
        Option(("--log-file",), "Append rpr's own messages to FILE, with times.", "FILE"),
        Option(("--log-format",), "Format of rpr's own log messages: `text` (default) or `json`.", "FORMAT"),
        Option(("--timestamps",), "Prefix every line of output with the time.", key=("output", "timestamps")),
    )),
    ("HTTP back-pressure", (
        Option(("--http-aware",), "Honour `Retry-After` and rate-limit headers found in the output.",
               key=("http_aware",)),
        Option(("--http-max-delay",), "Maximum delay to accept from a server.",
               "DURATION", ("http_aware", "max_delay")),
        Option(("--http-min-delay",), "Minimum delay after a server asks to wait.",
               "DURATION", ("http_aware", "min_delay")),
        Option(("--http-parse-json",), "Read delays from JSON in the output.", key=("http_aware", "json")),
        Option(("--http-no-parse-json",), "Do not read delays from JSON.", key=("http_aware", "json"), value=False),
        Option(("--http-json-on-success",), "Read delays from JSON of successful answers too.",
               key=("http_aware", "json_on_success")),
        Option(("--http-parse-headers",), "Read delays from HTTP headers in the output.",
               key=("http_aware", "headers")),
        Option(("--http-no-parse-headers",), "Do not read delays from HTTP headers.",
               key=("http_aware", "headers"), value=False),
        Option(("--http-trust-client",), "Honour delays in all 4xx answers.",
               key=("http_aware", "trust_client")),
        Option(("--http-custom-fields",), "Additional JSON fields that contain a delay, such as `wait_ms` or `wait:m`.",
               "NAME,NAME",
               ("http_aware", "fields"), "words"),
    )),
    ("Shared rate limits", (
        Option(("--daemon",), "Use the rate-limit daemon (`rpr daemon`) before each start."),
        Option(("--resource-id",), "Name of the shared limit.", "NAME", ("limit",)),
        Option(("--rate",), "Rate shared by all clients, for example `100/1h`.", "N/DURATION"),
        Option(("--daemon-socket",), "Path of the daemon's socket.", "PATH"),
        Option(("--fail-closed",), "Do not start while the daemon is unreachable. Default: enforce the limit locally."),
    )),
    ("Other options", (
        Option(("--metrics",), "Serve Prometheus metrics on localhost (port 9090)."),
        Option(("--metrics-port",), "Port of the metrics. Implies `--metrics`.", "PORT"),
        Option(("--health",), "Serve `/livez` and `/readyz` on localhost (port 8080)."),
        Option(("--health-port",), "Port of the health endpoints. Implies `--health`.", "PORT"),
        Option(("--history",), "Record the runs for `rpr history --project one-off/NAME`."),
        Option(("--name",), "Name of the job in `--history` and `--as-job`. Default: the name of the program.", "NAME"),
        Option(("--config",), "Configuration file to read instead of the default file.", "FILE"),
        Option(("--dry-run",), "Show the planned runs without starting them."),
        Option(("--as-job",), "Print an equivalent job file without starting anything."),
        Option(("-h", "--help"), "Show this help message."),
    )),
)  # fmt: skip

# --- the commands -------------------------------------------------------------------------------------------------

_EVERY = Option(("-e", "--every"), "Interval between starts.", "DURATION", ("schedule", "every"))
_BASE = Option(("-b", "--base-interval"), "Initial interval (default 1s).", "DURATION", ("base",))
_MIN = Option(("--min-interval",), "Shortest interval of the schedule.", "DURATION", ("min",))
_MAX = Option(("--max-interval",), "Longest interval of the schedule.", "DURATION", ("max",))
_SHOW = Option(("-m", "--show-metrics"), "Log interval changes to stderr.")
_ADAPTIVE: Key = ("schedule", "adaptive")
_LOAD: Key = ("schedule", "load")


def _in(where: Key, *options: Option) -> tuple[Option, ...]:
    return tuple(replace(option, key=(*where, *option.key)) if option.key else option for option in options)


_DELAYS = {
    "base-delay": Option(("--base-delay",), "First delay (default 1s).", "DURATION", ("schedule", "base")),
    "increment": Option(("--increment",), "Amount added to each successive delay (default 1s).", "DURATION",
                        ("schedule", "increment")),
    "exponent": Option(("--exponent",), "Exponent: delay k is the base delay times k to this power (default 2).",
                       "NUMBER",
                       ("schedule", "exponent"), "number"),
    "multiplier": Option(("--multiplier",), "Factor between successive delays (default 2).", "NUMBER",
                         ("schedule", "multiplier"), "number"),
    "factor": Option(("--multiplier",), "Maximum factor between successive delays (default 3).", "NUMBER",
                     ("schedule", "multiplier"), "number"),
    "jitter": Option(("-j", "--jitter"), "Random reduction of each delay: `full` down to zero, `equal` down to a half.",
                     "KIND",
                     ("schedule", "jitter")),
    "max-delay": Option(("--max-delay",), "Maximum delay (default 60s).", "DURATION", ("schedule", "max")),
    "retry-on": Option(("--retry-on",), "Retry only after these exit codes.", "CODE,CODE",
                       ("stop", "except_exit"), "codes"),
    "give-up-on": Option(("--give-up-on",), "Do not retry after these exit codes.", "CODE,CODE",
                         ("stop", "on_exit"), "codes"),
    "attempts": Option(("-a", "--attempts"), "Maximum number of runs (default 3).", "N", ("stop", "times"), "whole"),
}  # fmt: skip


def _strategy(name: str, example: str, *delays: str) -> Command:
    jitter = () if name == "decorrelated-jitter" else ("jitter",)
    own = tuple(_DELAYS[delay] for delay in (*delays, *jitter, "max-delay", "attempts", "retry-on", "give-up-on"))
    return Command(name, ONE_OFF[name][0], example, own, ((("schedule", "backoff"), name),), strategy=name)


_ALL = (
    Command("interval", ONE_OFF["interval"][0], "rpr interval --every 30s --times 10 -- curl -fsS localhost:8000", (
        replace(_EVERY, needed=True),
        Option(("-n", "--immediate"), "Start the first run immediately. This is the default.",
               key=("schedule", "immediate")),
        Option(("--wait-first",), "Wait one interval before the first run.",
               key=("schedule", "immediate"), value=False),
        Option(("-j", "--jitter"), "Maximum random delay of each start.", "DURATION|PERCENT",
               ("schedule", "jitter")),
    )),
    Command("count", ONE_OFF["count"][0], "rpr count --times 5 -- echo hello", (
        replace(TIMES, needed=True),
        replace(_EVERY, words="Interval between starts. Default: start the next run when the previous one ends."),
        Option(("-p", "--parallel"), "Run up to N commands at once. The output of each run is shown as a whole.", "N",
               ("max_instances",), "whole"),
        Option(("--interleave",), "Show output as it arrives, with `--parallel`."),
    )),
    Command("duration", ONE_OFF["duration"][0], "rpr duration --for 2m --every 10s -- date", (
        FOR,
        UNTIL,
        replace(_EVERY, words="Interval between starts. Default: start the next run when the previous one ends."),
    )),
    Command("cron", ONE_OFF["cron"][0], "rpr cron --cron '0 9 * * 1-5' --tz Europe/Berlin -- ./report.sh", (
        Option(("--cron",), "Five fields of crontab(5), `@daily` or another nickname.", "EXPRESSION",
               ("schedule", "cron"), needed=True),
        Option(("--timezone", "--tz"), "Time zone of the expression (default UTC).", "ZONE", ("schedule", "timezone")),
    )),
    Command("rate-limit", ONE_OFF["rate-limit"][0], "rpr rate-limit --rate 100/1h -- curl -fsS api.example.com", (
        Option(("-r", "--rate"), "Maximum number of starts in any window, for example `100/1h`.",
               "N/DURATION", ("schedule", "rate")),
        Option(("-l", "--limit"), "Number of starts, with `--window`; or a rate, as for `--rate`.", "N|N/DURATION"),
        Option(("--window",), "Window of the rate, for use with `--limit N`.", "DURATION"),
        Option(("-p", "--retry-pattern"), "Reserve retries at these offsets with every start.", "DURATION,DURATION",
               ("schedule", "retry_pattern"), "words"),
        Option(("--even",), "Start runs at even intervals: one each 36s for `100/1h`."),
        Option(("-n", "--show-next"), "Log the time of the next allowed start to stderr."),
    )),
    Command("adaptive", ONE_OFF["adaptive"][0], "rpr adaptive --base-interval 1s --show-metrics -- ./probe.sh", (
        *_in(
            _ADAPTIVE, _BASE, _MIN, _MAX,
            Option(("--slow-threshold",), "Runs longer than this factor times the target count as slow.",
                   "NUMBER", ("slow_threshold",), "number"),
            Option(("--fast-threshold",), "Runs shorter than this factor times the target count as fast.",
                   "NUMBER", ("fast_threshold",), "number"),
            Option(("--failure-threshold",), "Share of failures that opens the circuit (default 30%).", "PERCENT",
                   ("failure_threshold",), "share"),
            Option(("--target-latency",), "Wanted duration of a run. Default: learnt from the runs.", "DURATION",
                   ("target_latency",)),
        ),
        _SHOW,
    ), ((_ADAPTIVE, {}),)),
    Command("load-adaptive", ONE_OFF["load-adaptive"][0], "rpr load-adaptive -b 1s --target-cpu 70% -- ./work.sh", (
        *_in(
            _LOAD, _BASE, _MIN, _MAX,
            Option(("--target-cpu",), "Slow down above this CPU use (default 70%).", "PERCENT", ("cpu",), "share"),
            Option(("--target-memory",), "Slow down above this memory use (default 80%).",
                   "PERCENT", ("memory",), "share"),
            Option(("--target-load",), "Slow down above this load average per CPU (default 1.0).", "NUMBER",
                   ("load",), "number"),
        ),
        _SHOW,
    ), ((_LOAD, {}),)),
    _strategy("exponential", "rpr exponential --base-delay 1s --attempts 5 -- ./flaky.sh", "base-delay", "multiplier"),
    _strategy("fibonacci", "rpr fibonacci --base-delay 1s --attempts 8 -- ./flaky.sh", "base-delay"),
    _strategy("linear", "rpr linear --increment 2s --attempts 5 -- ./flaky.sh", "base-delay", "increment"),
    _strategy("polynomial", "rpr polynomial --exponent 1.5 --attempts 4 -- ./flaky.sh", "base-delay", "exponent"),
    _strategy("decorrelated-jitter", "rpr decorrelated-jitter --attempts 5 -- ./flaky.sh", "base-delay", "factor"),
    Command("watch", ONE_OFF["watch"][0], "rpr watch 'src/**/*.py' -- pytest -q", (
        Option(("--ignore",), "Ignore files matching this glob. Repeatable.", "GLOB", ("schedule", "ignore"), "list"),
        Option(("--debounce",), "Quiet period after the last change (default 200ms).", "DURATION",
               ("schedule", "debounce")),
    ), ((("overlap",), "latest"),), usage="[OPTIONS] GLOB... -- COMMAND [ARGUMENT]..."),
)  # fmt: skip

COMMANDS: dict[str, Command] = {command.name: command for command in _ALL}
