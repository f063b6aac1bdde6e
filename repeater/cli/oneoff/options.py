"""The options of the one-off commands, as a table: parser, help, completion, documents and tests all read it.

An option with a `key` fills that key of the job; the others are for rpr itself. Nothing here knows what a key means.
"""

from __future__ import annotations

from typing import Any, Literal

from repeater._lazy_dataclasses import dataclass, replace
from repeater.cli.commands import ONE_OFF

Key = tuple[str, ...]
Kind = Literal["text", "whole", "number", "share", "moment", "list", "words", "codes", "pair"]


@dataclass(frozen=True, slots=True)
class Option:
    """`metavar` is empty for a flag, which stands for `value`. `kind` says how the text of a value is read."""

    flags: tuple[str, ...]
    words: str
    metavar: str = ""
    key: Key = ()
    kind: Kind = "text"
    value: Any = True
    needed: bool = False

    @property
    def name(self) -> str:
        """The long flag, which names the option in messages."""
        return next(flag for flag in self.flags if flag.startswith("--"))


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `fixed` is what its job has in any case, `strategy` the kind of backoff that it is."""

    name: str
    words: str
    example: str
    own: tuple[Option, ...]
    fixed: tuple[tuple[Key, Any], ...] = ()
    strategy: str = ""
    usage: str = "[OPTIONS] [--] COMMAND [ARGUMENT]..."

    @property
    def options(self) -> tuple[Option, ...]:
        """Its own, then the common ones whose flags it does not use itself."""
        taken = {flag for option in self.own for flag in option.flags}
        rest = []
        for option in (option for _, group in COMMON for option in group):
            flags = tuple(flag for flag in option.flags if flag not in taken)
            if any(flag.startswith("--") for flag in flags):
                rest.append(replace(option, flags=flags))
        return (*self.own, *rest)


# --- options of all commands --------------------------------------------------------------------------------------

TIMES = Option(("-t", "--times"), "Stop after N runs.", "N", ("stop", "times"), "whole")
FOR = Option(("-f", "--for"), "Start nothing new after this time; a live run may end.", "DURATION", ("stop", "for"))
UNTIL = Option(("-u", "--until"), "Start nothing new at or after this time.", "TIME", ("stop", "until"), "moment")

COMMON: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("When to stop", (
        TIMES,
        FOR,
        UNTIL,
        Option(("--max-failures",), "Stop after N failures in a row.", "N",
               ("stop", "consecutive_failures"), "whole"),
        Option(("--until-success",), "Stop after the first success; that is the goal.", key=("stop", "on_success")),
        Option(("--until-failure",), "Stop after the first failure; that is the goal.", key=("stop", "on_failure")),
        Option(("--kill-at-end",), "When `--for` or `--until` is over, end a live run too."),
    )),
    ("What counts as success", (
        Option(("-k", "--continue-on-error"), "Go on after a failure; this is the default."),
        Option(("--fail-fast",), "Stop after the first failure.", key=("stop", "on_failure")),
        Option(("--success-pattern",), "Success: the output matches this regular expression.", "REGEX",
               ("success", "pattern")),
        Option(("--failure-pattern",), "Failure: the output matches this; it beats all else.", "REGEX",
               ("success", "failure_pattern")),
        Option(("--case-insensitive",), "Patterns ignore case.", key=("success", "ignore_case")),
    )),
    ("The process", (
        Option(("-T", "--timeout"), "End a run that takes longer; `0s`: none.", "DURATION", ("timeout",)),
        Option(("--kill-timeout",), "How long a run gets between TERM and KILL (10s).", "DURATION", ("stop_timeout",)),
        Option(("-C", "--working-dir"), "Run there.", "DIR", ("cwd",)),
        Option(("--env",), "Set a variable; may be given again.", "NAME=VALUE", ("env",), "pair"),
        Option(("--shell",), "Give the words of COMMAND, joined by spaces, to `/bin/sh -c`."),
        Option(("--stdin",), "Let the runs read rpr's standard input, one after the other."),
    )),
    ("Output", (
        Option(("-q", "--quiet", "--suppress"), "Do not show what the command prints.",
               key=("output", "mode"), value="suppress"),
        Option(("-v", "--verbose"), "Tell every start and end on standard error, and the counts at the end."),
        Option(("--stats-only",), "Show nothing but the counts at the end, on standard output.",
               key=("output", "mode"), value="suppress"),
        Option(("-s", "--stream"), "Show output as it comes; this is the default.",
               key=("output", "mode"), value="stream"),
        Option(("--aggregate",), "Show the output of a run when it has ended.",
               key=("output", "mode"), value="aggregate"),
        Option(("-o", "--output-file"), "Append what the command prints to FILE instead of showing it.", "FILE",
               ("output", "file")),
        Option(("--log-file",), "Append what rpr itself says to FILE, with times.", "FILE"),
        Option(("--log-format",), "Format of rpr's own messages: `text` (default) or `json`.", "FORMAT"),
        Option(("--timestamps",), "Begin every line of output with the time.", key=("output", "timestamps")),
    )),
    ("Servers that push back", (
        Option(("--http-aware",), "Honour `Retry-After` and rate-limit headers in the output.", key=("http_aware",)),
        Option(("--http-max-delay",), "Never wait longer than this.", "DURATION", ("http_aware", "max_delay")),
        Option(("--http-min-delay",), "Never wait less than this.", "DURATION", ("http_aware", "min_delay")),
        Option(("--http-parse-json",), "Look into JSON.", key=("http_aware", "json")),
        Option(("--http-no-parse-json",), "Do not look into JSON.", key=("http_aware", "json"), value=False),
        Option(("--http-json-on-success",), "Look into JSON of answers that did not refuse, too.",
               key=("http_aware", "json_on_success")),
        Option(("--http-parse-headers",), "Look at headers.", key=("http_aware", "headers")),
        Option(("--http-no-parse-headers",), "Do not look at headers.", key=("http_aware", "headers"), value=False),
        Option(("--http-trust-client",), "Obey answers that blame the request, too.",
               key=("http_aware", "trust_client")),
        Option(("--http-custom-fields",), "More JSON fields that hold a delay: `wait_ms`, `wait:m`.", "NAME,NAME",
               ("http_aware", "fields"), "words"),
    )),
    ("Limits shared with others", (
        Option(("--daemon",), "Ask the rate-limit daemon (`rpr daemon`) before each start."),
        Option(("--resource-id",), "The name of the limit that is shared.", "NAME", ("limit",)),
        Option(("--rate",), "So many starts in any window of this length, by all who share it.", "N/DURATION"),
        Option(("--daemon-socket",), "Where the daemon listens.", "PATH"),
        Option(("--fail-closed",), "Start nothing while the daemon does not answer; else limit its own starts."),
    )),
    ("Rest", (
        Option(("--metrics",), "Serve Prometheus metrics to this machine (port 9090)."),
        Option(("--metrics-port",), "Serve metrics at this port.", "PORT"),
        Option(("--health",), "Serve `/livez` and `/readyz` to this machine (port 8080)."),
        Option(("--health-port",), "Serve health at this port.", "PORT"),
        Option(("--history",), "Keep what became of the runs: `rpr history --project one-off/NAME`."),
        Option(("--name",), "What the job is called, in `--history` and `--as-job` (like its program).", "NAME"),
        Option(("--config",), "Read settings from FILE.", "FILE"),
        Option(("--dry-run",), "Show what would run and when, and do nothing."),
        Option(("--as-job",), "Print the same as a job file, and do nothing."),
        Option(("-h", "--help"), "Show this message."),
    )),
)  # fmt: skip

# --- the commands -------------------------------------------------------------------------------------------------

_EVERY = Option(("-e", "--every"), "Time from start to start.", "DURATION", ("schedule", "every"))
_BASE = Option(("-b", "--base-interval"), "The interval to begin with (1s).", "DURATION", ("base",))
_MIN = Option(("--min-interval",), "Never shorter than this.", "DURATION", ("min",))
_MAX = Option(("--max-interval",), "Never longer than this.", "DURATION", ("max",))
_SHOW = Option(("-m", "--show-metrics"), "Tell every change of the interval on standard error.")
_ADAPTIVE: Key = ("schedule", "adaptive")
_LOAD: Key = ("schedule", "load")


def _in(where: Key, *options: Option) -> tuple[Option, ...]:
    return tuple(replace(option, key=(*where, *option.key)) if option.key else option for option in options)


_DELAYS = {
    "base-delay": Option(("--base-delay",), "The first delay (1s).", "DURATION", ("schedule", "base")),
    "increment": Option(("--increment",), "What each delay is longer than the one before (1s).", "DURATION",
                        ("schedule", "increment")),
    "exponent": Option(("--exponent",), "Delay k is the base times k to this power (2).", "NUMBER",
                       ("schedule", "exponent"), "number"),
    "multiplier": Option(("--multiplier",), "What each delay is multiplied by (2).", "NUMBER",
                         ("schedule", "multiplier"), "number"),
    "factor": Option(("--multiplier",), "A delay is at most this many times the one before (3).", "NUMBER",
                     ("schedule", "multiplier"), "number"),
    "jitter": Option(("-j", "--jitter"), "Shorten each delay at random: `full` to zero, `equal` to a half.", "KIND",
                     ("schedule", "jitter")),
    "max-delay": Option(("--max-delay",), "No delay is longer (60s).", "DURATION", ("schedule", "max")),
    "retry-on": Option(("--retry-on",), "Retry only after these exit codes.", "CODE,CODE",
                       ("stop", "except_exit"), "codes"),
    "give-up-on": Option(("--give-up-on",), "Do not retry after these exit codes.", "CODE,CODE",
                         ("stop", "on_exit"), "codes"),
    "attempts": Option(("-a", "--attempts"), "Give up after N runs (3).", "N", ("stop", "times"), "whole"),
}  # fmt: skip


def _strategy(name: str, example: str, *delays: str) -> Command:
    jitter = () if name == "decorrelated-jitter" else ("jitter",)
    own = tuple(_DELAYS[delay] for delay in (*delays, *jitter, "max-delay", "attempts", "retry-on", "give-up-on"))
    return Command(name, ONE_OFF[name][0], example, own, ((("schedule", "backoff"), name),), strategy=name)


_ALL = (
    Command("interval", ONE_OFF["interval"][0], "rpr interval --every 30s --times 10 -- curl -fsS localhost:8000", (
        replace(_EVERY, needed=True),
        Option(("-n", "--immediate"), "The first run at once; this is the default.", key=("schedule", "immediate")),
        Option(("--wait-first",), "The first run after one interval.", key=("schedule", "immediate"), value=False),
        Option(("-j", "--jitter"), "Delay each start at random by up to this.", "DURATION|PERCENT",
               ("schedule", "jitter")),
    )),
    Command("count", ONE_OFF["count"][0], "rpr count --times 5 -- echo hello", (
        replace(TIMES, needed=True),
        replace(_EVERY, words="Time from start to start; without it, one run right after the other."),
        Option(("-p", "--parallel"), "Up to N runs at once, the output of each whole.", "N",
               ("max_instances",), "whole"),
        Option(("--interleave",), "With `--parallel`: show output as it comes."),
    )),
    Command("duration", ONE_OFF["duration"][0], "rpr duration --for 2m --every 10s -- date", (
        FOR,
        UNTIL,
        replace(_EVERY, words="Time from start to start; without it, one run right after the other."),
    )),
    Command("cron", ONE_OFF["cron"][0], "rpr cron --cron '0 9 * * 1-5' --tz Europe/Berlin -- ./report.sh", (
        Option(("--cron",), "Five fields of crontab(5), or `@daily` and its kin.", "EXPRESSION",
               ("schedule", "cron"), needed=True),
        Option(("--timezone", "--tz"), "The time zone of the expression (UTC).", "ZONE", ("schedule", "timezone")),
    )),
    Command("rate-limit", ONE_OFF["rate-limit"][0], "rpr rate-limit --rate 100/1h -- curl -fsS api.example.com", (
        Option(("-r", "--rate"), "So many starts in any window of this length.", "N/DURATION", ("schedule", "rate")),
        Option(("-l", "--limit"), "The starts, with `--window`, or the same as `--rate`.", "N|N/DURATION"),
        Option(("--window",), "The window, if not as `--rate`.", "DURATION"),
        Option(("-p", "--retry-pattern"), "Each start stands for attempts at these offsets.", "DURATION,DURATION",
               ("schedule", "retry_pattern"), "words"),
        Option(("-n", "--show-next"), "Tell on standard error when the next start is allowed."),
    )),
    Command("adaptive", ONE_OFF["adaptive"][0], "rpr adaptive --base-interval 1s --show-metrics -- ./probe.sh", (
        *_in(
            _ADAPTIVE, _BASE, _MIN, _MAX,
            Option(("--slow-threshold",), "Slow: this many times the target.", "NUMBER", ("slow_threshold",), "number"),
            Option(("--fast-threshold",), "Fast: this many times the target.", "NUMBER", ("fast_threshold",), "number"),
            Option(("--failure-threshold",), "The share of failures that opens the circuit (30%).", "PERCENT",
                   ("failure_threshold",), "share"),
            Option(("--target-latency",), "How long a run should take; learnt if not given.", "DURATION",
                   ("target_latency",)),
        ),
        _SHOW,
    ), ((_ADAPTIVE, {}),)),
    Command("load-adaptive", ONE_OFF["load-adaptive"][0], "rpr load-adaptive -b 1s --target-cpu 70% -- ./work.sh", (
        *_in(
            _LOAD, _BASE, _MIN, _MAX,
            Option(("--target-cpu",), "Busier than this: slower (70%).", "PERCENT", ("cpu",), "share"),
            Option(("--target-memory",), "Fuller than this: slower (80%).", "PERCENT", ("memory",), "share"),
            Option(("--target-load",), "A higher load average for each CPU: slower (1.0).", "NUMBER",
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
        Option(("--ignore",), "Not these; may be given again.", "GLOB", ("schedule", "ignore"), "list"),
        Option(("--debounce",), "Wait until nothing changed for so long (200ms).", "DURATION",
               ("schedule", "debounce")),
    ), ((("overlap",), "latest"),), usage="[OPTIONS] GLOB... -- COMMAND [ARGUMENT]..."),
)  # fmt: skip

COMMANDS: dict[str, Command] = {command.name: command for command in _ALL}
