"""Reads the configuration file of rpr. Has no imports at the top, because every one-off command imports it."""

from __future__ import annotations

import os

from repeater.errors import UsageError
from repeater.settings import Settings, config_path, resolve

_MOST = 1 << 20  # bytes of a configuration file


def load_settings(path: str | None = None) -> Settings:
    """The active settings. `path` is the value of `--config`. Default: `RPR_CONFIG`, else the default path.

    Raises UsageError for a named file that cannot be read, and for invalid values.
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
