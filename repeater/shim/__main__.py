"""The main program of the shim: `python -I -S .../shim/__main__.py SOCKET [FOLDER]`.

SOCKET is the number of a connected socket. FOLDER is the directory where a later client finds the shim and its files.

`processes.shim_spawner` starts it so, without the site's packages, that it is there in some 20 ms and needs 11 MB.
Everything else is `shim.server`; this file is compiled at each start, so it stays short.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    import faulthandler
    import socket

    from repeater.shim.crash_log import CrashLogWriter
    from repeater.shim.server import Shim

    sys.stderr = CrashLogWriter()
    faulthandler.enable(2)
    os.set_inheritable(int(sys.argv[1]), False)
    become_subreaper()
    os.chdir("/")
    folder = sys.argv[2] if len(sys.argv) > 2 else None
    Shim(socket.socket(fileno=int(sys.argv[1])), folder).run()


def become_subreaper() -> None:
    """Become the parent of orphans below this process, see prctl(2). Raises OSError."""
    import ctypes

    pr_set_child_subreaper = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    main()
