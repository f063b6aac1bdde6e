"""`python -m tests.fuzz [TARGET ...] --seconds N`: inputs without end, until something is found or the time is over.

With atheris, if it is installed (`pip install atheris`), guided by which lines an input reaches; otherwise, or with
`--blind`, by chance alone from the same seeds. An input that is found is written to the current folder and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

SLOW = 5.0
"""Seconds that no input of a few kilobytes may take."""
LONGEST = 4096


def main() -> int:
    if sys.argv[1:2] == ["--guided"]:  # nothing of repeater may have been imported
        return guided(sys.argv[2], int(sys.argv[3]))
    from tests.fuzz import door
    from tests.fuzz.targets import TARGETS

    names = (*TARGETS, "door")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(names)}; default: each in turn")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--blind", action="store_true")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(names):
        parser.error(f"no target is called `{unknown.pop()}`")
    has_atheris = importlib.util.find_spec("atheris") is not None and not asked.blind
    found = 0
    for name in asked.targets or names:
        if name == "door":
            found += door.alone(asked.seconds, asked.seed)
        elif has_atheris:
            words = [sys.executable, "-m", "tests.fuzz", "--guided", name, str(asked.seconds)]
            found += subprocess.run(words, check=False).returncode != 0
        else:
            found += blind(name, asked.seconds, asked.seed)
    print(f"{found} found")
    return 1 if found else 0


def blind(name: str, seconds: float, seed: int | None) -> bool:
    """Whether anything was found."""
    from tests.fuzz.targets import TARGETS, WORDS, seeds

    seed = seed if seed is not None else random.randrange(1 << 32)
    chance = random.Random(seed)
    pool, end, count = seeds(name), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutated(chance, pool, WORDS)
        began = time.monotonic()
        try:
            TARGETS[name](data)
        except Exception:  # noqa: BLE001 - whatever it is, it is a find
            traceback.print_exc()
            return _found(name, data, f"seed {seed}")
        if time.monotonic() - began > SLOW:
            return _found(name, data, f"took {time.monotonic() - began:.1f} s, seed {seed}")
        count += 1
    print(f"{name}: {count} inputs, nothing found (seed {seed})", flush=True)
    return False


def mutated(chance: random.Random, pool: list[bytes], words: list[bytes]) -> bytes:
    """One of the pool with some changes: bytes, words, pieces of others, pieces left out or there twice."""
    data = bytearray(chance.choice(pool))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 9))):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((1, 1, 2, 4, 16, 64)))
        match chance.randrange(7):
            case 0:
                data[start:start] = chance.choice(words)
            case 1:
                data[start:end] = chance.choice(words)
            case 2:
                del data[start:end]
            case 3:
                data[start:start] = data[start:end] * chance.choice((1, 2, 30))
            case 4:
                other = chance.choice(pool)
                at = chance.randrange(len(other) + 1)
                data[start:end] = other[at : at + chance.choice((4, 16, 64))]
            case 5:
                data[start:end] = chance.randbytes(end - start)
            case _:
                data[start:end] = bytes(
                    chance.choice(b" \n\t,.:;=-+*/0123456789azAZ[]{}()'\"#&|") for _ in range(end - start)
                )
    return bytes(data[:LONGEST])


def _found(name: str, data: bytes, why: str) -> bool:
    file = Path(f"found-{name}")
    file.write_bytes(data)
    print(f"{name}: FOUND ({why}): {data[:200]!r}, kept in `{file}`", flush=True)
    return True


def guided(name: str, seconds: int) -> int:
    """atheris ends the process itself, with another status than 0 if it found anything."""
    import atheris

    with atheris.instrument_imports(include=["repeater"]):
        from tests.fuzz import targets

        target = targets.TARGETS[name]
        for data in targets.seeds(name):
            target(data)  # what is imported late
    with tempfile.TemporaryDirectory(prefix="rpr-fuzz-") as folder:
        home = Path(folder)
        (home / "seeds").mkdir()
        for number, data in enumerate(targets.seeds(name)):
            (home / "seeds" / str(number)).write_bytes(data[:LONGEST])
        words = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in targets.WORDS]
        (home / "words").write_text("".join(words))
        options = [f"-max_total_time={seconds}", f"-timeout={SLOW:g}", f"-max_len={LONGEST}", f"-dict={home / 'words'}"]
        options += [f"-artifact_prefix=found-{name}-", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, str(home / "seeds")], target)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
