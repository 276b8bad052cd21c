"""SCAN on a small cohort whose truth is known: labels to latents, to signals, and back."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import clone

import neuro
from eeg.beta_vae import BetaVAE
from eeg.pairs import Pairs, Recombinations, balanced_weights
from eeg.pooling import Pooling, average
from eeg.scan import SCAN, ScanOptions, encoder_hash
from eeg.simulate import Label, simulate_cohort
from eeg.symbols import MISSING, Symbols
from eeg.views import view, views
from neuro.data import save_dataset
from neuro.errors import ContractError, DataError, InputError

LABELS = {
    "depressed": Label("lpp_amplitude", -3.0),
    "old": Label("p3_latency", 3.0),
    "null": Label(),
}


@pytest.fixture(scope="module")
def cohort() -> xr.Dataset:
    data = simulate_cohort(
        300, 8, channels=("Fz", "Cz", "Pz"), sfreq=64.0, labels=LABELS, noise=4.0, alpha=1.0,
        conditions=("pleasant",), seed=1,
    )  # fmt: skip
    return data.assign_attrs(labels=list(LABELS))


@pytest.fixture(scope="module")
def split(cohort) -> tuple[xr.Dataset, xr.Dataset]:
    test = np.isin(cohort.subject.values, np.unique(cohort.subject.values)[::3])
    return cohort.isel(trial=~test), cohort.isel(trial=test)


@pytest.fixture(scope="module")
def encoder(split) -> BetaVAE:
    return BetaVAE(
        n_latents=6, train_on="bootstrap", beta=4.0, max_epochs=15, learning_rate=2e-3, device="cpu"
    ).fit(split[0])


@pytest.fixture(scope="module")
def scan(encoder, split) -> SCAN:
    return SCAN(encoder, max_epochs=25, device="cpu").fit(split[0])


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Register the class, as an installed package would."""
    folder = tmp_path / "site" / "scan_here-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: scan-here\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[neuro.encoders]\neeg-scan = eeg.scan:SCAN\n")
    monkeypatch.syspath_prepend(folder.parent)


def tiny(encoder: BetaVAE, **params) -> SCAN:
    return SCAN(encoder, **{"max_epochs": 1, "operators": False, **params})


def r(a, b) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def true_difference(data: xr.Dataset, **labels: str) -> np.ndarray:
    """What a label does to the noise-free ERP, from the simulator."""
    has = np.all([data[name].values == value for name, value in labels.items()], axis=0)
    return data.truth.values[has].mean(0) - data.truth.values.mean(0)


def first_trials(data: xr.Dataset, participants) -> xr.Dataset:
    subject = data.subject.values.tolist()
    return data.isel(trial=[subject.index(name) for name in participants])


# What SCAN finds ----------------------------------------------------------------------------


def test_a_planted_label_sits_on_one_latent(scan):
    found = scan.interpret()
    distance = found.distance
    for label in ("depressed", "old"):
        strengths = distance.sel(label=label).values
        best = int(found.latent_of.sel(label=label))
        assert strengths[best] > 1.0
        assert (np.delete(strengths, best) < 0.5 * strengths[best]).all()
        assert found.kept.values[best]
        specific = found.specificity.sel(symbol=f"{label}=yes").values
        assert specific.argmax() == best
    assert found.latent_of.sel(label="depressed") != found.latent_of.sel(label="old")
    assert float(distance.sel(label="null").max()) < 0.5


def test_participants_are_classified(scan, split):
    for rule in ("decoder", "kl"):
        found = scan.predict(split[1], level="participant", rule=rule)
        truth = first_trials(split[1], found.participant.values)
        for label in ("depressed", "old"):
            hit = found.sel(label=label).values == truth[label].values
            balanced = np.mean([hit[truth[label].values == v].mean() for v in ("no", "yes")])
            assert balanced > 0.65, (rule, label)  # chance 0.5; at best 0.93


def test_a_label_decodes_to_what_it_does(scan, split):
    train = split[0]
    for label, least in (("depressed", 0.8), ("old", 0.6)):
        found = scan.imagine({label: "yes"}, n=3)
        assert r(found.difference, true_difference(train, **{label: "yes"})) > least
        assert found.difference.dims == ("channel", "time")
        assert found.erp.attrs["units"] == "uV"
    nothing = scan.imagine()
    np.testing.assert_allclose(nothing.difference, 0, atol=1e-5)


def test_samples_vary_in_what_the_label_leaves_open(scan):
    found = scan.imagine({"depressed": "yes"}, n=4000)
    codes = (found.codes.values - scan.pooling_.mean) / scan.pooling_.scale
    np.testing.assert_allclose(codes.mean(0), found["mean"], atol=0.1)
    np.testing.assert_allclose(codes.var(0), found.variance, rtol=0.15)
    fixed = int(scan.interpret().latent_of.sel(label="depressed"))
    assert found.variance[fixed] < 0.75
    assert float(found.variance.drop_isel(code=fixed).mean()) > 0.8
    again = scan.imagine({"depressed": "yes"}, n=4000)
    xr.testing.assert_identical(found, again)


def test_and_has_both_effects_ignore_has_one(scan, split):
    train = split[0]
    depressed, old = {"depressed": "yes"}, {"old": "yes"}
    both = scan.combine(depressed, "and", old)
    assert r(both.difference, true_difference(train, **depressed, **old)) > 0.7
    latents = scan.interpret().latent_of
    for label, alone in (("depressed", depressed), ("old", old)):
        k = int(latents.sel(label=label))
        expected = scan.concept(alone)
        assert float(both["mean"][k]) == pytest.approx(float(expected["mean"][k]), abs=0.35)
        assert float(both.variance[k]) < 0.75
    less = scan.combine({**depressed, **old}, "ignore", old)
    assert r(less.difference, true_difference(train, **depressed)) > 0.8
    gone = int(latents.sel(label="old"))
    assert abs(float(less["mean"][gone])) < 0.35 < abs(float(both["mean"][gone]))
    common = scan.combine({**depressed, "old": "yes"}, "in common", {**depressed, "old": "no"})
    assert r(common.difference, true_difference(train, **depressed)) > 0.8
    nested = scan.combine(both, "ignore", depressed)
    assert r(nested.difference, true_difference(train, **old)) > 0.5
    assert set(both.data_vars) == {"mean", "variance", "erp", "difference"}


def test_the_null_label_is_not_read(scan, split):
    found = scan.predict_proba(split[1], level="participant")
    spread = {k: float(found.sel(symbol=f"{k}=yes").std()) for k in LABELS}
    assert spread["null"] < min(spread["depressed"], spread["old"])


# Probabilities ------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["decoder", "kl"])
@pytest.mark.parametrize("level", ["trial", "participant"])
def test_probabilities_add_up_inside_a_label(scan, split, level, rule):
    X = split[1].signal[:36]
    found = scan.predict_proba(X, level=level, rule=rule)
    n = {"trial": 36, "participant": len(np.unique(X.subject))}[level]
    assert found.dims == (level, "symbol")
    assert found.shape == (n, 6)
    assert list(found.symbol.values) == scan.symbols_.names
    for part in scan.symbols_.slices.values():
        np.testing.assert_allclose(found.values[:, part].sum(1), 1, rtol=1e-5)
    named = scan.predict(X, level=level, rule=rule)
    assert set(named.sel(label="old").values) <= {"no", "yes"}


def test_the_decoder_rule_normalises_bernoulli_probabilities(scan, split):
    import torch

    mean, variance = (
        np.asarray(a) for a in scan.transform(split[1].signal[:5], return_variance=True)
    )
    center, spread = scan.pooling_.pool(mean, variance, np.arange(5))
    p = torch.sigmoid(scan.network_.decode(torch.from_numpy(center)[None])[0]).detach().numpy()
    expected = p[:, :2] / p[:, :2].sum(1, keepdims=True)
    np.testing.assert_allclose(scan.read_codes(mean, variance)[:, :2], expected, rtol=1e-4)
    # The other rule: the softmax of the negative forward KL, signal first.
    found = scan.interpret()
    m, v = found["mean"].values, found.variance.values
    c, s = center[:, None].astype(float), spread[:, None].astype(float)
    kl = 0.5 * (np.log(v / s) + s / v + (c - m) ** 2 / v - 1).sum(-1)
    expected = 1 / (1 + np.exp(kl[:, 1] - kl[:, 0]))
    np.testing.assert_allclose(
        scan.read_codes(mean, variance, rule="kl")[:, 1], expected, rtol=1e-3
    )


def test_participants_are_averaged_first(scan, split):
    X = split[1].signal[:24]
    mean, variance = (np.asarray(a) for a in scan.transform(X, return_variance=True))
    names, unit = np.unique(X.subject.values, return_inverse=True)
    found = scan.predict_proba(X, level="participant")
    assert found.participant.values.tolist() == names.tolist()
    np.testing.assert_allclose(found, scan.read_codes(mean, variance, unit=unit))
    plain = scan.predict_proba(X.values, level="participant", subject=X.subject.values)
    np.testing.assert_allclose(plain, found, rtol=1e-6)
    assert isinstance(scan.predict_proba(X.values), np.ndarray)


# The encoder stays --------------------------------------------------------------------------


def test_the_encoder_is_frozen_and_shared(encoder, split):
    before = encoder_hash(encoder)
    weights = {k: t.clone() for k, t in encoder.network_.state_dict().items()}
    scan = tiny(encoder).fit(split[0])
    assert scan.encoder_hash_ == before == encoder_hash(encoder)
    assert all((weights[k] == t).all() for k, t in encoder.network_.state_dict().items())
    assert clone(scan).encoder is encoder
    np.testing.assert_array_equal(
        scan.transform(split[1].signal), encoder.transform(split[1].signal)
    )


def test_remapping_learns_other_labels_on_the_same_latents(encoder, split):
    scan = tiny(encoder).fit(split[0])
    subjects = np.unique(split[0].subject.values)
    table = pd.DataFrame({"participant_id": subjects, "score": np.arange(len(subjects)) / 7})
    other = scan.remap(table, max_epochs=2)
    assert other.symbols_.labels == ["score"]
    assert len(other.symbols_) == 3
    assert other.encoder_hash_ == scan.encoder_hash_
    assert other.max_epochs == 2
    assert scan.symbols_.labels == list(LABELS)
    fresh = clone(scan).set_params(max_epochs=2).fit(split[0], table)
    xr.testing.assert_equal(fresh.interpret(), other.interpret())
    again = other.remap(["depressed"], split[0])
    assert again.symbols_.labels == ["depressed"]


def test_a_seed_gives_the_same_scan(encoder, split):
    one, two, three = (
        tiny(encoder, random_state=s, operators=True).fit(split[0]) for s in (3, 3, 4)
    )
    labels = {"depressed": "yes"}, "and", {"old": "no"}
    xr.testing.assert_identical(one.combine(*labels), two.combine(*labels))
    assert not one.combine(*labels).equals(three.combine(*labels))
    assert one.history_ == two.history_


def test_a_label_within_participants_makes_units(encoder, split):
    train = split[0]
    half = np.arange(train.sizes["trial"]) % 2
    table = {"old": train.old.values, "condition": np.where(half, "pleasant", "neutral")}
    scan = tiny(encoder, within=["condition"]).fit(train, table)
    assert scan.symbols_.names[2:] == ["condition=neutral", "condition=pleasant"]
    with pytest.raises(DataError, match=r"'condition'.*neutral.*pleasant"):
        tiny(encoder).fit(train, table)


# Saving and decoding ------------------------------------------------------------------------


@pytest.mark.parametrize("operators", [True, False])
def test_saving_is_exact(encoder, split, tmp_path, registered, operators):
    scan = tiny(encoder, operators=operators, bins={"age": [30.0]}, within=()).fit(
        split[0], {"old": split[0].old.values, "age": ages(split[0])}
    )
    scan.save(tmp_path / "scan")
    again = neuro.load(tmp_path / "scan")
    assert isinstance(again, SCAN)
    X = split[1].signal[:30]
    xr.testing.assert_identical(again.predict_proba(X), scan.predict_proba(X))
    xr.testing.assert_identical(again.interpret(), scan.interpret())
    xr.testing.assert_identical(again.imagine({"age": 31}), scan.imagine({"age": 31}))
    assert again.encoder_hash_ == scan.encoder_hash_ == encoder_hash(again.encoder_)
    assert again.symbols_.groups == scan.symbols_.groups
    if operators:
        asked = {"old": "yes"}, "ignore", {"age": 20}
        xr.testing.assert_identical(again.combine(*asked), scan.combine(*asked))
    with pytest.raises(InputError, match="pass X"):
        again.remap(["old"])
    assert again.remap(["old"], split[0]).symbols_.labels == ["old"]


def ages(data: xr.Dataset) -> np.ndarray:
    number = np.unique(data.subject.values, return_inverse=True)[1]
    return 20.0 + number % 23


def test_another_encoder_in_the_folder_is_refused(encoder, split, tmp_path, registered):
    scan = tiny(encoder).fit(split[0])
    scan.encoder_hash_ = "0" * 32
    scan.save(tmp_path / "scan")
    with pytest.raises(ContractError, match="not the one SCAN was fitted on"):
        neuro.load(tmp_path / "scan")


@pytest.mark.parametrize("level", ["participant", "trial"])
def test_decoding_a_recording(scan, split, tmp_path, level):
    from neuro.decode import to_table

    data = split[1].isel(trial=slice(0, 24)).drop_vars("truth")
    save_dataset(data, tmp_path / "new.zarr")
    found = scan.decode(tmp_path / "new.zarr", ScanOptions(level=level))
    np.testing.assert_array_equal(found.codes, scan.transform(data.signal))
    np.testing.assert_allclose(found.denoised, scan.denoise(data.signal), rtol=1e-5, atol=1e-4)
    expected = scan.predict_proba(data, level=level)
    if level == "participant":
        np.testing.assert_allclose(
            found.probability, expected.sel(participant=data.subject.values), rtol=1e-6
        )
        assert found.erp.sizes["participant"] == len(np.unique(data.subject))
    else:
        np.testing.assert_allclose(found.probability, expected, rtol=1e-6)
    assert not found.seen_subject.values.any()
    save_dataset(found, tmp_path / "out.zarr")
    assert {"probability_old=yes", "codes_latent0"} <= set(to_table(found))
    known = split[0].isel(trial=slice(0, 4)).drop_vars("truth")
    save_dataset(known, tmp_path / "known.zarr")
    assert scan.decode(tmp_path / "known.zarr").seen_trial.values.all()


# Bad input ----------------------------------------------------------------------------------


def test_bad_labels(encoder, split):
    train = split[0]
    n = train.sizes["trial"]
    with pytest.raises(InputError, match="no label iq"):
        tiny(encoder).fit(train, ["iq"])
    with pytest.raises(DataError, match="'x' is missing for every participant"):
        tiny(encoder).fit(train, {"x": np.full(n, "")})
    sex = np.where(np.arange(n) % 2, "f", "m")
    with pytest.raises(DataError, match=r"'sex'.*'sub-\d+' is both 'm' and 'f'"):
        tiny(encoder).fit(train, {"sex": sex})
    with pytest.raises(InputError, match="each of"):
        tiny(encoder).fit(train, {"sex": sex[:3]})
    with pytest.raises(DataError, match="pass subject="):
        tiny(encoder).fit(train.signal.values, {"sex": sex})
    assert tiny(encoder, level="trial").fit(train.signal.values, {"sex": sex}).symbols_


def test_unseen_symbols_are_refused_by_name(scan):
    with pytest.raises(
        InputError, match=r"no label 'anxious'; the labels are depressed, old, null"
    ):
        scan.imagine({"anxious": "yes"})
    with pytest.raises(InputError, match=r"'maybe'; its symbols are 'no', 'yes'"):
        scan.imagine({"old": "maybe"})
    with pytest.raises(InputError, match=r"no operator 'xor'; use one of and, in common, ignore"):
        scan.combine({"old": "yes"}, "xor", {"old": "no"})
    with pytest.raises(InputError, match=r"'old' can't be both 'yes' and 'no'"):
        scan.combine({"old": "yes"}, "and", {"old": "no"})


def test_no_operator_was_trained(encoder, split):
    with pytest.raises(InputError, match="operators=False"):
        tiny(encoder).fit(split[0]).combine({"old": "yes"}, "and", {"null": "no"})


def test_another_montage_is_refused(encoder, split):
    renamed = split[0].assign_coords(channel=["Fz", "Cz", "Oz"])
    with pytest.raises(ContractError, match=r"missing: Pz; found Fz, Cz, Oz"):
        tiny(encoder).fit(renamed)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"encoder": None}, "expected a fitted BetaVAE"),
        ({"encoder": BetaVAE()}, "not fitted"),
        ({"level": "session"}, "level is 'session'; expected one of participant, trial"),
        ({"drop": 1.5}, "drop is 1.5"),
        ({"lam": -1.0}, "lam is -1.0"),
        ({"within": ["hand"]}, "within names hand; the labels are depressed, old, null"),
        ({"operator_target": "x", "operators": True}, "operator_target is 'x'"),
        ({"bins": {"hand": 2}}, "hand, which is no label"),
    ],
)
def test_wrong_parameters_are_named(encoder, split, params, words):
    with pytest.raises(InputError, match=words):
        tiny(encoder).set_params(**params).fit(split[0])


def test_wrong_rules_and_levels(scan, split):
    with pytest.raises(InputError, match="rule is 'best'"):
        scan.predict_proba(split[1], rule="best")
    with pytest.raises(InputError, match="level is 'session'"):
        scan.predict_proba(split[1], level="session")
    with pytest.raises(DataError, match="pass subject="):
        scan.predict_proba(split[1].signal.values, level="participant")


# Pairs --------------------------------------------------------------------------------------


def test_participants_together_are_the_prior():
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(80), rng.integers(5, 30, 80))
    unit = np.unique(unit, return_inverse=True)[1]
    person = rng.normal(size=(80, 3)) * [1.0, 0.5, 0.5] + 1
    mean = person[unit] + rng.normal(size=(len(unit), 3))
    variance = np.full_like(mean, 0.3)
    pooling = Pooling.learn(mean, variance, unit, np.ones(80), np.array([True, True, False]))
    center, spread = pooling.pool(mean, variance, unit)
    np.testing.assert_allclose((center.var(0) + spread.mean(0))[:2], 1, atol=0.05)
    np.testing.assert_array_equal(center[:, 2], 0)
    np.testing.assert_array_equal(spread[:, 2], 1)
    n = np.bincount(unit)
    assert (spread[n == n.min(), 1].min()) > spread[
        n == n.max(), 1
    ].max()  # fewer trials, less sure
    np.testing.assert_allclose(
        pooling.to_latents(np.zeros((1, 3)))[0], average(mean, mean, unit)[0].mean(0), rtol=1e-5
    )


def test_one_trial_each_keeps_the_posterior_of_the_encoder():
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=(50, 2)), rng.uniform(0.1, 0.5, (50, 2))
    pooling = Pooling.learn(mean, variance, np.arange(50), np.ones(50), np.ones(2, bool))
    center, spread = pooling.pool(mean, variance, np.arange(50))
    np.testing.assert_allclose(center * pooling.scale + pooling.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(spread * pooling.scale**2, variance, rtol=1e-4)
    np.testing.assert_allclose(center.var(0) + spread.mean(0), 1, rtol=1e-4)


def planted(n_people=200, n_trials=8, seed=0):
    """Codes of two latents in two conditions: level and difference of each person are known."""
    rng = np.random.default_rng(seed)
    level, change = rng.normal(size=(2, n_people, 2)) * [[[1.0]], [[0.5]]]
    unit = np.repeat(np.arange(n_people), 2 * n_trials)
    condition = np.tile(np.repeat(["a", "b"], n_trials), n_people)
    sign = np.where(condition == "b", 0.5, -0.5)[:, None]
    mean = level[unit] + sign * (change[unit] + 2.0) + 0.3 * rng.normal(size=(len(unit), 2))
    return mean, np.full_like(mean, 0.1), unit, condition, level, change


def test_differences_between_conditions_are_parts_of_the_code():
    mean, variance, unit, condition, level, change = planted()
    weight, kept = np.ones(200), np.ones(2, bool)
    pooling = Pooling.learn(mean, variance, unit, weight, kept, condition)
    assert pooling.conditions == ("a", "b")
    assert pooling.parts == ["level", "b - a"]
    assert pooling.n_latents == 2
    center, spread = pooling.pool(mean, variance, unit, condition)
    np.testing.assert_allclose(center.var(0) + spread.mean(0), 1, atol=0.05)
    for column, truth in zip(center.T, [*level.T, *change.T], strict=True):
        assert r(column, truth) > 0.95
    # Back to codes: what the trials of each condition average to.
    back = pooling.to_latents(center)
    assert back.shape == (200, 2, 2)
    own = average(mean, variance, unit * 2 + (condition == "b"))[0].reshape(200, 2, 2)
    assert r(back, own) > 0.99
    with pytest.raises(ContractError, match="condition c; SCAN was fitted on a, b"):
        pooling.pool(mean[:1], variance[:1], unit[:1], ["c"])


def test_a_difference_without_trials_is_the_prior():
    mean, variance, unit, condition, level, _ = planted()
    pooling = Pooling.learn(mean, variance, unit, np.ones(200), np.ones(2, bool), condition)
    own = condition == "b"
    center, spread = pooling.pool(mean[own], variance[own], unit[own], condition[own])
    np.testing.assert_array_equal(center[:, 2:], 0)
    np.testing.assert_array_equal(spread[:, 2:], 1)
    # What the condition adds is not taken for the person's level.
    np.testing.assert_allclose(center[:, :2].mean(0), 0, atol=0.15)
    assert r(center[:, 0], level[:, 0]) > 0.9
    nobody_knows = pooling.pool(mean, variance, unit)
    np.testing.assert_array_equal(nobody_knows[0][:, 2:], 0)
    assert r(nobody_knows[0][:, 1], level[:, 1]) > 0.95


def test_one_condition_has_no_difference():
    mean, variance, unit, condition, *_ = planted()
    own = condition == "a"
    alone = Pooling.learn(
        mean[own], variance[own], unit[own], np.ones(200), np.ones(2, bool), condition[own]
    )
    assert alone.conditions == ()
    assert alone.to_latents(np.zeros((1, 2))).shape == (1, 2)


@pytest.fixture(scope="module")
def contrasted() -> tuple[SCAN, xr.Dataset]:
    """SCAN of two conditions whose difference carries a label."""
    data = simulate_cohort(
        160, 8, channels=("Fz", "Cz", "Pz"), sfreq=64.0, noise=3.0, alpha=1.0, seed=3,
        labels={"depressed": Label("lpp_gain", -3.0), "old": LABELS["old"]},
    )  # fmt: skip
    encoder = BetaVAE(
        n_latents=5, train_on="erp", beta=2.0, network="mlp", n_hidden=32, max_epochs=12,
        learning_rate=2e-3, device="cpu",
    ).fit(data)  # fmt: skip
    return SCAN(encoder, max_epochs=15, operators=False).fit(data, ["depressed", "old"]), data


def test_a_label_on_the_difference_is_found_there(contrasted):
    scan, data = contrasted
    assert scan.pooling_.conditions == ("neutral", "pleasant")
    found = scan.interpret()
    assert found.part.values[int(found.best.sel(label="depressed"))] == "pleasant - neutral"
    concept = scan.imagine({"depressed": "yes"}, n=3)
    assert concept.signal.dims == ("sample", "condition", "channel", "time")
    assert concept.codes.dims == ("sample", "condition", "latent")
    for shown in views(scan):
        assert view(concept.signal, shown).dims == ("sample", "channel", "time")
    lpp = view(concept.difference, "pleasant - neutral").sel(channel="Pz")
    late = lpp.sel(time=slice(0.5, 0.7)).mean()
    assert abs(float(late)) > 2 * abs(float(lpp.sel(time=slice(None, 0.1)).mean()))
    pooled = SCAN(scan.encoder_, max_epochs=2, operators=False, contrast=None)
    assert pooled.fit(data, ["old"]).imagine(n=1).erp.dims == ("channel", "time")
    with pytest.raises(InputError, match="no 'angry' to look at"):
        view(concept.erp, "angry")


def test_contrasts_are_stored_and_new_conditions_refused(contrasted, registered, tmp_path):
    scan, data = contrasted
    scan.save(tmp_path / "scan")
    again = neuro.load(tmp_path / "scan")
    expected = scan.predict_proba(data.signal, level="participant")
    xr.testing.assert_allclose(again.predict_proba(data.signal, level="participant"), expected)
    single = scan.predict_proba(data.signal)
    assert single.sizes["trial"] == data.sizes["trial"]
    renamed = data.signal.assign_coords(condition=("trial", np.full(data.sizes["trial"], "odd")))
    with pytest.raises(ContractError, match="condition odd"):
        scan.predict_proba(renamed)
    unknown = scan.predict_proba(data.signal.drop_vars("condition"), level="participant")
    assert r(unknown.sel(symbol="old=yes"), expected.sel(symbol="old=yes")) > 0.9


def test_classes_are_balanced_by_drawing():
    rng = np.random.default_rng(1)
    codes = np.stack([rng.random(400) < 0.1, rng.integers(0, 3, 400)], 1).astype(np.int64)
    codes[rng.random((400, 2)) < 0.2] = MISSING
    weight = balanced_weights(codes)
    for column in codes.T:
        mass = np.bincount(column[column != MISSING], weight[column != MISSING])
        np.testing.assert_allclose(mass / mass.sum(), 1 / len(mass), atol=1e-3)


def known() -> Symbols:
    return Symbols.learn({"a": ["n", "y"] * 6, "b": ["u", "v", "w"] * 4, "c": ["n", "y"] * 6})


def draw(kind: type[Pairs], codes: np.ndarray, **settings) -> dict[str, np.ndarray]:
    zeros = np.zeros((len(codes), 2))
    zeros[:, 0] = np.arange(len(codes))  # marks the unit
    settings = {"drop": 0.8, "batch_size": 64, "seed": 0, **settings}
    source = kind(zeros, zeros + 1.0, codes, known(), np.ones(len(codes)), **settings)
    batches = list(source)
    return {k: np.concatenate([b[k].numpy() for b in batches]) for k in batches[0]}


def some_codes() -> np.ndarray:
    rng = np.random.default_rng(2)
    codes = np.stack([rng.integers(0, k, 40) for k in (2, 3, 2)], axis=1)
    codes[rng.random(codes.shape) < 0.2] = MISSING
    return codes.astype(np.int64)


def test_labels_are_dropped_at_random_but_never_changed():
    codes = some_codes()
    found = draw(Pairs, codes)
    full = known().k_hot(codes)[0][found["mean"][:, 0].astype(int)]
    assert (found["symbols"] <= full).all()
    assert (found["symbols"] <= found["mask"]).all()
    n = found["symbols"].sum(1)
    assert set(n) == {0, 1, 2, 3}
    assert (found["symbols"] == full).all(1).mean() > 0.2
    kept = draw(Pairs, codes, drop=0.0)
    np.testing.assert_array_equal(
        kept["symbols"], known().k_hot(codes)[0][kept["mean"][:, 0].astype(int)]
    )


def test_operands_give_their_result_as_sets():
    codes = some_codes()
    found = draw(Recombinations, codes)
    first, second, result = (found[k].astype(bool) for k in ("first", "second", "result"))
    operator = found["operator"].argmax(1)
    for number, law in enumerate((lambda a, b: a | b, lambda a, b: a & b, lambda a, b: a & ~b)):
        rows = operator == number
        assert rows.mean() > 0.25
        np.testing.assert_array_equal(law(first, second)[rows], result[rows])
        assert (second[rows] & ~first[rows]).any()  # the second concept has more to it
    full = known().k_hot(codes)[0][found["mean"][:, 0].astype(int)].astype(bool)
    assert not (result & ~full).any()
    for side in (first, second):  # nobody has two values of one label
        for part in known().slices.values():
            assert side[:, part].sum(1).max() <= 1


def test_draws_follow_seed_and_epoch():
    zeros = np.zeros((40, 2))
    pairs = Pairs(
        zeros, zeros + 1, some_codes(), known(), np.ones(40), drop=0.5, batch_size=64, seed=1
    )
    one, two = next(iter(pairs))["symbols"], next(iter(pairs))["symbols"]
    pairs.set_epoch(1)
    assert (one == two).all()
    assert not (one == next(iter(pairs))["symbols"]).all()


def test_importing_scan_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, eeg.symbols, eeg.labels; assert not {'torch', 'mne'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_killed_fit_continues(encoder, split, tmp_path):
    whole = tiny(encoder, max_epochs=3).fit(split[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny(encoder, max_epochs=3).fit(split[0], scratch=tmp_path)
    again = tiny(encoder, max_epochs=3).fit(split[0], scratch=tmp_path)
    assert again.history_ == whole.history_
    xr.testing.assert_equal(again.interpret(), whole.interpret())
