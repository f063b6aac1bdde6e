"""Two plugins that reach out: a run that is a request, and a file with a line for each slot."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from repeater.plugins import Executor, Output, Task


class Http(Executor):
    """A run is one request. Its body is the run's output, so patterns and the history see it."""

    description = "Makes a request; a status from 400 on is a failure"
    schema = {
        "required": ["url"],
        "properties": {
            "url": {"type": "string", "pattern": "^https?://", "description": "What is asked for"},
            "method": {"enum": ["GET", "HEAD", "POST", "PUT", "DELETE"], "default": "GET", "description": "How"},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Of the request"},
            "seconds": {"type": "number", "minimum": 0.1, "default": 30, "description": "How long it may keep silent"},
        },
    }

    def run(self, task: Task) -> int:
        request = urllib.request.Request(  # noqa: S310 - the schema admits http and https only
            self.keys["url"],
            data=task.stdin.encode() or None,
            headers=self.keys.get("headers", {}),
            method=self.keys["method"],
        )
        try:
            with urllib.request.urlopen(request, timeout=self.keys["seconds"]) as answer:  # noqa: S310
                shutil.copyfileobj(answer, sys.stdout.buffer)
            return 0
        except urllib.error.HTTPError as error:
            print(f"{self.keys['url']}: {error.code} {error.reason}", file=sys.stderr)
            shutil.copyfileobj(error, sys.stdout.buffer)
            return 1
        except OSError as error:
            print(f"{self.keys['url']}: {error}", file=sys.stderr)
            return 2


class JsonLines(Output):
    """A line for every slot that was decided, in a file that other programs read."""

    description = "Appends the row of each slot to a file, as a line of JSON"
    schema = {
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "pattern": "^/", "description": "The file, from the root"},
            "only": {"enum": ["all", "failures"], "default": "all", "description": "Which slots"},
        },
    }

    def record(self, record: Mapping[str, Any]) -> None:
        if self.keys["only"] == "all" or record["outcome"] == "failed":
            with open(self.keys["file"], "a", encoding="utf-8") as file:
                file.write(json.dumps(dict(record)) + "\n")
