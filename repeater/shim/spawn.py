"""Starts one process that leads a session, with pipes for its output. Raises the cause if that fails.

`spawn` blocks for about half a millisecond, so the supervisor calls it in a thread. It must never use `preexec_fn` (a
fork of the whole heap, 50 times slower), and never leave a descriptor or a child behind when it fails. It imports what
most starts do not need late, because a shim must start within milliseconds.

Resource limits and `nice` are set from outside while a short shell script is stopped (`kill -STOP $$`). Then the script
executes the command, so the command never runs without them, and jobs without limits pay nothing. For another user they
are set from inside (`shim.setuid_exec`).
"""

from __future__ import annotations

import errno
import os
import resource  # here, because os.wait4 imports it when it is first called, which fails without a free descriptor
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from repeater.shim import posix_spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import IO, Any

TEMPORARY = frozenset(
    {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EINTR, errno.ETXTBSY}
)
_HOLD = ("/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "hold")


class SpawnError(Exception):
    """Nothing was started. `code` and `detail` are those of `model.reasons`, which nothing here can import.

    `exit_code` is that of a shell that cannot start the command: 127 if a file or folder does not exist, else 126.
    `temporary`: the machine lacked a resource, so a later start may succeed.
    """

    def __init__(self, code: str, detail: Mapping[str, Any], *, exit_code: int = 126, temporary: bool = False) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.exit_code = exit_code
        self.temporary = temporary


class ChildProcess:
    """A process that exists. `pidfd` is None where the system has none. `stdout` and `stderr` are the ends of its
    output to read from, which do not block; None where it writes elsewhere.
    """

    __slots__ = ("pid", "pidfd", "status", "stderr", "stdout", "usage")

    def __init__(self, pid: int, pidfd: int | None, stdout: int | None, stderr: int | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.stdout = stdout
        self.stderr = stderr
        self.status: int | None = None
        self.usage: tuple[int, int] | None = None

    def wait(self) -> int | None:
        """As `poll`, but waits for the exit."""
        return self.poll(0)

    def poll(self, how: int = os.WNOHANG) -> int | None:
        """Its exit code, or minus the number of the signal that ended it. None while it runs. Reaps it."""
        if self.status is None:
            try:
                pid, status, used = os.wait4(self.pid, how)
                if pid:
                    self.usage = usage_of(used)
            except ChildProcessError:
                pid, status = self.pid, 0  # other code has reaped it, so its status is unknown
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status


def usage_of(used: resource.struct_rusage) -> tuple[int, int]:
    """The largest memory of a process and of those that it waited for, in bytes, and the CPU time of them all, in
    microseconds. Linux counts the memory of the process that started it, so small values are those of this program.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_maxrss * unit, round((used.ru_utime + used.ru_stime) * 1e6)


class Credentials:
    """The user and the groups of a process, as Popen needs them. All None: those of this process."""

    __slots__ = ("group", "groups", "user")

    def __init__(
        self, user: int | None = None, group: int | None = None, groups: tuple[int, ...] | None = None
    ) -> None:
        self.user = user
        self.group = group
        self.groups = groups


_OURSELVES = Credentials()


def spawn(  # noqa: PLR0913 - a process has that many properties
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    stdin: bytes | int = b"",
    outputs: tuple[int, int] | None = None,
    user: str | None = None,
    group: str | None = None,
    umask: int | None = None,
    nice: int = 0,
    rlimits: Sequence[tuple[str, tuple[int, int]]] = (),
    roams: bool = False,
    program: str | None = None,
    together: bool = False,
) -> ChildProcess:
    """Start `argv` and give its process, its pidfd and the read ends of its output. Raises SpawnError.

    `stdin` is what it can read, or a descriptor. `outputs` are descriptors that it writes to instead of pipes.
    `roams`: this process may change its own directory and umask for a moment, which makes a start cheaper, and it reaps
    children without a pidfd. `together`: other threads start processes now, so it must not change them, and must let
    the other threads run. `program` is the path of `argv[0]`, if it is known.
    """
    folder = cwd
    try:
        owner = _OURSELVES if user is None and group is None else _owner(user, group)
        limits = [(_limit(name), values) for name, values in rlimits] if rlimits else []
        held = bool(limits or nice)
        if not argv or not argv[0]:
            raise ValueError("empty")
        if held:
            _check_runnable(argv, cwd, env)
            _check_allowed(limits, nice)
        program = program or program_of(argv[0], env)
        is_plain = not held and owner is _OURSELVES
        if is_plain and program is not None and outputs is not None and not roams and not together:
            given = stdin if isinstance(stdin, int) else None
            if not (stdin and given is None) and umask is None and posix_spawn.can_start(cwd, given, outputs):
                pid = posix_spawn.spawn(program, tuple(argv), env, given, outputs)
                return ChildProcess(pid, _pidfd(pid), None, None)
        undo: list[tuple[Callable[..., object], Any]] = []
        ours: list[int] = []
        try:
            stdout, out_write = _pipe(ours, undo) if outputs is None else (None, outputs[0])
            stderr, err_write = _pipe(ours, undo) if outputs is None else (None, outputs[1])
            fd = stdin if isinstance(stdin, int) else _readable(stdin, undo) if stdin else None
            ends = (out_write, err_write)
            if is_plain and roams and not together:
                cwd, umask = _resolve_cwd(cwd, umask, undo), None
            if (
                is_plain
                and together
                and umask is None
                and program is not None
                and posix_spawn.inherits_nothing(fd, ends)
            ):
                pid = posix_spawn.spawn_in_dir(program, tuple(argv), env, fd, ends, cwd)
            elif is_plain and umask is None and program is not None and posix_spawn.can_start(cwd, fd, ends):
                pid = posix_spawn.spawn(program, tuple(argv), env, fd, ends)
            else:
                popen: dict[str, Any] = {
                    "cwd": cwd or None,
                    "env": env,
                    "stdin": fd,
                    "stdout": out_write,
                    "stderr": err_write,
                    "start_new_session": True,
                    "close_fds": True,
                    "umask": -1 if umask is None else umask,
                }
                process = _start(argv, owner, limits, nice, program, popen)
                pid, process.returncode = process.pid, 0  # from now on this module waits for it
            ours.clear()
        finally:
            for fd in ours:
                os.close(fd)
            for call, value in reversed(undo):
                call(value)
    except (OSError, ValueError) as error:
        raise _explained(error, argv, folder, env, user) from error
    return ChildProcess(pid, None if roams else _pidfd(pid), stdout, stderr)


def _resolve_cwd(cwd: str, umask: int | None, undo: list[tuple[Callable[..., object], Any]]) -> str:
    """Change the directory and the umask of this process for the child. Afterwards the directory is `/`."""
    if umask is not None:
        undo.append((os.umask, os.umask(umask)))
    if cwd:
        os.chdir(cwd)
        undo.append((os.chdir, "/"))
    return ""


def _start(
    argv: Sequence[str],
    owner: Credentials,
    limits: Sequence[tuple[int, tuple[int, int]]],
    nice: int,
    program: str | None,
    popen: dict[str, Any],
) -> subprocess.Popen[bytes]:
    import subprocess  # a slow import that most starts do not need

    held = bool(limits or nice)
    if popen["stdin"] is None:
        popen["stdin"] = subprocess.DEVNULL
    try:
        if held and owner.user is not None and owner.group is not None:
            from repeater.shim import setuid_exec

            return setuid_exec.spawn_as_user(argv, (owner.user, owner.group, owner.groups or ()), limits, nice, **popen)
        process = subprocess.Popen(
            [*_HOLD, *argv] if held else argv,
            executable=None if held else program,
            user=owner.user,
            group=owner.group,
            extra_groups=owner.groups,
            **popen,
        )
    except subprocess.SubprocessError as error:
        raise ValueError(str(error)) from error
    if held:
        _resume_with_limits(process, limits, nice)
    return process


def _pipe(ours: list[int], undo: list[tuple[Callable[..., object], Any]]) -> tuple[int, int]:
    read, write = os.pipe()
    ours.append(read)
    undo.append((os.close, write))
    os.set_blocking(read, False)
    return read, write


def _readable(data: bytes, undo: list[tuple[Callable[..., object], Any]]) -> int:
    """An unnamed file with `data`: no pipe has to be fed, and the process reads up to end of file."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("stdin"), "w+b", buffering=0)
    else:
        import tempfile

        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the rest
    undo.append((lambda _: file.close(), None))
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    file.seek(0)
    return file.fileno()


def _pidfd(pid: int) -> int | None:
    """None also when descriptors ran out: the process runs, and is waited for in another way."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


# --- who, and with which limits ---------------------------------------------------------------------------------


def _owner(user: str | None, group: str | None) -> Credentials:
    """The groups of the user are set too. A change to the current user needs no privilege."""
    if user is None and group is None:
        return _OURSELVES
    import grp
    import pwd

    wanted_gid = None
    if group is not None:
        try:
            wanted_gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise SpawnError("group_unknown", {"group": group}) from None
    if user is None:
        return Credentials(group=None if wanted_gid == os.getegid() else wanted_gid)
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise SpawnError("user_unknown", {"user": user}) from None
    gid = entry.pw_gid if wanted_gid is None else wanted_gid
    if entry.pw_uid == os.geteuid() and gid == os.getegid():
        return _OURSELVES
    if os.geteuid() != 0:
        raise SpawnError("user_denied", {"user": user})
    return Credentials(entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)))


def _limit(name: str) -> int:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if not isinstance(number, int):
        raise SpawnError("limit_unknown", {"limit": name})
    return number


def _check_allowed(limits: Sequence[tuple[int, tuple[int, int]]], nice: int) -> None:
    """Refuse, before the process starts, what could not be set afterwards. Root can set everything."""
    if os.geteuid() == 0:
        return
    if nice < 0:
        raise SpawnError("nice_denied", {"nice": nice})
    for number, (_, hard) in limits:
        ours = resource.getrlimit(number)[1]
        if ours != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > ours):
            raise SpawnError("limit_too_high", {"wanted": hard, "most": ours})


def _check_runnable(argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
    """The stopped shell would report a missing command too late, with its own exit code 127."""
    if not os.path.isdir(cwd or "."):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), cwd)
    if _found(argv[0], cwd, env) is None:
        exists = "/" in argv[0] and os.path.exists(os.path.join(cwd, argv[0]))
        code = errno.EACCES if exists else errno.ENOENT
        raise OSError(code, os.strerror(code), argv[0])


def _resume_with_limits(
    process: subprocess.Popen[bytes], limits: Sequence[tuple[int, tuple[int, int]]], nice: int
) -> None:
    """Set the limits of a stopped process and continue it. If they cannot be set, kill it."""
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if nice:
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        for number, values in limits:
            resource.prlimit(process.pid, number, values)
        os.kill(process.pid, signal.SIGCONT)
    except (OSError, ValueError) as error:
        process.kill()
        process.wait()
        raise SpawnError("limits_unset", {"error": str(error)}) from error


def program_of(command: str, env: Mapping[str, str]) -> str | None:
    """The program that PATH leads to. None if the child must search, which tries to execute in each directory."""
    if "/" in command:
        return command
    for folder in env.get("PATH", "").split(":"):
        if not folder.startswith("/"):
            return None  # relative to the directory of the child
        path = f"{folder}/{command}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


# --- why not ----------------------------------------------------------------------------------------------------


def _explained(error: Exception, argv: Sequence[str], cwd: str, env: Mapping[str, str], user: str | None) -> SpawnError:
    command = argv[0] if argv else ""
    shown = command if len(command) <= 200 else command[:197] + "..."
    if not isinstance(error, OSError):
        return _diagnose_e2big(_visible(shown), argv, env) or SpawnError(
            "program_failed", {"program": _visible(shown), "error": str(error)}
        )
    if not error.errno:
        return SpawnError("program_failed", {"program": shown, "error": str(error)})
    name = errno.errorcode.get(error.errno, str(error.errno))
    if error.errno in TEMPORARY:
        return SpawnError("resource_short", {"program": shown, "errno": name}, temporary=True)
    exit_code = 127 if error.errno == errno.ENOENT else 126
    if cwd and error.errno != errno.E2BIG and not (os.path.isdir(cwd) and os.access(cwd, os.X_OK)):
        return SpawnError("folder_unusable", {"folder": cwd, "errno": name}, exit_code=exit_code)
    code, more = _diagnose(error.errno, command, cwd, env, user)
    if code == "program_unusable":
        more["errno"] = name
    return SpawnError(code, {"program": shown, **more}, exit_code=exit_code)


def _diagnose(
    number: int, command: str, cwd: str, env: Mapping[str, str], user: str | None
) -> tuple[str, dict[str, Any]]:
    """The code for an errno, and the fields that it has beside `program`."""
    path = _found(command, cwd, env) or os.path.join(cwd, command)
    if number == errno.ENOENT and os.path.isfile(path):
        interpreter = _interpreter(path)
        if interpreter is None:
            return "loader_missing", {}
        return "interpreter_missing", {"interpreter": interpreter}
    if number == errno.ENOENT:
        return "program_missing", {"on_path": True} if "/" not in command else {}
    if number == errno.EACCES and os.path.isdir(path):
        return "program_is_folder", {}
    if number == errno.EPERM and user:
        return "program_as_user_denied", {"user": user}
    if number == errno.E2BIG:
        return "arguments_too_big", {}
    if number == errno.ENOEXEC:
        return "program_format", {}
    return "program_unusable", {}


def _diagnose_e2big(shown: str, argv: Sequence[str], env: Mapping[str, str]) -> SpawnError | None:
    """The part of a command that no operating system accepts."""
    if not argv or not argv[0]:
        return SpawnError("command_empty", {})
    if any("\0" in part for part in argv):
        return SpawnError("command_nul", {"program": shown})
    for name, value in env.items():
        if "\0" in name or "\0" in value:
            return SpawnError("environment_nul", {"program": shown, "variable": _visible(name)})
        if "=" in name or not name:
            return SpawnError("environment_name", {"program": shown, "variable": name})
    return None


def _visible(text: str) -> str:
    return text.replace("\0", "\\0")


def _found(command: str, cwd: str, env: Mapping[str, str]) -> str | None:
    if "/" in command:
        path = os.path.join(cwd, command)
        return path if os.path.isfile(path) and os.access(path, os.X_OK) else None
    import shutil

    return shutil.which(command, path=env.get("PATH", os.defpath))


def _interpreter(path: str) -> str | None:
    """The interpreter that the first line of a script names. None if the file is not a script."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError:
        return "?"
    if not first.startswith(b"#!"):
        return None
    return first.removeprefix(b"#!").decode(errors="replace").strip().partition(" ")[0] or "?"
