"""Version 2 of the shim's protocol, which shims of 0.1.0 use: translation from and to version 3.

The versions differ only in words. A supervisor of this version takes over the runs of a shim that still runs, so the
client translates for it. This module goes when shims of 0.1.0 are no longer supported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repeater.shim.protocol import Message

VERSION = 2
_OPS_TO_SHIM = {"ack": "settled", "env_base": "base", "kill_tree": "sweep", "shutdown": "leave", "spool_ack": "took"}
_OPS_FROM_SHIM = {"empty": "group_empty", "refused": "spawn_failed", "swept": "tree_killed"}
_FIELDS_TO_SHIM = {"cgroup": "fence", "use_cgroups": "fences"}
_FIELDS_FROM_SHIM = {"unfenced": "no_cgroup_reason"}


def to_v2(message: Message) -> Message:
    """A message for a shim, in the words of version 2."""
    return _translated(message, _OPS_TO_SHIM, _FIELDS_TO_SHIM)


def from_v2(message: Message) -> Message:
    """A message of a shim that uses version 2, in the words of version 3."""
    return _translated(message, _OPS_FROM_SHIM, _FIELDS_FROM_SHIM)


def hello_for_both(message: Message) -> Message:
    """A `hello` that shims of both versions understand: which version the shim has is in its answer."""
    return {**to_v2(message), **message}


def _translated(message: Message, ops: dict[str, str], names: dict[str, str]) -> Message:
    renamed = {names.get(name, name): value for name, value in message.items()}
    return {**renamed, "op": ops.get(message["op"], message["op"])}
