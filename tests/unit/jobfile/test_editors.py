"""What editors show with the schema: ajv in strict mode, yaml-language-server and Taplo, where Node is present."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repeater.jobfile.schema import schema

MODULES = Path(sys.prefix) / "node" / "node_modules"
SCHEMA = Path(__file__).parents[3] / "schemas" / "jobs.schema.json"
STRICT = """
const Ajv = require("ajv"), fs = require("fs");
const ajv = new Ajv({ strict: true, allowUnionTypes: true, strictRequired: false });
ajv.addVocabulary(["markdownDescription"]);
ajv.compile(JSON.parse(fs.readFileSync(0, "utf8")));
"""
YAML = "jobs:\n  a:\n    command: x\n    timout: 5s\n    schedule:\n      \n  b:\n    command: x\n    schedule: \n"
FAULTS_TOML = """
[jobs.a]
command = 5
timeout = []
env = 5
nice = "x"
retry = { attempts = "x" }
ready = { http = 5 }
stop = 5
live = 5
overlap = 5
schedule = 5

[jobs.b]
command = "x"
schedule = { every = "5m", colour = "red" }
timout = "5s"
"""
FAULTS_YAML = """
jobs:
  a:
    command: 5
    timeout: []
    env: 5
    nice: x
    retry: { attempts: x }
    ready: { http: 5 }
    stop: 5
    live: 5
    overlap: 5
    schedule: 5
  b:
    command: x
    schedule: { every: 5m, colour: red }
    timout: 5s
"""
FAULTY_KEYS = [
    "colour",
    "command",
    "env",
    "live",
    "nice",
    "overlap",
    "ready",
    "retry",
    "schedule",
    "stop",
    "timeout",
    "timout",
]
"""The keys in the lines of the faults, each once; `colour` is in a line with `schedule`."""
SESSION = """
const [program, schema, text] = process.argv.slice(1);
const server = require("child_process").spawn(process.execPath, [program, "--stdio"], { stdio: ["pipe", "pipe", "ignore"] });
const uri = "file:///nowhere/jobs.yaml", found = {};
const yaml = { schemas: { ["file://" + schema]: ["*.yaml"] }, completion: true, validate: true, schemaStore: { enable: false } };
let input = Buffer.alloc(0);
const send = (message) => {
  const body = JSON.stringify({ jsonrpc: "2.0", ...message });
  server.stdin.write(`Content-Length: ${Buffer.byteLength(body)}\\r\\n\\r\\n${body}`);
};
const complete = (id, line, character) =>
  send({ id, method: "textDocument/completion", params: { textDocument: { uri }, position: { line, character } } });
server.stdout.on("data", (data) => {
  input = Buffer.concat([input, data]);
  for (;;) {
    const end = input.indexOf("\\r\\n\\r\\n");
    if (end < 0) return;
    const length = Number(/Content-Length: (\\d+)/i.exec(input.slice(0, end))[1]);
    if (input.length < end + 4 + length) return;
    const message = JSON.parse(input.slice(end + 4, end + 4 + length));
    input = input.slice(end + 4 + length);
    receive(message);
  }
});
function receive(message) {
  if (message.method === "workspace/configuration")
    return send({ id: message.id, result: message.params.items.map((item) => (item.section === "yaml" ? yaml : null)) });
  if (message.method === "textDocument/publishDiagnostics") {
    if (found.diagnostics) return;
    found.diagnostics = message.params.diagnostics.map((one) => [one.range.start.line, one.message]);
    complete(2, 5, 6);
    return complete(3, 8, 14);
  }
  if (message.id === 1) {
    send({ method: "initialized", params: {} });
    return send({ method: "textDocument/didOpen", params: { textDocument: { uri, languageId: "yaml", version: 1, text } } });
  }
  if (message.method === undefined && (message.id === 2 || message.id === 3)) {
    found[message.id === 2 ? "keys" : "words"] = message.result.items.map((item) => item.label);
    if (found.keys && found.words) { console.log(JSON.stringify(found)); server.kill(); process.exit(0); }
    return;
  }
  if (message.id !== undefined) send({ id: message.id, result: null });
}
send({ id: 1, method: "initialize", params: { processId: null, rootUri: null, capabilities: { workspace: { configuration: true } } } });
setTimeout(() => { server.kill(); process.exit(1); }, 50000);
"""


def node(module: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    if not shutil.which("node") or not (MODULES / module).exists():
        pytest.skip(f"node with {module} is not installed")
    env = {**os.environ, "NODE_PATH": str(MODULES)}
    return subprocess.run(["node", *arguments], input=text, capture_output=True, text=True, env=env, timeout=60)


def test_ajv_compiles_the_schema_in_strict_mode():
    done = node("ajv", "-e", STRICT, text=json.dumps(schema()))
    assert done.returncode == 0, done.stderr[-600:]


def test_descriptions_with_code_are_markdown_descriptions_too():
    def check(tree):
        if isinstance(tree, dict):
            if "`" in str(tree.get("description", "")) and isinstance(tree["description"], str):
                assert tree.get("markdownDescription") == tree["description"]
            for below in tree.values():
                check(below)
        elif isinstance(tree, list):
            for below in tree:
                check(below)

    check(schema())


@pytest.mark.all
@pytest.mark.slow
def test_yaml_language_server_completes_schedules_and_finds_faults():
    manifest = MODULES / "yaml-language-server/package.json"
    package = json.loads(manifest.read_text()) if manifest.exists() else {}
    program = MODULES / "yaml-language-server" / str(package.get("bin", {}).get("yaml-language-server", ""))
    done = node("yaml-language-server", "-e", SESSION, str(program), str(SCHEMA), YAML)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [line for line, message in found["diagnostics"] if "timout" in message] == [3]
    assert {"every", "cron", "at", "watch", "backoff", "rate", "adaptive", "load", "plugin"} <= set(found["keys"])
    assert {"once", "once-ever", "manual", "always"} <= set(found["words"])


def key_of(line):
    """The key of a line in one of the texts above; the wrong one if it has several."""
    return "colour" if "colour" in line else re.match(r"\s*(\w+)", line)[1]


@pytest.mark.all
@pytest.mark.slow
def test_yaml_language_server_reports_each_fault_once():
    package = json.loads((MODULES / "yaml-language-server/package.json").read_text()) if MODULES.exists() else {}
    program = MODULES / "yaml-language-server" / str(package.get("bin", {}).get("yaml-language-server", ""))
    done = node("yaml-language-server", "-e", SESSION, str(program), str(SCHEMA), FAULTS_YAML)
    assert done.returncode == 0, done.stderr
    lines = FAULTS_YAML.splitlines()
    found = json.loads(done.stdout)["diagnostics"]
    assert sorted(key_of(lines[line]) for line, _ in found) == FAULTY_KEYS, found


@pytest.mark.all
@pytest.mark.slow
def test_taplo_repeats_only_unknown_keys(tmp_path):
    """Taplo marks every part of a table that has an unknown key, with the same message; other faults are told once."""
    (tmp_path / "bad.toml").write_text(FAULTS_TOML)
    program = str(MODULES / "@taplo/cli/dist/cli.js")
    done = node("@taplo/cli", program, "check", "--schema", SCHEMA.as_uri(), str(tmp_path / "bad.toml"))
    found = re.findall(r"error: (.*)\n.*bad\.toml:(\d+):", done.stdout + done.stderr)
    lines = FAULTS_TOML.splitlines()
    unknown = [message for message, _ in found if message.startswith("Additional properties")]
    assert sorted(set(re.findall(r"'(\w+)' was unexpected", "".join(unknown)))) == ["colour", "timout"]
    others = sorted(key_of(lines[int(line) - 1]) for message, line in found if message not in unknown)
    assert others == sorted(set(FAULTY_KEYS) - {"colour", "timout"}), found


@pytest.mark.all
@pytest.mark.slow
def test_taplo_finds_faults_and_accepts_sound_files(tmp_path):
    program = str(MODULES / "@taplo/cli/dist/cli.js")
    (tmp_path / "bad.toml").write_text('[jobs.a]\ncommand = 5\nschedule = "every 5m"\n')
    (tmp_path / "good.toml").write_text('[jobs.a]\ncommand = "x"\nschedule = { every = "5m" }\n')
    options = ("check", "--schema", SCHEMA.as_uri())
    bad = node("@taplo/cli", program, *options, str(tmp_path / "bad.toml"))
    assert bad.returncode != 0
    lines = re.findall(r"bad\.toml:(\d+):", bad.stdout + bad.stderr)
    assert lines == ["2"]
    good = node("@taplo/cli", program, *options, str(tmp_path / "good.toml"))
    assert good.returncode == 0, good.stderr
