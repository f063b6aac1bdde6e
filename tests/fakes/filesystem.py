"""Files in memory: the fake of `jobfile.Files`, with links and files that cannot be read."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Mapping

from repeater.jobfile.document import Missing, Unreadable


class MemoryDisk:
    """`files` maps absolute paths to contents; `links` maps paths to the paths that they lead to."""

    def __init__(self, files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> None:
        self.files = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        self.links = dict(links or {})

    def read(self, path: str, most: int) -> bytes:
        content = self.files.get(self.resolve(path))
        if content is None:
            below = any(one.startswith(path.rstrip("/") + "/") for one in self.files)
            raise Unreadable("it is a directory") if below else Missing("the file does not exist")
        if len(content) > most:
            raise Unreadable(f"it has more than {most} bytes, the limit")
        return content

    def resolve(self, path: str) -> str:
        path = posixpath.normpath(path)
        for start, target in self.links.items():
            if path == start or path.startswith(start + "/"):
                return self.resolve(target + path.removeprefix(start))
        return path

    def glob(self, folder: str, pattern: str) -> list[str]:
        parts = [
            "(?:[^/]+/)*" if part == "**" else fnmatch.translate(part).removesuffix(r"\Z").replace(".*", "[^/]*") + "/"
            for part in pattern.split("/")
        ]
        wanted = re.compile(re.escape(folder.rstrip("/")) + "/" + "".join(parts).rstrip("/"))
        names = [*self.files, *self.links]
        return sorted(path for path in names if wanted.fullmatch(path) and "/." not in path)
