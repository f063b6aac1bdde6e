"""Templates: what they give, what they may not do, and which wait for the run."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repeater.jobfile import template
from repeater.jobfile.document import RunTemplate
from repeater.jobfile.run_templates import is_plain, render_all, render_plain
from repeater.jobfile.template import Environ, Names, TemplateFailed, render
from repeater.model.dump import dump_job
from repeater.model.spec import ProcessSpec
from tests.unit.jobfile.loading import job

NAMES = {
    "vars": Names("vars", {"api": "http://x", "list": ["b", "a"], "n": 3, "odd": "it's {{ x }} é😀\n"}),
    "env": Environ({"HOME": "/h"}),
    "matrix": Names("matrix", {"region": "eu"}),
    "project": "shop",
}
RUN = {
    "nominal": datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC), "due": datetime(2026, 3, 1, 4, 5, 7, tzinfo=UTC),
    "attempt": 2, "id": "r1", "trigger": "schedule",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ vars.api }}/health", "http://x/health"),
        ("{{ vars.n }}", 3),
        (" {{ vars.n }}", " 3"),
        ("{{ vars.list }}", ["b", "a"]),
        ("{{ vars.list | sort | join(',') }}", "a,b"),
        ("{{ vars.list | map('upper') }}", ["B", "A"]),
        ("{{ vars.n + 1 }}", 4),
        ("{{ vars.n > 2 }}", True),
        ("{{ 'a' ~ vars.n }}", "a3"),
        ("{{ vars.odd | sh }}", "'it'\"'\"'s {{ x }} é😀\n'"),
        ("{{ vars.list | sh }}", "b a"),
        ("{{ {'a': 1} | tojson }}", '{"a": 1}'),
        ("{{ 'A-b'.lower().split('-') }}", ["a", "b"]),
        ("{{ vars.none | default('d') }}", "d"),
        ("{{ env('HOME') }}{{ env('NO', '-') }}", "/h-"),
        ("{% if vars.n == 3 %}three{% endif %}", "three"),
        ("{% for one in vars.list %}{{ one }};{% endfor %}", "b;a;"),
        ("{# gone #}left", "left"),
        ("{{ '{{' }}.Names}}", "{{.Names}}"),
        ("{{ project }}", "shop"),
        ("{{ 2 ** 64 == 4294967296 ** 2 }}", True),
    ],
)
def test_a_template_gives(text, value):
    assert render(text, NAMES) == value


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 1000000000 }}", "{{ [0] * 1000000000 }}", "{{ 'a'.center(1000000000) }}", "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a'.zfill(1000000000) }}", "{{ '%1000000000d' % 3 }}", "{{ '{:1000000000}'.format(3) }}",
        "{{ '{0:1000000000}'.format_map({}) }}", "{{ range(1000000000) | list }}", "{{ 2 ** 100000 }}",
        "{{ 9 ** 64 ** 64 }}", "{{ 2 ** 65 }}", "{{ 4294967297 ** 2 }}", "{{ 2 ** -65 }}", "{{ (5).to_bytes(1000000000) }}", "{{ ''.__class__.__mro__ }}", "{{ vars.list.append(1) }}",
        "{{ vars.update({}) }}", "{{ env.values }}", "{{ lipsum(1000) }}", "{{ cycler('a') }}", "{{ namespace() }}", "{{ self }}",
        "{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}",
        "{% for a in [1] %}{% if a %}{% for b in [1] %}{% endfor %}{% endif %}{% endfor %}",
        "{% macro x() %}{% endmacro %}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% set a = 1 %}",
        "{% block a %}{% endblock %}", "{{ 'a' | attr('__class__') }}", "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | format }}", "{{ 'a' | indent(1000000000) }}", "{{ 'a' | replace('', 'b' * 10) }}",
        "{{ ['a'] | map('center', 1000000000) | list }}", "{{ [1, 2] | map('__class__') }}", "{{ vars.api.__init__.__globals__ }}",
        "{{ vars.missing }}", "{{ vars.missing.more }}", "{{ missing }}", "{{ 1 / 0 }}", "{{", "{{{ vars.api }}", "{{ }}", "{{ a b }}", "{% if %}", "{{ " + "(" * 5000,
        "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ 'x' * 70000 }}" + "y" * 70000, "{{ vars.api.strip }}",
        "{{ run.nothing }}", "{{ run.nominal | date('%1000000000Y') }}", "{{ run.nominal.strftime('%9999999Y') }}", "{{ vars.api | date }}",
        "{{ run.nominal }} {{ vars.missing }}",
    ],
)  # fmt: skip
def test_a_template_fails_at_once_with_a_clear_message(text):
    with pytest.raises(TemplateFailed) as caught:
        render(text, NAMES)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["{{ vars.x ~ vars.x }}", "{{ vars.x + vars.x }}", "{{ [vars.x, vars.x] | join }}", "{{ vars.x }}{{ vars.x }}",
     "{{ vars.x | replace('a', 'bbb') }}", "{{ [vars.x, vars.x] }}", "{% for i in range(9) %}{{ vars.x }}{% endfor %}"],
)  # fmt: skip
def test_no_result_is_larger_than_a_mebibyte(text):
    with pytest.raises(TemplateFailed, match="larger than 1 MiB"):
        render(text, {"vars": Names("vars", {"x": "a" * 600_000})})


def test_a_missing_name_is_reported_with_the_nearest():
    with pytest.raises(TemplateFailed, match=r"^`vars.ap` is not defined; did you mean `vars.api`\?$"):
        render("{{ vars.ap }}", NAMES)


def test_a_text_over_the_run_keeps_nothing_else():
    late = render(
        "{{ run.nominal | date('%F') }} {{ vars.odd }}{{env('HOME')}}{{ matrix . region }} {{ vars.n + run.attempt }}",
        NAMES,
    )
    assert isinstance(late, RunTemplate)
    process = render_all(ProcessSpec(str(late), late=("command",)), RUN)
    assert process.command == "2026-03-01 it's {{ x }} é😀\n/heu 5"
    assert process.late == ()


def test_late_texts_survive_being_rendered_again():
    late = render("{{ run.id }} {{ vars.odd }}", NAMES)
    assert render(late, {}) == late


def test_every_late_field_is_rendered_and_no_other():
    spec = job(
        'command = ["x", "{{ run.attempt }}", "{{ \'{{ run.id }}\' }}"]\nenv = { A = "{{ run.id }}", B = "b" }\n'
        'cwd = "out/{{ run.id }}"\nstdin = "{{ run.due | date(\'%S\') }}"\n'
    )
    assert spec.process.late == ("command[1]", "cwd", "env.A", "stdin")
    done = render_all(spec.process, RUN)
    assert done.command == ("x", "2", "{{ run.id }}")
    assert (done.env, done.cwd, done.stdin) == ((("A", "r1"), ("B", "b")), "/p/out/r1", "07")
    assert dump_job(spec)["command"][2] == "{{ '{{ run.id }}' }}"


def test_a_changed_variable_that_no_template_names_changes_no_spec():
    text = 'command = "echo {{ run.id }} {{ vars.x }}"\n[vars]\ny = "0"\n'
    one = job(text, set_vars={"x": "1", "y": "1"})
    assert one == job(text, set_vars={"x": "1", "y": "2"})
    assert one != job(text, set_vars={"x": "2", "y": "1"})


def test_a_late_template_that_fails_at_run_time_is_reported():
    with pytest.raises(TemplateFailed):
        render_all(ProcessSpec("{{ run.trigger | date }}", late=("command",)), RUN)


PIECES = st.lists(st.sampled_from([
    "{{ vars.api }}", "{{vars.n}}", "{{ vars.list }}", "{{ vars.truth }}", "{{ vars.deep.items }}", "{{ vars.none }}", "{{ matrix.region }}",
    "x", " ", "\n", "}}", "a{b", "%}", "é",
]), max_size=4).map("".join)  # fmt: skip


@given(PIECES)
def test_plain_names_are_replaced_as_jinja_would(text):
    names = {**NAMES, "vars": Names("vars", {**NAMES["vars"], "truth": True, "deep": {"items": 1.5}, "none": None})}
    found = template._replaced(text, names)
    assert found is not template._NOT_PLAIN
    assert found == template._plain(template._finish(template._compiled(text)[0], names))
    assert type(found) is type(template._plain(template._finish(template._compiled(text)[0], names)))


ATOMS = [
    "vars.n", "vars.api", "vars.missing", "vars['api']", "vars['missing']", "vars.truth", "vars.none", "vars.low", "matrix.region",
    "matrix.missing", "params", "params.x", "job", "project", "env('HOME')", "env('NO')", "env('NO', ('a'))", "env('NO', default=[1])",
    "vars.list", "vars.deep.items", "vars.deep.x", "run.attempt", "run.id", "run.nominal", "run.missing", "'(vars.n)'", "1", "vars.get('api')",
]  # fmt: skip
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.builds("({} | default('d'))".format, inner),
        st.builds("({} is defined)".format, inner),
        st.builds("({} is undefined)".format, inner),
        st.builds("({} ~ {})".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("({} | upper)".format, inner),
        st.builds("({} == {})".format, inner, inner),
        st.builds("({} ** 2)".format, inner),
    ),
    max_leaves=5,
)
TEXTS = st.one_of(
    st.builds(
        "{}{{{{ {} }}}}{}".format, st.sampled_from(["", "x "]), EXPRESSIONS, st.sampled_from(["", " {{ run.id }}"])
    ),
    st.builds("{{{{{}}}}}{{{{ run.attempt }}}}".format, EXPRESSIONS),
    st.builds("{{% if {} %}}{{{{ {} }}}}{{% endif %}}{{{{ run.id }}}}".format, EXPRESSIONS, EXPRESSIONS),
    st.builds(
        "{{% for vars in [run.id] %}}{{{{ vars }}}}{{{{ {} }}}}{{% endfor %}}".format,
        st.sampled_from(["run.id", "project"]),
    ),
)
LAW = {
    **NAMES,
    "vars": Names("vars", {**NAMES["vars"], "truth": True, "low": -2, "deep": {"items": 1.5}, "none": None}),
}


@settings(max_examples=300)
@given(TEXTS, st.integers(1, 2))
def test_a_late_text_gives_what_it_gives_with_all_names(text, attempt):
    def whole(run):
        try:
            value = template._plain(template._finish(template._compiled(text)[0], {**LAW, "run": Names("run", run)}))
            return str(template.as_text(value))
        except Exception as error:  # noqa: BLE001
            return type(error)

    run = {**RUN, "attempt": attempt}
    try:
        late = render(text, LAW)
    except TemplateFailed:
        lenient = "default" in text or "defined" in text
        assert isinstance(whole(template._SAMPLE), type) or not lenient
        return
    if not isinstance(late, RunTemplate):
        assert str(template.as_text(late)) == whole(run)
        return
    try:
        found = render_all(ProcessSpec(str(late), late=("command",)), run).command
    except TemplateFailed:
        assert isinstance(whole(run), type)
    else:
        assert found == whole(run)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x {{ [1, true, 'a'] }}", 'x [1, true, "a"]'),
        ("x {{ {'a': none} }}", 'x {"a": null}'),
        ("x {{ none }} {{ true }}", "x null true"),
        ("x {{ ['a', 'b'] | map('upper') }}", 'x ["A", "B"]'),
        ("x{% for one in [none, [1]] %} {{ one }}{% endfor %}", "x null [1]"),
        ("{{ [true, [1, 'x']] | join(' ') }}", 'true [1, "x"]'),
        ("{{ 'x' ~ [true] ~ none }}", "x[true]null"),
        ("{{ true | string }}", "true"),
        ("{{ [true] | string }}", "[true]"),
        ("{{ true | replace('t', 'T') }}", "True"),
        ("{{ [['a', true]] | sh }}", "'[\"a\", true]'"),
    ],
)  # fmt: skip
def test_values_inside_a_text_are_json(text, wanted):
    assert render(text, NAMES) == wanted
    late = render(text + "{{ run.id }}", NAMES)
    assert render_all(ProcessSpec(str(late), late=("command",)), RUN).command == wanted + "r1"


def test_an_instant_inside_a_text_is_rfc_3339():
    late = render("at {{ run.nominal }}", NAMES)
    assert render_all(ProcessSpec(str(late), late=("command",)), RUN).command == "at 2026-03-01T04:05:06Z"


def test_env_in_a_late_text_refuses_arguments_of_the_run():
    with pytest.raises(TemplateFailed, match="environment is read at load"):
        render("{{ env(run.id) }}", NAMES)
    with pytest.raises(TemplateFailed, match="environment is read at load"):
        render("{% for x in ['HOME'] %}{{ env(x) }}{{ run.id }}{% endfor %}", NAMES)


def late_process(text):
    return ProcessSpec(text, late=("command",))


@pytest.mark.parametrize("text", [
    "{{ run.id }}", "a {{run.attempt}} b{{ run.nominal }}", "{{ run.nominal.year }}", "x {{ run.due | date('%F') | sh }}",
    "{{ run.id|tojson }} {{ run.nominal|tojson }} {{ [1, 'b', true, none, {'a': -1.5}]|tojson }}", "{{ run.trigger|default('x', true) }}",
    "{{ 'it\\'s' }} {{ run.id }} {{ \"\\u00e9\\n\" }}{{ ['a b', 'c'] | sh }} {{ true }} {{ run.id|d }}", "}} { } % {{ run.id }}",
    "{{ '{{ x }}' }}{{ run.id }}", "{{ run.nominal|date }}\n", "{{ run.nominal|date|date('%H') }}", "{{ -1 }}{{ run.id }}",
])  # fmt: skip
def test_a_plain_late_text_reads_as_jinja_renders_it(text):
    assert is_plain(late_process(text))
    assert render_plain(late_process(text), RUN) == render_all(late_process(text), RUN)


@pytest.mark.parametrize("text", [
    "{{ run.attempt|round(99999999,'ceil') }}", "{{ run.id | upper }}", "{% if run.attempt %}a{% endif %}", "{{ run.attempt + 1 }}",
    "{{ run.id ~ 'a' }}", "{{ run.nominal.isoformat() }}", "{{ run.id[0] }}", "{{ run['id'] }}", "{# run #}{{ run.id }}",
    "{{- run.id }}", "{{ run.id -}}", "{{-1}}{{ run.id }}", "{{ run.nominal|date(run.id) }}", "{{ run.id if true }}",
    "{{ run.nominal|date(form='%F') }}", "{{ run.id }}" * 1000, "{{ run }}", "{{ run.unknown|default(1) }}", "{{ range(9) }}{{ run.id }}",
])  # fmt: skip
def test_any_other_late_text_is_not_plain(text):
    assert not is_plain(late_process(text))


LITERALS = st.recursive(
    st.sampled_from(["1", "-2.5", "true", "none", "'a b'", "'\\n\\u00e9'", '"it\'s"', "''"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"), max_leaves=4,
)  # fmt: skip
PLAIN_EXPRESSIONS = st.builds(
    lambda value, filters: "{{ " + " | ".join([value, *filters]) + " }}",
    st.sampled_from(["run.id", "run.nominal", "run.due.hour", "run.attempt", "run.trigger"]) | LITERALS,
    st.lists(st.sampled_from(["sh", "tojson", "date", "date('%F')", "default('x')", "d(1, true)"]), max_size=3),
)


@given(
    st.lists(PLAIN_EXPRESSIONS | st.sampled_from(["x", " ", "\n", "}}", "{", "%}", "é", "\r"]), max_size=4).map("".join)
)
def test_a_plain_late_text_and_jinja_agree(text):
    def outcome(how):
        try:
            return how(late_process(text), RUN).command
        except TemplateFailed:
            return TemplateFailed

    if is_plain(late_process(text)):
        assert outcome(render_plain) == outcome(render_all)


def test_rounding_to_millions_of_digits_is_refused():
    with pytest.raises(TemplateFailed, match="at most 100 digits"):
        render("{{ 1|round(99999999, 'ceil') }}", {})
    assert render("{{ 1.26|round(1, 'ceil') }}", {}) == 1.3


def test_a_template_has_at_most_65536_characters():
    assert render("{{ 1 }}" + "x" * 65529, NAMES) == "1" + "x" * 65529
    with pytest.raises(TemplateFailed):
        render("{{ 1 }}" + "x" * 65530, NAMES)
