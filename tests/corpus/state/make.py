"""Make the fixtures of this folder with one version of `rpr`: `python make.py VERSION COMMAND...`.

COMMAND starts the `rpr` of that version. The result is `VERSION.tar.gz`, the state folder of a supervisor that was
shut down, and `VERSION-killed.tar.gz`, the same folder after a later supervisor was killed with SIGKILL while two
services ran. README.md says how the fixtures of 0.1.0 were made. About 20 seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
KEPT = ("history.db", "history.db-wal", "history.db-shm", "began", "lock")
"""The files of a state folder that later versions must be able to read."""


class Maker:
    """One folder with a job file, a state folder and a runtime folder, and the commands of one `rpr`."""

    def __init__(self, root: Path, command: list[str]) -> None:
        self.root = root
        self.state = root / "state" / "repeater" / "corpus"
        self._command = command
        (root / "run").mkdir(mode=0o700)
        self._env = {**os.environ, "XDG_STATE_HOME": str(root / "state"), "XDG_RUNTIME_DIR": str(root / "run")}
        shutil.copy(HERE / "jobs.toml", root / "jobs.toml")

    def run(self, *args: str) -> int:
        done = subprocess.run(
            [*self._command, *args], cwd=self.root, env=self._env, capture_output=True, text=True, check=False
        )
        print("rpr", *args, "->", done.returncode, done.stderr.strip()[-200:])
        return done.returncode

    def wait(self) -> None:
        """Return when a supervisor answers."""
        for _ in range(100):
            if self.run("status") == 0:
                return
            time.sleep(0.1)
        raise SystemExit("the supervisor does not answer")

    @staticmethod
    def end(supervisor: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM twice: stop all jobs, then exit."""
        supervisor.terminate()
        time.sleep(0.2)
        supervisor.terminate()
        supervisor.wait()

    def apply(self, *args: str) -> subprocess.Popen[bytes]:
        command = [*self._command, "apply", "jobs.toml", "--no-watch", "--quiet", *args]
        return subprocess.Popen(
            command, cwd=self.root, env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def pack(self, name: str) -> None:
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz", compresslevel=9) as archive:
            for part in KEPT:
                if (self.state / part).exists():
                    archive.add(self.state / part, part)

    def edit(self, pattern: str, replacement: str) -> None:
        path = self.root / "jobs.toml"
        path.write_text(re.sub(pattern, replacement, path.read_text(), flags=re.DOTALL))


def main(version: str, command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(Path(folder), command)
        supervisor = maker.apply()
        maker.wait()
        time.sleep(1)
        maker.run("pause", "pausable", "--reason", "the disk moves")
        maker.run("stop", "stoppable", "--reason", "not wanted today")
        maker.run("trigger", "cancelled")
        maker.run("trigger", "cannot-start")
        time.sleep(1)
        maker.run("restart", "web")
        maker.run("stop", "cancelled")
        maker.run("pause", "missed")
        maker.run("resume", "missed")
        time.sleep(3)
        maker.edit(r"\[jobs\.removed\].*?\n\n", "")
        maker.run("reload")
        time.sleep(1)
        maker.end(supervisor)
        time.sleep(4)
        supervisor = maker.apply()  # slots of four seconds were missed
        maker.wait()
        time.sleep(1)
        maker.end(supervisor)
        maker.pack(version)

        supervisor = maker.apply("--on-death", "kill", "--only", "web", "--only", "worker", "--allow-removals")
        maker.wait()
        time.sleep(1)
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
        time.sleep(1)
        maker.pack(f"{version}-killed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
