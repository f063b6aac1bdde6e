"""The environment variables `RPR_*` that rpr reads or sets. Other names are probably typing errors."""

from __future__ import annotations

import sys
from collections.abc import Mapping

READ = (
    "RPR_CGROUPS", "RPR_CONFIG", "RPR_DAEMON_SOCKET", "RPR_DEBUG", "RPR_DEFAULT_INTERVAL", "RPR_FILE",
    "RPR_HEALTH_CHECK_PORT", "RPR_HEALTH_ENABLED", "RPR_HTTP", "RPR_HTTP_TOKEN", "RPR_HTTP_TOKEN_FILE",
    "RPR_JITTER_PERCENT", "RPR_KILL_TIMEOUT", "RPR_LOG_FORMAT", "RPR_LOG_LEVEL", "RPR_MAX_DEPTH", "RPR_MAX_FILE_SIZE",
    "RPR_MAX_JOBS", "RPR_MAX_RELOAD_MEMORY", "RPR_MAX_RELOAD_TIME", "RPR_MAX_RETRIES", "RPR_MAX_TOTAL_SIZE",
    "RPR_METRICS_ENABLED", "RPR_METRICS_PORT", "RPR_PLUGIN_PROCESS", "RPR_PROJECT", "RPR_SLOW_CALLBACK", "RPR_SOCKET",
    "RPR_STATE_DIR", "RPR_TIMEOUT",
)  # fmt: skip
"""Variables that commands read."""
SET = (
    "RPR_ATTEMPT", "RPR_DUE_TIME", "RPR_END_TIME", "RPR_EXIT", "RPR_GENERATION", "RPR_HOOK", "RPR_JOB",
    "RPR_LAST_SUCCESS", "RPR_NOMINAL_TIME", "RPR_REASON", "RPR_REASON_CODE", "RPR_RUN_ID",
    "RPR_START_TIME", "RPR_STATE", "RPR_TRIGGER",
)  # fmt: skip
"""Variables that rpr sets for jobs and hooks. An `rpr` in a job must accept them."""


def warn_of_unknown(environ: Mapping[str, str]) -> None:
    """Print a warning to stderr for each unknown variable that starts with `RPR_`."""
    for name in sorted(name for name in environ if name.startswith("RPR_") and name not in READ and name not in SET):
        import difflib

        near = difflib.get_close_matches(name, READ, 1, 0.7)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        word = name if name.isprintable() else ascii(name)[1:-1]
        print(f"rpr: warning: the environment variable `{word}` is not known{hint}", file=sys.stderr)
