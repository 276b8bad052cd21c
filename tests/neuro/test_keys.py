"""Laws of the cache key: everything that makes a result enters, and nothing else."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from neuro.runner.keys import canonical, digest, dumps, result_key
from neuro.runner.tasks import resolve
from neuro.runner.workflow import Compute
from neuro.stage import Params

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)
fields = st.dictionaries(st.text(min_size=1), values, min_size=1, max_size=5)
hashes = st.dictionaries(st.text(), st.text(), max_size=3)


@given(params=fields, inputs=hashes, files=hashes, data=st.data())
def test_the_order_of_writing_does_not_count(params, inputs, files, data):
    def shuffled(mapping):
        return dict(data.draw(st.permutations(list(mapping.items()))))

    assert result_key("s", 1, params, inputs, files) == result_key(
        "s", 1, shuffled(params), shuffled(inputs), shuffled(files)
    )


@given(params=fields, data=st.data())
def test_a_change_of_any_parameter_counts(params, data):
    name = data.draw(st.sampled_from(sorted(params)))
    value = data.draw(values.filter(lambda v: dumps(canonical(v)) != dumps(params[name])))
    changed = {**params, name: value}
    assert result_key("s", 1, params, {}, {}) != result_key("s", 1, changed, {}, {})


@given(params=fields, one=hashes, other=hashes)
def test_inputs_and_files_count_and_are_not_mixed_up(params, one, other):
    keys = {
        (dumps(a), dumps(b)): result_key("s", 1, params, a, b)
        for a, b in [(one, other), (other, one), (one, one), (one, {}), ({}, one)]
    }
    assert len(set(keys.values())) == len(keys)


def test_stage_and_version_count():
    keys = {result_key(s, v, {}, {}, {}) for s in ("a", "b") for v in (1, 2, 11)}
    assert len(keys) == 6


@given(a=st.integers(0, 5), b=st.sets(st.integers(0, 50)))
def test_models_sets_paths_and_enums_have_one_form(a, b):
    class Kind(Enum):
        one = "first"

    model = create_model("P", __base__=Params, a=(int, 0), b=(set, set()), k=(Kind, Kind.one))
    plain = {"a": a, "b": sorted(b, key=dumps), "k": "first"}
    assert digest(model(a=a, b=b)) == digest(plain)
    assert digest(model(a=a, b=frozenset(b))) == digest(plain)
    assert digest(Path("/x/y")) == digest("/x/y")
    assert digest({1: "x"}) != digest({"1": "x"})


def test_what_has_no_one_form_is_refused():
    with pytest.raises(TypeError, match="can't be a parameter"):
        digest({"a": object()})


computes = st.builds(
    Compute,
    cpus=st.none() | st.integers(1, 64),
    gpus=st.none() | st.integers(0, 8),
    memory=st.none() | st.floats(0.1, 100),
    time=st.none() | st.floats(1, 1000),
    cluster=st.sampled_from([None, "local", "slurm", "auto"]),
)


def test_compute_and_names_never_count(study):
    @given(compute=computes)
    def law(compute):
        text = compute.model_dump(exclude_none=True)
        loaded = study.load(f"bursts.compute={text}", "name=elsewhere")
        assert _key(loaded, study) == plain

    plain = _key(study.load(), study)
    law()
    study.text = study.text.replace("bursts:\n    use", "signals:\n    use")
    study.text = study.text.replace("each: ${bursts}", "each: ${signals}")
    assert _key(study.load(), study, "signals") == plain


def _key(loaded, study, name="bursts"):
    (part,) = resolve(loaded.nodes[name], {}, study.store)
    return part.ref.key


def test_seed_and_defaults_count_only_where_declared(study):
    one, other = study.load(), study.load("seed=4", "defaults.gain=3")
    for name in ("bursts", "scaled", "encoder", "table"):
        dumped = [
            [member.params.model_dump() for member in w.nodes[name].members] for w in (one, other)
        ]
        assert (dumped[0] != dumped[1]) == (name in ("bursts", "encoder"))
