"""The command that adds an extra, by the program that installed rpr: pip, pipx or uv."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, TypeAlias

Extra: TypeAlias = Literal["load", "web"]


def extra_hint(extra: Extra, prefix: str | None = None) -> str:
    """A command line. `prefix` is the environment that rpr runs in, for tests."""
    package = f"'repeater-rpr[{extra}]'"
    root = Path(sys.prefix if prefix is None else prefix)
    if (root / "pipx_metadata.json").exists():
        return f"pipx install --force {package}"
    if (root / "uv-receipt.toml").exists():
        return f"uv tool install {package}"
    try:
        is_made_by_uv = "\nuv = " in f"\n{(root / 'pyvenv.cfg').read_text()}"
    except OSError:
        is_made_by_uv = False
    return f"{'uv ' if is_made_by_uv else ''}pip install {package}"
