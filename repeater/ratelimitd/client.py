"""Blocking client of the rate-limit daemon for commands of `rpr`: one request, one response.

Jobs use `system.ratelimit_client`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from repeater.errors import Unreachable
from repeater.ratelimitd.protocol import LONGEST_ANSWER, encode
from repeater.ratelimitd.socket_path import open_daemon
from repeater.wire.json_lines import BadMessage, LineBuffer, decode
from repeater.wire.trust import Untrusted
from repeater.wire.unix import cause_of

PATIENCE = 5.0
"""Seconds in which the daemon must answer."""


def ask_stats(path: Path, patience: float = PATIENCE) -> dict[str, Any]:
    """The statistics of the daemon that listens at `path`. Raises Unreachable."""
    import time

    deadline = time.monotonic() + patience
    try:
        sock = open_daemon(path, patience)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise Unreachable(
            f"cannot reach a rate-limit daemon at `{path}`: none is running", hint="start one with `rpr daemon`"
        ) from None
    except Untrusted as error:
        raise Unreachable(f"cannot use the socket `{path}` of a rate-limit daemon: {error}") from None
    except OSError as error:
        raise Unreachable(f"cannot reach the rate-limit daemon at `{path}`: {cause_of(error)}") from None
    lines = LineBuffer(LONGEST_ANSWER)
    with sock:
        try:
            sock.sendall(encode("stats_request"))
            while (line := lines.take()) is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(1 << 16)
                if not data:
                    raise Unreachable(f"cannot reach the rate-limit daemon at `{path}`: it closed the connection")
                lines.feed(data)
            answer = decode(line)
        except TimeoutError:
            raise Unreachable(f"cannot reach the rate-limit daemon at `{path}`: it does not answer") from None
        except OSError as error:
            raise Unreachable(
                f"cannot reach the rate-limit daemon at `{path}`: {os.strerror(error.errno or 0)}"
            ) from None
        except BadMessage as error:
            raise Unreachable(f"cannot understand the rate-limit daemon at `{path}`: {error.message}") from None
    if answer.get("type") != "stats_response":
        cause = answer.get("error", "it uses a different protocol")
        raise Unreachable(f"cannot reach the rate-limit daemon at `{path}`: {cause}")
    return answer
