"""A corpus of job files: what is valid loads, what is not says exactly why, two validators agree with the road."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from repeater.errors import JobFileError
from repeater.jobfile.document import InputLimits
from repeater.jobfile.load import load
from repeater.jobfile.parse import read_document
from repeater.jobfile.schema import schema
from repeater.jobfile.write import WRITERS
from repeater.model.dump import dump_file
from repeater.system.filesystem import Filesystem

CORPUS = Path(__file__).parents[2] / "corpus"
SUFFIXES = (".toml", ".yaml", ".json")
VALID = sorted(path for path in (CORPUS / "valid").iterdir() if path.suffix in SUFFIXES)
INVALID = sorted(path for path in (CORPUS / "invalid").iterdir() if path.suffix in SUFFIXES)


def walk(path, **options):
    return load([path.name], files=Filesystem(), folder=str(path.parent), environ={}, **options)


def test_the_corpus_is_there():
    assert len(VALID) >= 60
    assert len(INVALID) >= 120


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.name)
def test_an_invalid_file_is_reported_with_its_problem_and_place(path):
    with pytest.raises(JobFileError) as caught:
        walk(path)
    told = str(caught.value).replace(str(path.parent), "FOLDER") + "\n"
    assert told == path.with_name(path.name + ".expected").read_text()


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_a_valid_file_loads(path):
    walk(path)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_the_schema_alone_admits_every_valid_file_as_it_was_written(path):
    document = read_document(path.name, path.read_bytes(), InputLimits())
    errors = [error.message for error in jsonschema.Draft7Validator(schema()).iter_errors(document.data)]
    assert errors == []


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_a_rendered_file_means_the_same(path, form, tmp_path):
    before = walk(path).jobfile
    (tmp_path / f"again.{form}").write_text(WRITERS[form](dump_file(before)))
    after = load([f"again.{form}"], files=Filesystem(), folder=str(tmp_path), environ={}).jobfile
    assert after == before


def test_the_schema_is_a_draft_07_schema():
    jsonschema.Draft7Validator.check_schema(schema())
    assert json.loads(json.dumps(schema()))["$schema"] == "http://json-schema.org/draft-07/schema#"


AJV = """
const Ajv = require("ajv"), fs = require("fs");
const [schema, documents] = JSON.parse(fs.readFileSync(0, "utf8"));
const check = new Ajv({ allErrors: true, strict: false }).compile(schema);
console.log(JSON.stringify(Object.entries(documents).filter(([_, data]) => !check(data)).map(([name]) => name)));
"""


def run_node(code, text=""):
    """Runs JavaScript with what `make` installed beside the tools, or where NODE_PATH says; None without node."""
    if not shutil.which("node"):
        return None
    beside = str(Path(sys.prefix) / "node" / "node_modules")
    env = {**os.environ, "NODE_PATH": os.pathsep.join(filter(None, [beside, os.environ.get("NODE_PATH")]))}
    done = subprocess.run(["node", "-e", code], input=text, capture_output=True, text=True, env=env)
    return done.stdout if done.returncode == 0 else None


def test_ajv_agrees_with_jsonschema_about_the_corpus():
    """ajv is what editors use; `make test` installs it where there is npm."""
    if run_node('require("ajv")') is None:
        pytest.skip("node with ajv is not installed")
    documents = {}
    for path in [*VALID, *INVALID]:
        try:
            documents[path.name] = read_document(path.name, path.read_bytes(), InputLimits()).data
        except JobFileError:
            continue  # no document, nothing to judge
    refused = json.loads(run_node(AJV, json.dumps([schema(), documents])))
    checker = jsonschema.Draft7Validator(schema())
    assert refused == [name for name, data in documents.items() if not checker.is_valid(data)]
    assert len(refused) > 60
