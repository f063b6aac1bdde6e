"""Plugins that do what plugins must not do, for the tests: written as a module into a folder of their own."""

MODULE = """
import os, signal, sys, time
from datetime import UTC, datetime, timedelta
from repeater.plugins import Executor, Output, Schedule, StopCondition

class Good(Schedule):
    description = "Every so many seconds"
    version = "9"
    schema = {"properties": {"seconds": {"type": "integer", "default": 10}}}
    def next(self, track):
        print("noise on standard output")
        return (track.after or track.anchor) + timedelta(seconds=self.keys["seconds"])

class Picky(Good):
    def __init__(self, keys):
        super().__init__(keys)
        if keys["seconds"] == 13:
            raise ValueError("thirteen brings bad luck")

class Raises(Good):
    def next(self, track):
        raise RuntimeError("no idea")

class Naive(Good):
    def next(self, track):
        return datetime(2030, 1, 1)

class Wordy(Good):
    def next(self, track):
        return "soon"

class Hangs(Good):
    def next(self, track):
        time.sleep(600)

class Spins(Good):
    def next(self, track):
        while True:
            pass

class Slow(Good):
    def next(self, track):
        time.sleep(0.05)
        return super().next(track)

class Exits(Good):
    def next(self, track):
        os._exit(7)

class Leaves(Good):
    def next(self, track):
        sys.exit("bye")

class Dies(Good):
    def next(self, track):
        os.kill(os.getpid(), signal.SIGSEGV)

class Mute(Schedule):
    description = "Has no next"

class Nameless(Schedule):
    def next(self, track):
        return None

class Odd(Good):
    schema = {"properties": {"seconds": {"type": "lump"}}}

class Far(Good):
    schema = {"properties": {"seconds": {"$ref": "https://example.com/schema.json"}}}

class Crowded(Good):
    schema = {"properties": {"every": {"type": "string"}}}

class NotPlain(Good):
    schema = {"default": object()}

class Listed(Good):
    schema = {"type": "array"}

class Unrelated:
    description = "No plugin at all"

function = print

class Yes(StopCondition):
    description = "Says true"
    def met(self, tally):
        return True

class Told(StopCondition):
    description = "Repeats what it was told"
    def met(self, tally):
        return f"{tally.runs} {tally.now.year} {tally.last}"

class Limits(StopCondition):
    description = "Tells its limits"
    def met(self, tally):
        import resource
        return str([resource.getrlimit(one)[0] for one in (resource.RLIMIT_AS, resource.RLIMIT_CPU)])

class Collects(Output):
    description = "Writes what it gets to a file"
    schema = {"properties": {"file": {"type": "string"}, "fail": {"type": "string"}, "slow": {"type": "number"}}}
    def _say(self, *words):
        time.sleep(self.keys.get("slow", 0))
        with open(self.keys["file"], "a") as file:
            print(*words, file=file)
        if words[0] == self.keys.get("fail"):
            raise OSError("disk on fire")
    def begin(self, run):
        self._say("begin", run.job, run.run)
    def chunk(self, run, stream, data):
        self._say("chunk", run.run, stream, data)
    def record(self, record):
        self._say("record", record["job"], record["outcome"])
    def close(self):
        self._say("close")

class OnlyRecords(Output):
    description = "Wants rows alone"
    def record(self, record):
        pass

class Runs(Executor):
    description = "Does as its key says"
    schema = {"properties": {"do": {"type": "string"}}}
    def run(self, task):
        what = self.keys.get("do")
        if what == "echo":
            print(task.command, task.stdin, task.attempt, task.nominal.year, os.environ["RPR_JOB"])
            return 3
        if what == "raise":
            print("before", flush=True)
            raise LookupError("nothing there")
        if what == "odd":
            return "fine"
        if what == "large":
            return 125
        if what == "wait":
            try:
                print("waiting", flush=True)
                time.sleep(600)
            finally:
                print("tidied up", flush=True)
"""
