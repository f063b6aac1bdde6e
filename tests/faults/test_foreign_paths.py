"""Sockets, folders, job files and log files that another user put in the way are refused."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from repeater.shim import spool
from tests.faults.effects import mark
from tests.faults.ground import Ground, wait_for

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
ONCE = f"[jobs.a]\ncommand = {json.dumps(mark('start'))}\n"
HOLD = "[jobs.s]\ncommand = 'exec sleep 600'\nschedule = 'always'\n"


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


class Spoof:
    """A socket at which a process of `nobody` listens; `heard` is what was sent to it."""

    def __init__(self, path: Path, mode: int = 0o755) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.heard = path.parent.parent / "heard"
        read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:  # pragma: no cover - the child
            with contextlib.suppress(BaseException):
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(path))
                os.chmod(path, 0o777)  # noqa: PTH101
                os.setgid(nobody().pw_gid)
                os.setuid(nobody().pw_uid)
                listener.listen(5)  # the peer's user is the one at this moment
                os.write(write, b"x")
                log = os.open(self.heard, os.O_WRONLY)
                while True:
                    client, _ = listener.accept()
                    client.settimeout(2)
                    with contextlib.suppress(OSError):
                        os.write(log, client.recv(4096))
                    client.close()
            os._exit(0)
        os.close(write)
        os.read(read, 1)
        os.close(read)
        os.chown(path, nobody().pw_uid, -1)
        path.parent.chmod(mode)

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


@contextlib.contextmanager
def spoofed(path: Path, *, owns_folder: bool = True) -> Iterator[Spoof]:
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent.parent / "heard").touch()
    (path.parent.parent / "heard").chmod(0o666)
    for folder in (path.parent.parent, *path.parent.parent.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            break
    made = Spoof(path)
    if owns_folder:
        os.chown(path.parent, nobody().pw_uid, -1)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[None]:
    """`nobody` may pass through the folders of the test."""
    changed = []
    for folder in (tmp_path, *tmp_path.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & 0o001:
            changed.append((folder, mode))
            folder.chmod(mode | 0o001)
    yield
    for folder, mode in changed:
        folder.chmod(mode)


# --- sockets ----------------------------------------------------------------------------------------------------


@as_root
def test_a_secret_is_not_sent_to_a_spoofed_supervisor(ground: Ground, reachable: None) -> None:
    del ground.rpr.env["XDG_RUNTIME_DIR"]
    temp = ground.folder / "tmp"
    temp.mkdir()
    temp.chmod(0o1777)
    ground.rpr.env["TMPDIR"] = str(temp)
    ground.write(ONCE + "[vars]\ntoken = ''\n")
    with spoofed(temp / f"repeater-{os.geteuid()}" / "ground.sock") as spoof:
        for words in (("apply", "jobs.toml", "--set", "token=SECRET"), ("status",), ("down",)):
            done = ground(*words)
            assert done.code == 6, done
            assert f"belongs to user {nobody().pw_uid} (nobody)" in done.err
        assert spoof.heard.read_text() == ""
    assert ground.effects.all() == []


@as_root
def test_a_process_of_another_user_at_our_socket_receives_nothing(ground: Ground, reachable: None) -> None:
    """The folder and the file are ours, and the process that listens is not."""
    path = ground.folder / "sockets" / "p.sock"
    with spoofed(path, owns_folder=False) as spoof:
        os.chown(path, os.geteuid(), -1)
        done = ground("status", "--socket", str(path))
        assert done.code == 6
        assert f"the process that listens there belongs to user {nobody().pw_uid}" in done.err
        assert spoof.heard.read_text() == ""


@as_root
def test_a_spoofed_rate_limit_daemon_receives_nothing(ground: Ground, reachable: None) -> None:
    path = ground.folder / "limits" / "daemon.sock"
    with spoofed(path, owns_folder=False) as spoof:
        os.chown(path, os.geteuid(), -1)
        done = ground("daemon", "--stats", "--socket", str(path))
        assert done.code == 6
        assert "the process that listens there belongs to user" in done.err
        words = ("count", "1", "--daemon", "--socket", str(path), "--resource-id", "r", "--rate", "5/1m", "--", "true")
        ground(*words)
        assert spoof.heard.read_text() == ""


@as_root
def test_a_shim_in_a_folder_of_another_user_is_not_connected(tmp_path: Path, reachable: None) -> None:
    from repeater.processes.shim_client import connect_existing

    with spoofed(tmp_path / "keeper" / spool.SOCKET) as spoof:
        assert connect_existing(tmp_path / "keeper", "kill", False) is None
        assert spoof.heard.read_text() == ""


# --- the state folder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o277, 0o777])
def test_folders_of_the_state_are_for_their_user_alone_whatever_the_umask(ground: Ground, umask: int) -> None:
    ground.rpr.env["XDG_STATE_HOME"] = str(ground.folder / "a" / "b")
    run = ground.apply(ONCE, umask=umask)
    assert run.leaves() == 0, run.err
    for name in ("a", "a/b", "a/b/repeater", "a/b/repeater/ground"):
        assert stat.S_IMODE((ground.folder / name).stat().st_mode) == 0o700, name


@as_root
@pytest.mark.parametrize("part", ["x", "x/y", "x/y/state"])
def test_a_state_folder_below_a_folder_of_another_user_is_refused(ground: Ground, part: str) -> None:
    (ground.folder / "x/y/state").mkdir(parents=True)
    os.chown(ground.folder / part, nobody().pw_uid, -1)
    ground.write(ONCE)
    done = ground("apply", "jobs.toml", "--state-dir", "x/y/state")
    assert done.code == 5
    assert f"belongs to user {nobody().pw_uid} (nobody)" in done.err
    assert list((ground.folder / "x/y/state").iterdir()) == []
    assert ground.effects.all() == []


def test_a_state_folder_below_one_in_which_every_user_may_write_is_refused(ground: Ground) -> None:
    (ground.folder / "open").mkdir()
    (ground.folder / "open").chmod(0o777)
    ground.write(ONCE)
    done = ground("apply", "jobs.toml", "--state-dir", "open/state")
    assert done.code == 5
    assert f"every user can write in `{ground.folder}/open`" in done.err
    (ground.folder / "open").chmod(0o1777)
    assert ground("apply", "jobs.toml", "-q", "--state-dir", "open/state").code == 0


@as_root
@pytest.mark.parametrize("part", ["repeater", "repeater/ground"])
def test_a_link_in_the_last_parts_of_a_path_is_refused_unless_root_made_it(tmp_path: Path, part: str) -> None:
    from repeater.wire.trust import Untrusted, check_path

    user = nobody().pw_uid
    (tmp_path / "elsewhere/ground").mkdir(parents=True)
    (tmp_path / part).parent.mkdir(exist_ok=True)
    target = tmp_path / "elsewhere" / part.partition("/")[2]
    (tmp_path / part).symlink_to(target)
    path = tmp_path / "repeater/ground"
    check_path(path, links=False)
    os.lchown(tmp_path / part, user, -1)
    check_path(path, users=(0, user))
    with pytest.raises(Untrusted, match="is a link"):
        check_path(path, users=(0, user), links=False)
    (tmp_path / part).unlink()
    (tmp_path / part).symlink_to(tmp_path / part)
    with pytest.raises(Untrusted, match="too many symbolic links"):
        check_path(path)


@as_root
def test_a_link_of_another_user_on_the_way_to_the_state_is_refused(ground: Ground) -> None:
    (ground.folder / "real").mkdir()
    (ground.folder / "way").symlink_to(ground.folder / "real")
    os.lchown(ground.folder / "way", nobody().pw_uid, -1)
    ground.write(ONCE)
    done = ground("apply", "jobs.toml", "--state-dir", "way/state")
    assert done.code == 5
    assert "is a symbolic link of user" in done.err


@pytest.mark.parametrize("kind", ["others may write", "of another user", "a link"])
def test_a_token_that_another_user_could_have_written_is_refused(ground: Ground, kind: str) -> None:
    ground.state.mkdir(parents=True, mode=0o700)
    token = ground.state / "http-token"
    token.write_text("a-token-that-somebody-knows\n")
    token.chmod(0o600)
    if kind == "others may write":
        token.chmod(0o622)
    elif kind == "a link":
        token.rename(ground.folder / "other")
        token.symlink_to(ground.folder / "other")
    elif os.geteuid() == 0:
        os.chown(token, nobody().pw_uid, -1)
    else:
        pytest.skip("only root may give a file away")
    ground.write(ONCE)
    done = ground("apply", "jobs.toml", "--http", "127.0.0.1:0")
    assert done.code == 1
    assert "the token in `" in done.err
    assert ground.effects.all() == []
    if kind != "a link":
        (ground.folder / "named").write_text("a-token-that-somebody-knows\n")
        (ground.folder / "named").chmod(0o606)
        done = ground("apply", "jobs.toml", "--http", "127.0.0.1:0", "--http-token-file", "named")
        assert "other users can write it" in done.err


# --- job files that were looked for -----------------------------------------------------------------------------


LOOKING = [
    "apply", "validate", "plan", "next", "simulate --for 1h", "graph", "render", "systemd-unit", "status", "logs", "history", "why a",
    "pause a", "reload", "down", "doctor",
]  # fmt: skip


@as_root
@pytest.mark.parametrize("verb", LOOKING)
def test_a_job_file_of_another_user_is_used_only_if_it_is_named(ground: Ground, verb: str) -> None:
    ground.write(ONCE)
    (ground.folder / "inner").mkdir()
    os.chown(ground.folder / "jobs.toml", nobody().pw_uid, -1)
    ground.rpr.folder = ground.folder / "inner"
    done = ground(*verb.split(), timeout=60)
    assert done.code == 2, done
    assert f"cannot use the job file `{ground.folder}/jobs.toml`" in done.err
    assert f"it belongs to user {nobody().pw_uid} (nobody)" in done.err
    assert f"rpr apply {ground.folder}/jobs.toml" in done.err
    assert ground.effects.all() == []


@as_root
def test_a_foreign_job_file_is_taken_when_it_is_named_or_meant_by_sudo(ground: Ground) -> None:
    ground.write(ONCE)
    os.chown(ground.folder / "jobs.toml", nobody().pw_uid, -1)
    assert ground("validate").code == 2
    assert ground("validate", "jobs.toml").code == 0
    assert ground("validate", env={"RPR_FILE": "jobs.toml"}).code == 0
    assert ground("validate", env={"SUDO_UID": str(nobody().pw_uid)}).code == 0
    os.chown(ground.folder / "jobs.toml", os.geteuid(), -1)
    assert ground("validate").code == 0


def test_a_job_file_in_a_folder_in_which_every_user_may_write_is_not_found(ground: Ground) -> None:
    ground.write(ONCE)
    ground.folder.chmod(0o777)
    try:
        done = ground("validate")
        assert (done.code, "every user can write in" in done.err) == (2, True)
        assert ground("validate", "jobs.toml").code == 0
    finally:
        ground.folder.chmod(0o700)


# --- log files of jobs with `user` ------------------------------------------------------------------------------

VICTIM = "what was here before\n"


def as_user(file: str, **more: str) -> str:
    keys = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f"[jobs.a]\ncommand = 'echo written'\nuser = 'nobody'\noutput = {{ file = '{file}', mode = 'suppress' }}\n{keys}"


@as_root
@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
def test_root_writes_no_output_through_a_link_of_the_user_of_a_job(ground: Ground, reachable: None, kind: str) -> None:
    (ground.folder / "theirs").mkdir()
    os.chown(ground.folder / "theirs", nobody().pw_uid, -1)
    (ground.folder / "secret").mkdir()
    victim = ground.folder / "secret" / "out.log"
    victim.write_text(VICTIM)
    if kind == "file":
        (ground.folder / "theirs/logs").mkdir()
        os.chown(ground.folder / "theirs/logs", nobody().pw_uid, -1)
        (ground.folder / "theirs/logs/out.log").symlink_to(victim)
    elif kind == "folder":
        (ground.folder / "theirs/logs").symlink_to(ground.folder / "secret")
    else:
        (ground.folder / "theirs/logs").mkdir()
        os.mkfifo(ground.folder / "theirs/logs/out.log")
    ground.write(as_user("theirs/logs/out.log"))
    done = ground("apply", "jobs.toml")
    assert "cannot write" in done.err, done
    assert victim.read_text() == VICTIM


@as_root
@pytest.mark.parametrize("kind", ["file", "folder", "hard", "fifo"])
def test_a_job_of_root_writes_no_output_through_a_link_of_another_user(
    ground: Ground, reachable: None, kind: str
) -> None:
    theirs, secret = ground.folder / "theirs", ground.folder / "secret"
    theirs.mkdir()
    secret.mkdir()
    victim = secret / "out.log"
    victim.write_text(VICTIM)
    logs = theirs / "logs"
    if kind == "folder":
        logs.symlink_to(secret)
    else:
        logs.mkdir()
        os.chown(logs, nobody().pw_uid, -1)
        if kind == "fifo":
            os.mkfifo(logs / "out.log")
        elif kind == "hard":
            (logs / "out.log").hardlink_to(victim)
        else:
            (logs / "out.log").symlink_to(victim)
    os.chown(theirs, nobody().pw_uid, -1)
    ground.write("[jobs.a]\ncommand = 'echo written'\noutput = { file = 'theirs/logs/out.log', mode = 'suppress' }\n")
    done = ground("apply", "jobs.toml")
    assert "cannot write" in done.err, done
    assert victim.read_text() == VICTIM


@as_root
@pytest.mark.parametrize("way", ["plain", "root's link", "sticky"])
def test_a_job_of_root_writes_and_rotates_in_a_folder_of_another_user(
    ground: Ground, reachable: None, way: str
) -> None:
    theirs = ground.folder / "theirs"
    theirs.mkdir()
    if way == "sticky":
        theirs.chmod(0o1777)
    else:
        os.chown(theirs, nobody().pw_uid, -1)
    if way == "root's link":
        (ground.folder / "way").symlink_to("theirs")
    name = "way" if way == "root's link" else "theirs"
    output = f"{{ file = '{name}/new/out.log', mode = 'suppress', max_size = '1KiB', backups = 2 }}"
    ground.write(f"[jobs.a]\ncommand = 'seq 1000'\noutput = {output}\n")
    done = ground("apply", "jobs.toml")
    assert done.code == 0, done
    assert "cannot write" not in done.err
    files = sorted(path.name for path in (theirs / "new").iterdir())
    assert files == ["out.log", "out.log.1", "out.log.2"]
    assert {(theirs / "new" / one).stat().st_uid for one in files} == {0}


@as_root
def test_a_job_of_root_may_follow_links_of_root(ground: Ground, reachable: None) -> None:
    (ground.folder / "real").mkdir()
    (ground.folder / "logs").symlink_to("real")
    (ground.folder / "real/out.log").symlink_to("deep.log")
    ground.write(
        "[jobs.a]\ncommand = 'echo a'\noutput = { file = 'logs/out.log', mode = 'suppress' }\n"
        "[jobs.b]\ncommand = 'echo b'\noutput = { file = '/dev/stdout', mode = 'suppress' }\n"
    )
    done = ground("apply", "jobs.toml")
    assert "cannot write" not in done.err
    assert (ground.folder / "real/deep.log").read_text() == "a\n"
    assert "b\n" in done.out


@as_root
@pytest.mark.parametrize("owner", ["root", "nobody"])
def test_log_files_belong_to_the_user_of_their_job_and_rotate(ground: Ground, reachable: None, owner: str) -> None:
    folder = ground.folder / "logs"
    folder.mkdir()
    os.chown(folder, pwd.getpwnam(owner).pw_uid, -1)
    jobs = (
        "[jobs.a]\ncommand = 'seq 1000'\nuser = 'nobody'\n"
        "output = { file = 'logs/deep/out.log', mode = 'suppress', max_size = '1KiB', backups = 2 }\n"
    )
    ground.write(jobs)
    done = ground("apply", "jobs.toml")
    assert done.code == 0, done
    assert "cannot write" not in done.err
    files = sorted(path.name for path in (folder / "deep").iterdir())
    assert files == ["out.log", "out.log.1", "out.log.2"]
    assert {(folder / "deep" / name).stat().st_uid for name in files} == {nobody().pw_uid}
    assert (folder / "deep/out.log").read_text().endswith("1000\n")


@as_root
def test_opening_a_file_as_a_user_keeps_the_rights_of_other_threads(tmp_path: Path) -> None:
    from repeater.output.user_logfile import Folder, rights

    def filesystem_user(thread: int) -> str:
        status = Path(f"/proc/self/task/{thread}/status").read_text()
        return next(line.split()[4] for line in status.splitlines() if line.startswith("Uid:"))

    inside, go = threading.Event(), threading.Event()
    ids: list[int] = []

    def work() -> None:
        ids.append(threading.get_native_id())
        with rights(Folder(-1, nobody().pw_uid, nobody().pw_gid)):
            inside.set()
            go.wait(20)
        inside.clear()
        ids.append(0)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(20)
    try:
        assert filesystem_user(ids[0]) == str(nobody().pw_uid)
        assert filesystem_user(threading.get_native_id()) == "0"
    finally:
        go.set()
        thread.join()


# --- all of it as another user ----------------------------------------------------------------------------------


@as_root
def test_the_fallback_folder_of_another_user_is_not_used_to_listen(ground: Ground) -> None:
    del ground.rpr.env["XDG_RUNTIME_DIR"]
    temp = ground.folder / "tmp"
    (temp / f"repeater-{os.geteuid()}").mkdir(parents=True)
    temp.chmod(0o1777)
    os.chown(temp / f"repeater-{os.geteuid()}", nobody().pw_uid, -1)
    ground.rpr.env["TMPDIR"] = str(temp)
    run = ground.apply(HOLD, "--ephemeral")
    run.until_err("cannot reach this supervisor")
    assert f"belongs to user {nobody().pw_uid}" in run.err
    wait_for(lambda: ground.jobs_living() == {"s"}, lambda: run.err)
    assert list((temp / f"repeater-{os.geteuid()}").iterdir()) == []
