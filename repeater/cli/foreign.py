"""Commands and options of other programs, and their equivalents here. Checked before the nearest name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_APPLY = "`rpr apply` runs a job file; `rpr apply --detach` runs it in the background"
_STATUS = "`rpr status` shows the jobs"
_RUN = (
    "`rpr apply` runs a job file, `rpr trigger JOB` runs one job now, `rpr interval -e 5s -- COMMAND` repeats a command"
)
_CHECK = "`rpr validate` checks job files, `rpr simulate` shows what they would do"
_SHOW = "`rpr status` shows the jobs, `rpr why JOB` explains one, `rpr render` shows the expanded job file"
_STOP = "`rpr stop JOB` stops jobs, `rpr down` ends the supervisor"
_FILE = "a job is a table of the job file: `rpr init` writes a starter, and a running supervisor follows changes"
_COMMANDS: Mapping[str, str] = {
    "run exec execute": _RUN,
    "up serve server supervise supervisord daemonize launch watch-file follow": _APPLY,
    "list ls jobs top": _STATUS,
    "show info inspect describe cat get": _SHOW,
    "help man usage": "`rpr --help` lists all commands, `rpr COMMAND --help` explains one",
    "check test lint verify dry-run dryrun syntax config-test configtest": _CHECK,
    "unpause unsuspend continue": "`rpr resume JOB` ends a pause",
    "suspend hold disable mute": "`rpr pause JOB` skips its starts until `rpr resume JOB`, or write `enabled = false`",
    "enable": "`rpr start JOB` starts jobs that were stopped or are disabled, or write `enabled = true`",
    "kill terminate cancel abort quit exit shutdown signal": _STOP,
    "add create new edit crontab remove rm delete del": _FILE,
    "now fire invoke run-now runnow kick": "`rpr trigger JOB` runs a job now",
    "log tail attach journal output fg": "`rpr logs JOB` shows the output of a job, `rpr logs -f` follows it",
    "runs results last": "`rpr history` shows the runs of the past",
    "explain": "`rpr why JOB` explains a job",
    "diff": "`rpr plan` shows what `rpr apply` would change",
    "update reread daemon-reload refresh sighup": "`rpr reload` reads the job files again",
    "ping healthcheck is-active live ready": "`rpr health` checks the supervisor",
    "list-timers timers upcoming": "`rpr next` shows the next starts",
    "every repeat loop again": "`rpr interval --every 5s -- COMMAND` repeats a command",
    "times": "`rpr count --times 5 -- COMMAND` runs a command five times",
    "for": "`rpr duration --for 2m -- COMMAND` repeats a command for a time",
    "retry backoff": "`rpr exponential --attempts 5 -- COMMAND` retries a command",
    "monitor metrics": "`rpr apply --http 9090` serves metrics, `rpr status` shows the jobs",
    "env vars variables settings": "`rpr config` shows every setting",
    "unit install service systemd": "`rpr systemd-unit` prints a systemd unit file",
    "scale": "`matrix` in the job file makes several jobs of one",
}
_FILES = frozenset({"apply", "plan", "validate", "render", "graph", "next", "simulate", "systemd-unit"})
_JOBS = frozenset({
    "status", "logs", "history", "events", "trigger", "pause", "resume", "start", "stop", "restart", "reset", "why",
})  # fmt: skip
_RETRIES = frozenset({"exponential", "fibonacci", "linear", "polynomial", "decorrelated-jitter"})
_FILE_OPTIONS = frozenset({"-f", "--file", "--files", "-c", "--config", "--config-file", "--job-file"})
_JOB_OPTIONS = frozenset({"-j", "--job", "--jobs", "--name", "-n", "--service"})
_OPTIONS: Mapping[str, str] = {  # of one-off commands
    "--base --base-interval --initial": "--base-delay",
    "--delay --interval --period --sleep": "--every",
    "--count --repeat --max-runs --runs": "--times",
    "--retries --max-retries --max-attempts --tries": "--attempts",
    "--duration --max-time": "--for",
    "--cwd --chdir --workdir": "--working-dir",
    "--output": "--output-file",
    "--silent": "--quiet",
    "--max": "--max-delay",
}


def command_hint(word: str) -> str | None:
    """The equivalent of a command of another program."""
    return _SENTENCES.get(word.lower().lstrip("-"))


def option_hint(command: str, option: str, has: Mapping[str, object] | frozenset[str]) -> str | None:
    """The equivalent of an option of another program. `has` are the options of the command."""
    return next((hint for hint in _option_hints(command, option, has) if hint), None)


def _option_hints(command: str, option: str, has: Mapping[str, object] | frozenset[str]) -> Iterator[str]:
    if command in _FILES and option in _FILE_OPTIONS:
        yield f"name the file without an option: `rpr {command} jobs.toml`"
    if option in _FILE_OPTIONS and "--file" in has:
        yield "write `--file FILE`"
    if option in _FILE_OPTIONS and command == "rpr":
        yield "name the file after the command: `rpr apply jobs.toml`"
    if option in _JOB_OPTIONS and "--only" in has:
        yield f"`rpr {command} --only JOB` limits it to some jobs"
    if option in _JOB_OPTIONS and command in _JOBS:
        yield f"name the job without an option: `rpr {command} JOB`"
    if option in ("-a", "--all") and command in _JOBS:
        yield f"`rpr {command} '*'` means all jobs"
    if option in ("--glob", "--globs", "--pattern", "--path", "--paths", "--file", "--files") and command == "watch":
        yield "name the files without an option: `rpr watch 'src/**' -- make`"
    if option in ("-c", "--command", "--cmd", "--exec") and "--times" in has:
        yield f"the command comes last: `rpr {command} … -- COMMAND`"
    if option in ("-d", "-D", "-b", "--daemon", "--daemonize", "--background") and "--detach" in has:
        yield "write `--detach`"
    if option in ("-o", "--output", "--format") and "--json" in has:
        yield "write `--json`"
    if option in ("-e", "--env", "--var", "--vars") and "--set" in has:
        yield "write `--set NAME=VALUE`"
    if option in ("--lines", "--last", "--limit", "-l") and "-n" in has:
        yield "write `-n N`"
    for words, ours in _OPTIONS.items():
        if option in words.split() and ours in has:
            yield f"write `{ours}`"


_SENTENCES = {word: sentence for words, sentence in _COMMANDS.items() for word in words.split()}
