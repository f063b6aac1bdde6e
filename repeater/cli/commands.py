"""The tables of all commands: what `rpr --help` lists, and where each command is. The tables import nothing."""

# name -> (module, function, words for the listing, short forms); the order is that of the listing
COMMANDS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "apply": ("repeater.cli.apply", "apply", "Run a job file, and follow its changes.", ()),
    "plan": ("repeater.cli.plan", "plan", "Show what apply would change.", ()),
    "validate": ("repeater.cli.validate", "validate", "Check job files; report every problem.", ()),
    "render": ("repeater.cli.render", "render", "Show the expanded jobs, and where values come from.", ()),
    "graph": ("repeater.cli.graph", "graph", "Show the jobs and what they need.", ()),
    "next": ("repeater.cli.next", "next_", "Show the next starts of each job.", ()),
    "simulate": ("repeater.cli.simulate", "simulate", "Run the jobs on a virtual clock.", ()),
    "schema": ("repeater.cli.schema", "schema", "Print the JSON schema of job files.", ()),
    "projects": ("repeater.cli.projects", "projects", "Show the projects of this user.", ()),
    "daemon": ("repeater.cli.daemon", "daemon", "Share limits of starts between processes.", ()),
    "plugins": ("repeater.cli.plugins", "plugins", "Show which plugins are installed.", ()),
    "config": ("repeater.cli.config", "config", "Show every setting and where it comes from.", ()),
    "examples": ("repeater.cli.examples", "examples", "Show common uses.", ()),
    "completion": ("repeater.cli.completion", "completion", "Print a completion script for a shell.", ()),
    "init": ("repeater.cli.init", "init", "Write a commented starter job file.", ()),
}
# the same for commands that talk to a running supervisor
CONTROL: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "status": ("repeater.cli.status", "status", "Show how each job is.", ("ps",)),
    "logs": ("repeater.cli.logs", "logs", "Show what jobs printed.", ()),
    "history": ("repeater.cli.history", "history", "Show what became of each slot.", ()),
    "why": ("repeater.cli.why", "why", "Explain a job, or a slot.", ()),
    "events": ("repeater.cli.events", "events", "Show what happened.", ()),
    "trigger": ("repeater.cli.job_commands", "trigger", "Run jobs once, now.", ()),
    "pause": ("repeater.cli.job_commands", "pause", "Skip the slots of jobs for a while.", ()),
    "resume": ("repeater.cli.job_commands", "resume", "End a pause.", ()),
    "start": ("repeater.cli.job_commands", "start", "Let stopped jobs start again.", ()),
    "stop": ("repeater.cli.job_commands", "stop", "Stop jobs.", ()),
    "restart": ("repeater.cli.job_commands", "restart", "End the live run of jobs and start a new one.", ()),
    "reset": ("repeater.cli.job_commands", "reset", "Begin jobs anew.", ()),
    "reload": ("repeater.cli.lifecycle", "reload", "Read the job files again, now.", ()),
    "down": ("repeater.cli.lifecycle", "down", "Ask the supervisor to leave.", ()),
    "health": ("repeater.cli.status", "health", "Tell whether the supervisor is well.", ()),
    "doctor": ("repeater.cli.doctor", "doctor", "Show what this machine gives.", ()),
    "systemd-unit": ("repeater.cli.systemd_unit", "systemd_unit", "Print a service of systemd.", ()),
}
# one-off commands: name -> (words, short forms); all are `repeater.cli.oneoff`
ONE_OFF: dict[str, tuple[str, tuple[str, ...]]] = {
    "interval": ("Run a command at fixed intervals.", ("int", "i")),
    "count": ("Run a command so many times.", ("cnt", "c")),
    "duration": ("Run a command again and again for a time.", ("dur", "d")),
    "cron": ("Run a command at times of a cron expression.", ("schedule", "cr", "sched")),
    "rate-limit": ("Run a command as often as a limit allows.", ("rate", "rl", "r")),
    "adaptive": ("Run a command; its latency sets the pace.", ("adapt", "a")),
    "load-adaptive": ("Run a command; the machine's load sets the pace.", ("load", "la")),
    "exponential": ("Retry a command after 1s, 2s, 4s, 8s …", ("exp",)),
    "fibonacci": ("Retry a command after 1s, 1s, 2s, 3s, 5s …", ("fib",)),
    "linear": ("Retry a command after 1s, 2s, 3s, 4s …", ("lin",)),
    "polynomial": ("Retry a command after 1s, 4s, 9s, 16s …", ("poly",)),
    "decorrelated-jitter": ("Retry a command after growing random delays.", ("dj",)),
    "watch": ("Run a command when files change.", ("w",)),
}
