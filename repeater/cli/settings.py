"""The one place that reads the configuration file of rpr. Imported by every one-off command, so it imports nothing."""

from __future__ import annotations

import os

from repeater.errors import UsageError
from repeater.settings import Settings, config_path, resolve

_MOST = 1 << 20  # bytes of a configuration file


def load_settings(path: str | None = None) -> Settings:
    """The settings in force. `path` is that of `--config`; without it `RPR_CONFIG`, or the usual place if there is one.

    Raises UsageError for a file that was asked for and cannot be read, and for values that cannot be used.
    """
    asked = path or os.environ.get("RPR_CONFIG")
    name = asked or config_path(os.environ)
    try:
        with open(name, "rb") as file:
            data = file.read(_MOST + 1)
    except FileNotFoundError:
        if asked:
            raise UsageError(f"cannot read `{name}`: the file does not exist") from None
        data = b""
    except OSError as error:
        raise UsageError(f"cannot read `{name}`: {error.strerror}") from None
    if len(data) > _MOST:
        raise UsageError(f"cannot read `{name}`: it has more than {_MOST} bytes, the limit")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"cannot read `{name}`: it is not valid UTF-8") from None
    return resolve(os.environ, text, name)
