"""The tables of all commands: their summaries for `rpr --help`, and their modules. The tables import nothing."""

Row = tuple[str, str, str, tuple[str, ...]]
"""(module, function, summary, short forms)."""

SECTIONS: dict[str, dict[str, Row]] = {
    "Write and check job files": {
        "init": ("repeater.cli.init", "init", "Write a commented starter job file.", ()),
        "validate": ("repeater.cli.validate", "validate", "Check job files and report all problems.", ()),
        "render": ("repeater.cli.render", "render", "Print the expanded jobs and the origin of their values.", ()),
        "graph": ("repeater.cli.graph", "graph", "Show the jobs and their dependencies.", ()),
        "plan": ("repeater.cli.plan", "plan", "Show what apply would change.", ()),
        "next": ("repeater.cli.next", "next_", "Show the next starts of each job.", ()),
        "simulate": ("repeater.cli.simulate", "simulate", "Run the jobs on a virtual clock.", ()),
        "schema": ("repeater.cli.schema", "schema", "Print the JSON schema of job files.", ()),
    },
    "Run job files": {
        "apply": ("repeater.cli.apply", "apply", "Run the jobs of job files and apply changes of the files.", ()),
        "reload": ("repeater.cli.lifecycle", "reload", "Reload the job files.", ()),
        "down": ("repeater.cli.lifecycle", "down", "Shut down the supervisor.", ()),
        "backup": ("repeater.cli.backup", "backup", "Write the state of a project to a file.", ()),
        "restore": ("repeater.cli.backup", "restore", "Replace the state of a project by a backup.", ()),
        "projects": ("repeater.cli.projects", "projects", "Show the projects of this user.", ()),
        "systemd-unit": ("repeater.cli.systemd_unit", "systemd_unit", "Print a systemd unit file.", ()),
    },
    "See what happens": {
        "status": ("repeater.cli.status", "status", "Show the state of each job.", ("ps",)),
        "logs": ("repeater.cli.logs", "logs", "Show job output.", ()),
        "history": ("repeater.cli.history", "history", "Show the history of scheduled runs.", ()),
        "why": ("repeater.cli.why", "why", "Explain the state of a job or of a past slot.", ()),
        "events": ("repeater.cli.events", "events", "Show recent events.", ()),
    },
    "Control jobs": {
        "trigger": ("repeater.cli.job_commands", "trigger", "Run jobs once, immediately.", ()),
        "pause": ("repeater.cli.job_commands", "pause", "Pause jobs: skip their slots.", ()),
        "resume": ("repeater.cli.job_commands", "resume", "Resume paused jobs.", ()),
        "start": ("repeater.cli.job_commands", "start", "Start stopped or disabled jobs.", ()),
        "stop": ("repeater.cli.job_commands", "stop", "Stop jobs.", ()),
        "restart": (
            "repeater.cli.job_commands",
            "restart",
            "Restart jobs: stop the current run and start a new one.",
            (),
        ),
        "reset": ("repeater.cli.job_commands", "reset", "Reset job counters and completion.", ()),
    },
    "Check the supervisor and the machine": {
        "health": ("repeater.cli.status", "health", "Check the health of the supervisor.", ()),
        "doctor": (
            "repeater.cli.doctor",
            "doctor",
            "Check this machine: processes, limits, clock, state directory, sockets.",
            (),
        ),
    },
    "Other commands": {
        "daemon": ("repeater.cli.daemon", "daemon", "Serve rate limits to all processes of this machine.", ()),
        "plugins": ("repeater.cli.plugins", "plugins", "Show the installed plugins.", ()),
        "config": ("repeater.cli.config", "config", "Show all settings and their origin.", ()),
        "examples": ("repeater.cli.examples", "examples", "Show examples of common uses.", ()),
        "completion": ("repeater.cli.completion", "completion", "Print a completion script for a shell.", ()),
    },
}
"""The sections of `rpr --help`, by task: name -> row."""

COMMANDS: dict[str, Row] = {name: row for section in SECTIONS.values() for name, row in section.items()}

CONTROL = (
    *SECTIONS["See what happens"], *SECTIONS["Control jobs"], "reload", "down",
    *SECTIONS["Check the supervisor and the machine"], "systemd-unit",
)  # fmt: skip
"""The commands about a running supervisor."""

RENAMED: dict[str, dict[str, str]] = {"history": {"--most": "--limit"}, "apply": {"--on-death": "--on-crash"}}
"""Command -> former name of an option -> name. Former names work until 0.4 and print a warning."""

# one-off commands: name -> (summary, short forms); all are in `repeater.cli.oneoff`
ONE_OFF: dict[str, tuple[str, tuple[str, ...]]] = {
    "interval": ("Run a command at fixed intervals.", ("int", "i")),
    "count": ("Run a command N times.", ("cnt", "c")),
    "duration": ("Run a command repeatedly for a given time.", ("dur", "d")),
    "cron": ("Run a command at the times of a cron expression.", ("schedule", "cr", "sched")),
    "rate-limit": ("Run a command as often as a rate limit allows.", ("rate", "rl", "r")),
    "adaptive": ("Run a command at an interval that adapts to its latency.", ("adapt", "a")),
    "load-adaptive": ("Run a command at an interval that adapts to the machine's load.", ("load", "la")),
    "exponential": ("Retry a command after 1s, 2s, 4s, 8s …", ("exp",)),
    "fibonacci": ("Retry a command after 1s, 1s, 2s, 3s, 5s …", ("fib",)),
    "linear": ("Retry a command after 1s, 2s, 3s, 4s …", ("lin",)),
    "polynomial": ("Retry a command after 1s, 4s, 9s, 16s …", ("poly",)),
    "decorrelated-jitter": ("Retry a command after growing random delays.", ("dj",)),
    "watch": ("Run a command when files change.", ("w",)),
}
