"""What is fuzzed: for each reader of foreign bytes a function that takes any, and may raise nothing.

Each lets through the errors that the reader names, and nothing else; what it accepted goes on to those who trust it. Used
by `test_targets.py` with hypothesis, a few hundred inputs a run, and by `python -m tests.fuzz`, for as long as one likes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from repeater.errors import JobFileError, PluginFailed, RepeaterError, UsageError
from repeater.jobfile.document import InputLimits
from repeater.jobfile.load import load, rebuild
from repeater.model.dump import dump_job
from repeater.model.spec import HttpAware, Success
from repeater.model.time import Instant, Mono
from repeater.policy.marks import Marks
from tests.fakes.filesystem import MemoryDisk

CORPUS = Path(__file__).parents[1] / "corpus"
NOW = Instant(datetime(2026, 3, 1, 12, tzinfo=UTC), Mono(0))
CAPS = InputLimits(file_size=1 << 16, total_size=1 << 17, depth=20, jobs=200)
SYNTAXES = ("toml", "yaml", "json")


def _are_one_line(messages: list[str]) -> None:
    assert messages
    for message in messages:
        assert message.isprintable(), message
        assert len(message) < 1000, message


def duration(data: bytes) -> None:
    from repeater.model.units import format_duration, parse_duration, parse_rate, parse_share, parse_size

    text = data.decode("utf-8", "surrogateescape")
    for parse in (parse_rate, parse_share, parse_size):
        with suppress(ValueError):
            parse(text)
    with suppress(ValueError):
        length = parse_duration(text, zero=True)
        assert parse_duration(format_duration(length), zero=True) == length


def cron(data: bytes) -> None:
    from repeater.model.spec import Cron
    from repeater.schedule.base import Track
    from repeater.schedule.cron import CronSchedule, canonical, check_cron, mean_rate

    head, text = data[:1], data[1:].decode("utf-8", "replace")
    seconds = {b"f": "first", b"l": "last"}.get(head)
    day_match = "and" if head == b"a" else "or"
    zone = "Europe/Berlin" if head in b"flz" else "UTC"
    with suppress(ValueError):
        short = canonical(text, seconds, "job")  # type: ignore[arg-type]
        assert canonical(short, seconds, "job") == short  # type: ignore[arg-type]
        check_cron(text, seconds, zone, day_match)  # type: ignore[arg-type]
        spec = Cron(short, seconds=seconds, timezone=zone, day_match=day_match)  # type: ignore[arg-type]
        mean_rate(spec, "job")
        schedule, cursor = CronSchedule(spec, "job"), NOW
        for _ in range(3):
            following = schedule.next(Track(anchor=NOW, cursor=cursor))
            if following is None:
                break
            assert following.wall > cursor.wall
            cursor = following


def job_file(data: bytes) -> None:
    """The first byte chooses the language."""
    from repeater.jobfile.limit_capacity import overcommitted_limits
    from repeater.schedule.factory import schedule_for
    from repeater.schedule.forecast import starts

    syntax = SYNTAXES[data[0] % 3] if data else "toml"
    disk = MemoryDisk({f"/p/jobs.{syntax}": data[1:], "/p/env": "A=1", "/p/more.toml": "[jobs.more]\ncommand='x'\n"})
    try:
        loaded = load([f"jobs.{syntax}"], files=disk, folder="/p", caps=CAPS, environ={"HOME": "/h"})
    except JobFileError as error:
        _are_one_line(list(map(str, error.problems)))
        return
    list(overcommitted_limits(loaded.jobfile))
    tables = {job.name: dump_job(Marks("salt", {}).hide(job)) for job in loaded.jobfile.jobs}
    assert json.loads(json.dumps(tables)) == tables
    again = rebuild({job.name: dump_job(job) for job in loaded.jobfile.jobs})
    for job in loaded.jobfile.jobs[:5]:
        assert job.name in again
        with suppress(PluginFailed):  # none is loaded here
            list(starts(job, schedule_for(job), NOW, 2))


def template(data: bytes) -> None:
    from repeater.jobfile.template import Environ, Names, TemplateFailed, render

    text = data.decode("utf-8", "replace")
    names = {
        "vars": Names("vars", {"list": ["a", "b"], "text": "x y", "number": 5, "table": {"k": "v"}, "yes": True}),
        "matrix": Names("matrix", {"it": "1"}), "params": Names("params", {}),
        "job": Names("job", {"name": "a", "group": "a"}), "project": "p", "env": Environ({"HOME": "/h"}),
    }  # fmt: skip
    try:
        value = render(text, names)
    except TemplateFailed as failed:
        _are_one_line([str(failed)])
        return
    json.dumps(value)
    assert len(str(value)) < 1 << 22


def pattern(data: bytes) -> None:
    from repeater.policy.verdict import Matcher, compile_pattern

    text, _, line = data.partition(b"\n")
    try:
        compile_pattern(text.decode("utf-8", "replace"), data[:1] == b"i")
    except ValueError:
        return
    matcher = Matcher(Success(pattern=text.decode("utf-8", "replace")), None, window=256)
    matcher.feed("stdout", line + b"\n" + line)
    matcher.found()


def env_file(data: bytes) -> None:
    from repeater.jobfile.env_file import parse_env

    with suppress(ValueError):
        for name, value in parse_env(data):
            assert name
            assert "\0" not in name + value


def server_answer(data: bytes) -> None:
    from repeater.policy.http_answer import AnswerReader, joined
    from repeater.policy.http_aware import holding, read_hints

    rule = HttpAware(fields=("a.b", "wait"))
    readers = AnswerReader(), AnswerReader()
    readers[0].feed(data[: len(data) // 2])
    readers[1].feed(data[len(data) // 2 :])
    reading = read_hints(rule, joined(readers[0].answer(), readers[1].answer()), NOW.wall)
    found = reading.push_back
    if found is not None:
        given = holding(rule, 3) if found.given is None else found.given
        assert timedelta(0) < given <= timedelta(hours=1)
        assert found.source.isprintable()
    assert all(one.value.isprintable() for one in reading.unreadable)


def control(data: bytes) -> None:
    from repeater.control.commands import VERBS, unknown
    from repeater.control.protocol import BadMessage, check_args, decode_request, encode_error, error_from
    from repeater.wire.json_lines import LineBuffer

    lines = LineBuffer(4096)
    cut = data[0] % 64 + 1 if data else 1
    for start in range(0, len(data), cut):
        lines.feed(data[start : start + cut])
        try:
            while (line := lines.take()) is not None:
                try:
                    asked = decode_request(line)
                    verb = VERBS.get(asked.verb)
                    if verb is None:
                        raise unknown(asked.verb)
                    check_args(asked.verb, verb.params, asked.args)
                except RepeaterError as error:
                    error_from(json.loads(encode_error(error).decode("ascii"))["error"])
        except BadMessage:
            return


def daemon(data: bytes) -> None:
    from repeater.ratelimitd.protocol import BadMessage, encode_error, id_of, read_message

    for line in data.split(b"\n"):
        id_of(line)
        try:
            read_message(line)
        except BadMessage as error:
            json.loads(encode_error(error.message, id_of(line)))


def http(data: bytes) -> None:
    """Bytes of an HTTP client on a real socket, in chunks of the size that the first byte gives. An odd size ends the
    connection with a reset. The server must report no internal error, and must answer another client afterwards.
    """
    import asyncio

    asyncio.run(_http(data[:1], data[1:]))


async def _http(head: bytes, data: bytes) -> None:
    import asyncio
    import socket

    from repeater.control.http.auth import AuthMiddleware, Receive, Scope, Sender, error_response
    from repeater.control.http.server import HttpServer
    from tests.faults.door_load import HEAD, reset

    async def app(scope: Scope, receive: Receive, send: Sender) -> None:
        while (message := await receive()).get("more_body"):
            if message["type"] == "http.disconnect":
                return
        await error_response(send, 200, "ok", "taken")

    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(str(context)))
    door = socket.create_server(("127.0.0.1", 0))
    door.setblocking(False)
    server = HttpServer(
        AuthMiddleware(app, token=FUZZ_TOKEN, hosts=["localhost"]), door, lambda reason: faults.append(str(reason))
    )
    try:
        size = head[0] + 1 if head else 1 << 12
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, door.getsockname())
            with suppress(ConnectionError):
                for start in range(0, min(len(data), 64 * size), size):
                    await loop.sock_sendall(client, data[start : start + size])
                    await asyncio.sleep(0)
            if size % 2:
                reset(client)
        reader, writer = await asyncio.open_connection(*door.getsockname())
        writer.write(HEAD)
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 200")
        writer.close()
    finally:
        server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    import gc

    gc.collect(0)  # a task that failed and that nobody asked is reported when it is freed
    assert not faults, faults


FUZZ_TOKEN = "0123456789abcdef"


def one_off(data: bytes) -> None:
    """Words of a one-off command, with zero bytes between them."""
    from repeater.cli.oneoff.document import table_of
    from repeater.cli.oneoff.options import COMMANDS
    from repeater.cli.oneoff.parse import check, parse
    from repeater.cli.oneoff.run import build_spec, limits_of
    from repeater.settings import resolve

    words = data.decode("utf-8", "replace").split("\0")
    command = list(COMMANDS.values())[len(words[0]) % len(COMMANDS)]
    with suppress(UsageError):
        given = parse(command, words[1:])
        check(given, has_interval=True)
        table = table_of(given, resolve({}))
        build_spec(table, "/p")
        limits_of(table)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "duration": duration, "cron": cron, "job-file": job_file, "template": template, "pattern": pattern,
    "env-file": env_file, "server-answer": server_answer, "control": control, "daemon": daemon,
    "one-off": one_off, "http": http,
}  # fmt: skip


def seeds(target: str) -> list[bytes]:
    """Inputs to begin with."""
    if target == "job-file":
        files = [*(CORPUS / "valid").glob("*.*"), *(CORPUS / "invalid").glob("*.*")]
        kinds = {".toml": b"\0", ".yaml": b"\1", ".json": b"\2"}
        return [kinds[path.suffix] + path.read_bytes() for path in sorted(files) if path.suffix in kinds]
    return _SEEDS[target]


_SEEDS: dict[str, list[bytes]] = {
    "duration": [b"1h30m", b"500ms", b"1.5d", b"2w", b"100/1h", b"10%", b"64KiB", b"1us", b"9999999999999w", b"-1s", b"1e9s"],
    "cron": [
        b" * * * * *", b"f*/5 0 3 * * *", b"l0 3 * * * */10", b" 0 0 L * *", b"z0 2 29 2 *", b" H H(1-5) * * 1#2", b" @daily",
        b"a0 12 13 * 5", b" 0 0 1-31/2 jan-dec sun-sat", b" 59 23 31 12 7", b" 0 0 30 2 *", b" H/15 * * * *", b" 5,10-20/3 * * * 5L",
    ],
    "template": [
        b"{{ vars.text }}", b"{{ vars.list | join(',') | upper }}", b"{% for a in vars.list %}{{ a }}{{ loop.index }}{% endfor %}",
        b"{% if vars.yes and 1 < 2 %}a{% elif not vars.number %}b{% else %}c{% endif %}", b"{{ env('HOME', 'x') | sh }}",
        b"{{ run.nominal | date('%F') }} {{ run.id }} {{ vars.text ~ run.attempt }}", b"{{ vars.table.k | default('x') }}",
        b"{{ 2 ** 10 % 7 + 5 // 2 - 1.5 }}", b"{{ range(3) | map('string') | list | tojson }}", b"{# c #}{% raw %}{{ x }}{% endraw %}",
        b"{{ (vars.number, [1, {'a': none}])[1][0:1] is number }}", b"{{ ''.__class__.__mro__ }}{{ vars['text'].split() | last }}",
        b"{{ vars.text.replace('x', 'y') | replace('y', 'zz') | truncate(3) | title }}",
    ],
    "pattern": [b"done\nall done", b"(a+)+b\naaaaaaaaaaaaaaaaaaaa", b"i\\d{1,3}(\\.\\d+)*$\n1.2.3", b"(?<n>x)|[^\\w]\\b(?=y)\nxy", b"(?e)(?:foo){e<=1}\nfo"],
    "env-file": [b"A=1\nexport B='x y'\n# c\nC=\"a\\nb\"\n", b"A==\r\n\r\nB", b"\xef\xbb\xbfA=1"],
    "server-answer": [
        b"HTTP/1.1 429 Too Many\r\nRetry-After: 30\r\n\r\n{}", b"HTTP/2 200\nRateLimit-Remaining: 0\nRateLimit-Reset: 60\n\n",
        b"Retry-After: Fri, 06 Mar 2026 07:28:00 GMT\n\n", b'{"retry_after": 5, "a": {"b": "1m"}}', b'{"rate_limit": {"reset_in": 1e3}} [1]',
        b"X-RateLimit-Reset: 1772366400\nX-RateLimit-Remaining: 0\n",
    ],
    "control": [
        b'{"v":2,"verb":"status","args":{}}\n', b'{"v":2,"verb":"logs","args":{"jobs":["a"],"tail":5,"follow":true}}\n',
        b'{"v":2,"verb":"apply","args":{"files":["/p/jobs.toml"],"set":[["a","b"]],"only":[],"dry_run":true}}\n',
        b'{"v":2,"verb":"history","args":{"since":"2026-01-01T00:00:00Z","limit":3}}\n{"v":3}\n', b'{"v":2,"verb":"down","args":{"level":"kill"}}\n',
    ],
    "http": [
        b"\xffGET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\x04GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3,
        b"\xffPOST /x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer 0123456789abcdef\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"\xfePOST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n",
        b"\xffPOST /x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer 0123456789abcdef\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n",
        b"\xfeGET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x16\x03\x01",
        b"\xffHEAD /livez HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\nGET", b"\x00PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    "one-off": [
        b"\0--every\x0030s\0--times\x005\0--\0echo\0hi", b"xx\0-c\x003\0--\0true", b"xxx\0-f\x001h\0-e\x005s\0--\0x",
        b"xxxx\0--cron\0* * * * *\0--\0x", b"xxxxx\0--attempts\x003\0--base-delay\x001ms\0--jitter\x0010%\0--\0x", b"xxxxxx\0--bogus\0-z\0--",
    ],
    "daemon": [
        b'{"client":"patience-cli","type":"handshake","version":"1.0"}',
        b'{"rate_limit":3,"request_time":1795448037,"resource_id":"api","retry_offsets":[0,1000],"type":"schedule_request","window_ms":5000}',
        b'{"requests":[{"expires_at":1795451637,"id":"a","resource_id":"api","scheduled_at":1795448037}],"type":"register_request"}',
        b'{"type":"reserve_request","resource_id":"a","rate_limit":1,"window_ms":1000,"client":"x","id":"1"}',
        b'{"type":"start_notice","id":"1"}', b'{"type":"release_request","id":"1"}', b'{"type":"stats_request"}',
        b'{"command":"x","command_hash":"y","final_status":"succeeded","total_duration_seconds":1.5,"total_attempts":1,\
"successful_attempts":1,"failed_attempts":0,"attempts":[{"duration_seconds":1,"exit_code":0,"success":true}],"timestamp":1}',
    ],
}  # fmt: skip
WORDS = [
    b"{{", b"}}", b"{%", b"%}", b"\0", b"\n", b"\r\n", b"\t", b"'", b'"', b'"""', b"[", b"]", b"{", b"}", b"=", b":", b",", b"#", b"&a ", b"*a", b"<<",
    b"null", b"true", b"-1", b"0", b"1e999", b"9" * 40, b".inf", b"nan", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x1b[2J", b"\xc2\x9b",
    b"jobs", b"command", b"schedule", b"every", b"cron", b"retry", b"needs", b"matrix", b"include", b"vars", b"defaults", b"templates", b"extends",
    b"limits", b"pools", b"output", b"success", b"stop", b"watch", b"env_file", b"1h", b"100/1h", b"* * * * *", b"L", b"H", b"#5", b"@daily",
    b"run.id", b"vars.list", b"|", b"range(1000)", b"| list", b"__class__", b"\\", b"(?", b"{1000}", b"type", b"verb", b"args", b"Retry-After: ",
    b"GET / HTTP/1.1\r\n", b"host: localhost\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"\r\n\r\n", b"connection: close\r\n",
]  # fmt: skip
"""What chance alone would not find."""
