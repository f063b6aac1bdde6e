"""The environment variables that belong to a user, from the user database (passwd(5))."""

from __future__ import annotations

from collections.abc import Mapping


def user_environment(user: str) -> Mapping[str, str]:
    """HOME, USER, LOGNAME and SHELL of a user, by name or number, as cron and systemd set them.

    Empty for a user that the database does not know: the start reports that.
    """
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return {}
    shell = entry.pw_shell or "/bin/sh"
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": shell}
