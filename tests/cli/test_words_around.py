"""What `rpr` says beside its commands: the version, unknown variables, messages as JSON, doubtful options."""

import json

import pytest

from tests.cli.conftest import RPR, Rpr


def test_v_alone_prints_the_version(rpr: Rpr) -> None:
    assert rpr("-v").out == rpr("--version").out
    assert rpr("-v").out.startswith("rpr ")


@pytest.mark.parametrize(
    "command", [["interval", "--every", "1s", "--times", "1", "--", "true"], ["validate", "jobs.toml"]]
)
def test_an_unknown_variable_is_a_warning_with_the_nearest_name(rpr: Rpr, command: list[str]) -> None:
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\n')
    done = rpr(*command, env={"RPR_TIMOUT": "5s", "RPR_XYZZY": "1"})
    assert done.code == 0
    assert done.err == (
        "rpr: warning: the environment variable `RPR_TIMOUT` is not known; did you mean `RPR_TIMEOUT`?\n"
        "rpr: warning: the environment variable `RPR_XYZZY` is not known\n"
    )


def test_the_variables_of_a_job_are_known_to_an_rpr_inside_it(rpr: Rpr) -> None:
    hook = f'on_success = "{RPR} --help >/dev/null"'
    rpr.write("jobs.toml", f'[jobs.a]\ncommand = "{RPR} count --times 1 -- env"\nhooks = {{ {hook} }}\n')
    done = rpr("apply", "--ephemeral", "jobs.toml")
    assert done.code == 0, done.err
    assert "is not known" not in done.err + done.out


def test_messages_of_a_one_off_command_can_be_json(rpr: Rpr) -> None:
    done = rpr("count", "--times", "1", "-v", "--log-format", "json", "--name", "n", "--", "echo", "x")
    assert done.out == "x\n"
    told = [json.loads(line) for line in done.err.splitlines()]
    assert {tuple(one) for one in told} == {("time", "level", "message", "job")}
    assert {one["job"] for one in told} == {"n"}
    assert "runs: 1" in [one["message"] for one in told]


def test_the_variable_for_json_messages_counts_for_one_off_commands(rpr: Rpr) -> None:
    done = rpr("count", "--times", "1", "--", "no-such-command", env={"RPR_LOG_FORMAT": "json"})
    assert "no-such-command" in json.loads(done.err.splitlines()[0])["message"]


def test_an_unknown_log_format_is_refused(rpr: Rpr) -> None:
    rpr("count", "--times", "1", "--log-format", "xml", "--", "true").is_(
        err="rpr: cannot use `--log-format xml`: expected `text` or `json`\n", code=2
    )


def test_the_limit_of_rate_limit_may_be_a_whole_rate(rpr: Rpr) -> None:
    job = rpr("rate-limit", "--limit", "100/1h", "--as-job", "--", "true").out
    assert job == rpr("rate-limit", "--rate", "100/1h", "--as-job", "--", "true").out
    assert rpr("rate-limit", "--limit", "100/x", "--", "true").err.startswith(
        "rpr: cannot use `--limit 100/x`: in the rate `100/x`"
    )
    assert rpr("rate-limit", "--limit", "100", "--", "true").code == 2
    assert rpr("rate-limit", "--limit", "100/1h", "--window", "1h", "--", "true").code == 2


def test_a_target_of_one_is_a_warning(rpr: Rpr) -> None:
    done = rpr("load-adaptive", "-b", "1s", "--target-cpu", "1", "--as-job", "--", "true")
    assert done.err == "rpr: warning: `--target-cpu 1` means 100%; write `1%` or `100%`\n"
    assert 'cpu = "100%"' in done.out
    for clear in ("1%", "100", "0.7", "2"):
        assert rpr("load-adaptive", "-b", "1s", "--target-cpu", clear, "--as-job", "--", "true").err == ""


@pytest.mark.parametrize("text", ["-5", "-0.5", "-5%"])
def test_a_negative_share_is_refused_as_it_was_typed(rpr: Rpr, text: str) -> None:
    done = rpr("load-adaptive", "-b", "1s", f"--target-cpu={text}", "--", "true")
    assert done.code == 2
    assert done.err.startswith(f"rpr: cannot use `--target-cpu {text}`: found `{text}`"), done.err
