"""A workflow file is validated whole, and every message says where and what to do."""

from __future__ import annotations

import json
import re
import time

import pytest
import yaml

from neuro.errors import InputError
from neuro.runner import schema
from neuro.runner.schema import find_workflow, json_schema, load_workflow, shipped_workflows


def problems(study, text=None, *sets) -> list[str]:
    study.text = text if text is not None else study.text
    with pytest.raises(InputError) as caught:
        study.load(*sets)
    found = getattr(caught.value, "problems", None)
    return [str(problem) for problem in found] if found else [str(caught.value)]


def changed(study, old: str, new: str) -> str:
    assert old in study.text
    return study.text.replace(old, new)


def stage(fields: str, name: str = "bursts", use: str = "toy-bursts", top: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in fields.splitlines())
    return f"version: 1\n{top}stages:\n  {name}:\n    use: {use}\n{lines}\n"


def test_a_good_file_gives_typed_parameters_in_the_order_of_running(study):
    study.text = changed(study, "factor: 2", "factor: 2.5")
    loaded = study.load()
    assert list(loaded.nodes) == ["bursts", "scaled", "encoder", "table", "spread"]
    assert loaded.nodes["scaled"].members[0].params.factor == 2.5
    assert loaded.nodes["bursts"].members[0].params.seed == 3
    assert [m.label for m in loaded.nodes["encoder"].members] == [{"gain": 1}, {"gain": 2}]
    assert (loaded.nodes["spread"].each.over, loaded.nodes["scaled"].each.over) == (
        "members",
        "items",
    )


def test_every_problem_is_told_at_once_with_its_place(study):
    text = changed(study, "use: toy-bursts", "use: toy-burst\n    nose: 3")
    text = text.replace("factor: 2", "facter: 2")
    found = problems(study, text.replace("gain: [1, 2]", "gian: [1, 2]"))
    assert len(found) == 3
    places = [re.search(r"toy\.yaml:(\d+):(\d+): ", line).groups() for line in found]
    assert places == [("6", "10"), ("11", "5"), ("16", "7")]
    assert "stages.bursts.use" in found[0]
    assert "did you mean 'toy-bursts'?" in found[0]
    assert "stages.scaled.facter: unknown field of 'toy-scale'; did you mean 'factor'?" in found[1]
    assert "stages.encoder.sweep.gian" in found[2]
    assert "did you mean 'gain'?" in found[2]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("n_devices: many", r"stages\.bursts\.n_devices: .*integer.*found 'many'"),
        ("shape: {n_burst: 3}", r"stages\.bursts\.shape\.n_burst: .*did you mean 'n_bursts'"),
        ("noise: 3 Hz", r"stages\.bursts\.noise: '3 Hz' has the unit 'Hz', expected V"),
        ("files: nowhere/*.txt", r"stages\.bursts\.files: no file matches '.*nowhere/\*\.txt'"),
        ("compute: {cpu: 2}", r"stages\.bursts\.compute\.cpu: .*did you mean 'cpus'"),
        ("compute: {memory: much}", r"a number with its unit, such as '8 GB'"),
        ("sweep: {noise: 3}", r"stages\.bursts\.sweep\.noise: expected a list of values"),
        ("sweep: {noise: [1, 1]}", r"a value is given twice"),
        ("noise: 1\nnoise: 2", r"stages\.bursts\.noise: the key is given twice \(first in line 5"),
        ("noise: ${nowhere}", r"names no stage and no input"),
        ("noise: ${bursts}", r"expected a value; '\$\{bursts\}' is a stage"),
        ("noise: !!python/object:os.system {}", r"noise: "),
    ],
)
def test_a_wrong_field_is_told(study, fields, expected):
    found = problems(study, stage(fields))
    assert len(found) == 1
    assert re.search(expected, found[0]), found[0]
    assert re.search(r"toy\.yaml:\d+:\d+: ", found[0])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    bursts: ${scaled}\n    sweep", "    sweep", "stages.encoder.bursts: the input is"),
        ("bursts: ${scaled}\n    enc", "bursts: ${encoder}\n    enc", "expected a dataset; 'enco"),
        ("each: ${encoder}\n", "encoder: ${encoder}\n", "write each: ${encoder}"),
        ("each: ${encoder}\n", "each: ${table}\n", "takes a dataset or the members of a sweep"),
        ("each: ${bursts}", "each: '*.yaml'", "has no parameter 'file'"),
        ("each: ${bursts}", "each: ${scaled}", "the stages form a circle: scaled -> scaled"),
        ("name: toy", "nmae: toy", "did you mean 'name'?"),
        ("name: toy", "name: a/b", "can't be the name of a folder"),
        ("version: 1", "version: 2", "expected 1"),
        ("seed: 3", "seed: many", "expected a whole number"),
        ("seed: 3", "defaults: {nose: 1}", "no stage here has this field; did you mean 'noise'?"),
        ("  scaled:\n", "  seed:\n", "can't be a name"),
    ],
)
def test_wrong_wires_and_settings_are_told(study, old, new, expected):
    found = problems(study, changed(study, old, new))
    assert any(expected in line for line in found), found


def test_a_longer_circle_is_shown_in_its_order(study):
    text = "version: 1\nstages:\n" + "".join(
        f"  {name}:\n    use: toy-scale\n    data: ${{{needs}}}\n"
        for name, needs in (("a", "c"), ("b", "a"), ("c", "b"))
    )
    (found,) = problems(study, text)
    assert "a -> c -> b -> a" in found


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1, 2", "a: ${b", "\t- x"])
def test_what_is_no_workflow_is_refused(study, text):
    assert "toy.yaml" in problems(study, text)[0]


def test_an_unquoted_reference_in_brackets_gets_a_hint(study):
    (found,) = problems(study, changed(study, "encoders: ${encoder}", "encoders: [${encoder}]"))
    assert "must be quoted" in found


def test_bytes_that_are_no_text_are_refused(study):
    study.path.write_bytes(b"\xff\xfe\x00version")
    with pytest.raises(InputError, match="can't be read as a YAML text"):
        load_workflow(study.folder / "toy.yaml")


def test_aliases_of_aliases_are_refused_quickly(study):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    started = time.process_time()
    (found,) = problems(study, "\n".join(lines))
    assert "aliases" in found
    assert time.process_time() - started < 30  # expanded it would take longer than the universe


def test_an_alias_of_itself_is_refused(study):
    assert "contains itself" in problems(study, "version: &a [*a]\n")[0]


def test_deep_nesting_is_refused(study):
    assert "toy.yaml" in problems(study, "a: " + "[" * 5000)[0]


def test_merged_anchors_are_overridden_and_shared_ones_stay_apart_under_set(study):
    study.text = (
        "version: 1\nstages:\n"
        "  one: &one\n    use: toy-bursts\n    noise: 1\n    shape: {n_times: 8}\n"
        "  two:\n    <<: *one\n    noise: 2\n"
    )
    nodes = study.load("two.shape.n_times=4").nodes
    assert [nodes[n].members[0].params.noise for n in ("one", "two")] == [1, 2]
    assert [nodes[n].members[0].params.shape.n_times for n in ("one", "two")] == [8, 4]


# -- references and inputs -----------------------------------------------------------------------

INPUTS = """\
version: 1
inputs:
  count: 5
  folder: {type: path, default: data}
stages:
  bursts:
    use: toy-bursts
    n_devices: ${count}
    files: ${folder}/*.txt
"""


def test_inputs_keep_their_type_and_paths_start_where_they_were_written(study, tmp_path):
    for place in ("data", "elsewhere/data"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.txt").write_text("x")
    study.text = INPUTS
    params = study.load().nodes["bursts"].members[0].params
    assert params.n_devices == 5
    assert params.files == [tmp_path / "data" / "a.txt"]
    there = tmp_path / "elsewhere"
    params = load_workflow(study.path, ["folder=data", "count=7"], cwd=there)
    assert params.nodes["bursts"].members[0].params.files == [there / "data" / "a.txt"]
    assert params.nodes["bursts"].members[0].params.n_devices == 7


def test_the_environment_is_read_and_asked_for(study, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    study.text = stage("files: ${env:TOY_DATA}/*.txt")
    monkeypatch.delenv("TOY_DATA", raising=False)
    (found,) = [line for line in problems(study) if "TOY_DATA" in line]
    assert "export TOY_DATA=" in found
    monkeypatch.setenv("TOY_DATA", str(tmp_path))
    assert study.load().nodes["bursts"].members[0].params.files == [tmp_path / "a.txt"]


def test_files_can_be_swept(study, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("x")
    study.text = stage("sweep: {files: [a.txt, '*.txt']}")
    members = study.load().nodes["bursts"].members
    assert [len(member.params.files) for member in members] == [1, 2]
    (found,) = problems(study, stage("sweep: {files: [a.txt, c.txt]}"))
    assert "stages.bursts.sweep.files: no file matches" in found


def test_home_is_expanded_and_null_stays(study, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "b[1].txt").write_text("x")
    study.text = stage("files: ~/b[1].txt")
    assert study.load().nodes["bursts"].members[0].params.files == [tmp_path / "b[1].txt"]
    assert study.load("bursts.files=null").nodes["bursts"].members[0].params.files is None


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("a: {type: int, default: x}", "expected int, found 'x'"),
        ("a: {type: integer, default: 1}", "unknown type 'integer'; did you mean"),
        ("a: {type: int}", "has no default; give it with --set a=value"),
        ("a: ${b}\n  b: ${a}", "the inputs refer to one another: a -> b -> a"),
        ("bursts: 3", "a stage has the same name"),
        ("a: {default: 1, typ: int}", "did you mean 'type'"),
    ],
)
def test_wrong_inputs_are_told(study, inputs, expected):
    found = problems(study, stage("n_devices: ${a}", top=f"inputs:\n  {inputs}\n"))
    assert any(expected in line for line in found), found


def test_a_doubled_dollar_is_plain_text(study):
    study.text = stage("each: ${bursts2}\ntrace: a$${b}", "scaled", "toy-scale") + (
        "  bursts2:\n    use: toy-bursts\n"
    )
    assert study.load().nodes["scaled"].members[0].params.trace == "a${b}"


# -- --set ---------------------------------------------------------------------------------------


def test_set_changes_fields_at_any_depth_before_validation(study):
    loaded = study.load(
        "bursts.shape.n_times=8",
        "bursts.noise=100 mV",
        "encoder.sweep.gain=[1, 2, 4]",
        "seed=9",
        "name=other",
        "defaults.factor=7",
        "scaled.trace=*.txt",
    )
    params = loaded.nodes["bursts"].members[0].params
    assert (params.shape.n_times, params.noise, params.seed) == (8, 0.1, 9)
    assert len(loaded.nodes["encoder"].members) == 3
    assert loaded.name == "other"
    assert loaded.nodes["scaled"].members[0].params.factor == 2  # a stage's own field wins
    assert loaded.nodes["scaled"].members[0].params.trace == "*.txt"
    assert next(iter(loaded.nodes)) == "bursts"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("burst.noise=1", "did you mean 'bursts'?"),
        ("bursts.nose=1", "did you mean 'noise'?"),
        ("bursts=1", "stage.field=value"),
        ("noise", "expected --set path=value"),
        ("bursts.noise=loud", "--set bursts.noise=loud"),
        ("bursts.use=os.system", "no stage is called 'os.system'"),
    ],
)
def test_a_wrong_set_is_told(study, text, expected):
    found = problems(study, None, text)
    assert any(expected in line and "--set" in line for line in found), found


# -- files that ship -----------------------------------------------------------------------------


def test_shipped_workflows_are_found_by_name_and_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, path = next(iter(shipped_workflows().items()))
    assert find_workflow(name) == path
    assert find_workflow(str(path)) == path
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        find_workflow(f"{name[:-1]}")
    (tmp_path / "mine.yaml").write_text("version: 1\n")
    with pytest.raises(InputError, match="mine"):
        find_workflow("min.yaml")


def test_shipped_workflows_are_valid_as_they_are(tmp_path, neuro_free_environment):
    (tmp_path / "labels.tsv").write_text("participant_id\tsex\n")
    given = {"eeg-remap": [f"encoder={tmp_path}", f"labels={tmp_path / 'labels.tsv'}"]}
    for name in shipped_workflows():
        if "NEURO_DATA" in find_workflow(name).read_text().split("stages:")[1]:
            with pytest.raises(InputError, match="NEURO_DATA"):
                load_workflow(name)
        else:
            assert load_workflow(name, given.get(name, [])).nodes


@pytest.fixture
def neuro_free_environment(monkeypatch):
    monkeypatch.delenv("NEURO_DATA", raising=False)


def test_the_schema_for_editors_knows_every_field_and_resolves(plugin):
    made = json_schema()
    text = json.dumps(made)
    for pointer in re.findall(r'"\$ref": "#/\$defs/([^"]+)"', text):
        assert pointer.replace("~1", "/") in made["$defs"]
    uses = made["properties"]["stages"]["additionalProperties"]["properties"]["use"]["enum"]
    rules = made["properties"]["stages"]["additionalProperties"]["allOf"]
    assert "toy-scale" in uses
    by_use = {rule["if"]["properties"]["use"]["const"]: rule["then"] for rule in rules}
    fields = by_use["toy-scale"]["properties"]
    assert {"use", "each", "sweep", "compute", "data", "factor"} <= set(fields)
    assert fields["factor"]["description"] == "What the signal is multiplied by."


def test_resolved_yaml_is_the_same_workflow(study):
    from neuro.runner.folder import resolved_yaml

    loaded = study.load()
    text = resolved_yaml(loaded)
    assert yaml.safe_load(text)["stages"]["bursts"]["seed"] == 3
    study.text = text
    again = study.load()
    assert {n: node.members for n, node in again.nodes.items()} == {
        n: node.members for n, node in loaded.nodes.items()
    }
    assert resolved_yaml(again) == text


def test_loading_is_light(plugin):
    import subprocess
    import sys

    code = (
        "import sys; import neuro.runner.schema, neuro.runner.plan, neuro.runner.run;"
        "neuro.runner.schema.load_workflow(sys.argv[1]);"
        "heavy = {'torch', 'mne', 'xarray', 'pandas', 'exca', 'numpy'} & set(sys.modules);"
        "print(','.join(sorted(heavy)))"
    )
    name = next(iter(schema.shipped_workflows()))
    told = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == ""
