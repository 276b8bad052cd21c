"""BetaVAE: what it accepts, how it trains, what it keeps; scikit-learn's own checks."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import neuro
from eeg import BetaVAE
from eeg.sampling import GroupBatches, statistics, training_batches
from neuro.errors import ContractError, DataError, InputError, StageError

QUICK = {"n_latents": 3, "n_hidden": 16, "max_epochs": 2, "beta": 0.5, "batch_size": 16}
pytestmark = pytest.mark.filterwarnings("ignore:no latent carries", "ignore:none of .* is passive")


def cohort(
    n_subjects: int = 4, n_trials: int = 10, seed: int = 0, scale: float = 10
) -> xr.DataArray:
    """A subject's own bump in noise: (trial, 3 channels, 32 times) in uV."""
    rng = np.random.default_rng(seed)
    times = np.arange(32) / 100
    subject = np.repeat([f"s{i}" for i in range(n_subjects)], n_trials)
    condition = np.tile(["a", "b"], len(subject) // 2)
    peak = np.repeat(rng.uniform(0.1, 0.2, n_subjects), n_trials)
    bump = scale * np.exp(-0.5 * ((times - peak[:, None]) / 0.03) ** 2)
    topography = np.array([1.0, 0.5, -0.5])[:, None]
    signal = bump[:, None] * topography + scale * rng.normal(size=(len(subject), 3, 32))
    return xr.DataArray(
        signal.astype("float32"),
        dims=("trial", "channel", "time"),
        coords={
            "channel": ["Fz", "Cz", "Pz"],
            "time": times,
            "subject": ("trial", subject),
            "condition": ("trial", condition),
        },
        attrs={"units": "uV", "sfreq": 100.0},
    )


def quick(**settings) -> BetaVAE:
    return BetaVAE(**(QUICK | settings))


# -- scikit-learn ------------------------------------------------------------------------------


def test_scikit_learns_own_checks():
    results = check_estimator(
        BetaVAE(n_latents=2, n_hidden=4, max_epochs=1, beta=0.1, batch_size=32), on_skip=None
    )
    passed = [r["check_name"] for r in results if r["status"] == "passed"]
    left_out = {r["check_name"] for r in results if r["status"] != "passed"}
    assert len(passed) >= 40
    # Runs only where SciPy's experimental array API is switched on in the environment.
    assert left_out <= {"check_array_api_input"}


def test_clone_pipeline_and_cross_validation():
    from sklearn.linear_model import LogisticRegression

    X = cohort().values
    y = np.tile([0, 1], len(X) // 2)
    pipeline = make_pipeline(quick(), LogisticRegression())
    assert clone(pipeline).get_params()["betavae__beta"] == 0.5
    scores = cross_val_score(pipeline, X, y, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_feature_names_out():
    names = quick().fit(cohort()).get_feature_names_out()
    assert list(names) == ["betavae0", "betavae1", "betavae2"]


# -- what goes in and out ----------------------------------------------------------------------


def test_labelled_in_labelled_out():
    X = cohort()
    encoder = quick().fit(X)
    Z, variance = encoder.transform(X, return_variance=True)
    assert Z.dims == variance.dims == ("trial", "latent")
    assert Z.subject.values.tolist() == X.subject.values.tolist()
    assert (variance > 0).all()
    for signal in (encoder.denoise(X), encoder.inverse_transform(Z)):
        assert signal.dims == X.dims
        assert signal.shape == X.shape
        assert signal.attrs["units"] == "uV"
        xr.testing.assert_equal(signal.coords.to_dataset(), X.coords.to_dataset())
    np.testing.assert_array_equal(encoder.denoise(X), encoder.inverse_transform(Z))


@pytest.mark.parametrize("shape", [(20, 3, 32), (20, 1, 32), (20, 32), (20, 2), (20, 5, 3)])
@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_plain_in_plain_out(shape, network):
    X = np.random.default_rng(0).normal(0, 10, shape).astype("float32")
    encoder = quick(network=network).fit(X)
    Z = encoder.transform(X)
    assert isinstance(Z, np.ndarray)
    assert Z.shape == (20, 3)
    assert Z.dtype == np.float32
    assert encoder.denoise(X).shape == shape
    assert encoder.inverse_transform(Z).shape == shape


def test_batches_do_not_change_the_codes():
    X = np.random.default_rng(0).normal(0, 10, (1100, 2, 16)).astype("float32")
    encoder = quick().fit(X[:64])
    whole = encoder.transform(X)
    np.testing.assert_allclose(whole[600:700], encoder.transform(X[600:700]), rtol=1e-4, atol=1e-5)


def test_channels_are_taken_by_name():
    X = cohort()
    encoder = quick().fit(X)
    np.testing.assert_array_equal(encoder.transform(X[:, ::-1]), encoder.transform(X))
    with pytest.raises(ContractError, match=r"channels missing: Pz.*expected Fz, Cz, Pz"):
        encoder.transform(X[:, :2])


def test_signals_are_standardised_by_training_statistics():
    X = cohort() * xr.DataArray([1.0, 100.0, 0.5], dims="channel") + 7
    X = X.assign_attrs(units="uV")
    encoder = quick().fit(X)
    np.testing.assert_allclose(encoder.standardizer_.mean, X.mean(("trial", "time")), rtol=1e-4)
    np.testing.assert_allclose(encoder.standardizer_.sd, X.std(("trial", "time")), rtol=1e-4)
    # New data do not move them: the code of a trial is the same alone.
    np.testing.assert_allclose(
        encoder.transform(X[:1]), encoder.transform(X)[:1], rtol=1e-4, atol=1e-5
    )
    offset = (encoder.denoise(X) - X).mean(("trial", "time")) / encoder.standardizer_.sd
    assert float(abs(offset).max()) < 0.5  # out of the network in uV again


def test_traverse_turns_one_latent_at_a_time():
    encoder = quick().fit(cohort())
    waves = encoder.traverse()
    assert waves.dims == ("latent", "value", "channel", "time")
    assert waves.shape == (3, 7, 3, 32)
    assert waves["value"].values.tolist() == pytest.approx([-2, -4 / 3, -2 / 3, 0, 2 / 3, 4 / 3, 2])
    reference = [0.5, -1.0, 2.0]
    one = encoder.traverse(1, [0.25], reference)
    expected = encoder.inverse_transform(np.array([[0.5, 0.25, 2.0]]))
    np.testing.assert_allclose(one.values[0, 0], expected[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="latent 3"):
        encoder.traverse(3)
    with pytest.raises(InputError, match="reference"):
        encoder.traverse(reference=[0.0])


def test_epochs_in_volts_become_microvolts(make_raw, tmp_path):
    import mne

    raw = make_raw(channels=["Fz", "Cz", "Pz"])
    epochs = mne.Epochs(raw, tmin=-0.1, tmax=0.3, baseline=None, preload=True, verbose="error")
    encoder = quick().fit(epochs)
    assert encoder.contract_.units == "uV"
    assert encoder.contract_.channels == ["Fz", "Cz", "Pz"]
    assert 1 < encoder.standardizer_.sd.mean() < 100
    Z = encoder.transform(epochs)
    assert Z.shape == (len(epochs), 3)
    epochs.save(tmp_path / "new_epo.fif", verbose="error")
    again = encoder.transform(tmp_path / "new_epo.fif")
    np.testing.assert_allclose(again.values, Z.values, rtol=1e-3, atol=1e-4)
    other = quick().fit(tmp_path / "new_epo.fif")
    np.testing.assert_allclose(other.standardizer_.sd, encoder.standardizer_.sd, rtol=1e-4)
    with pytest.raises(ContractError):
        encoder.transform(epochs.copy().crop(tmax=0.2))


def test_volts_are_recognised():
    with pytest.raises(ContractError, match="units are 'V', expected uV: multiply by 1e6"):
        quick().fit((cohort() * 1e-6).assign_attrs(units="V"))
    with pytest.raises(DataError, match="looks like volts"):
        quick().fit((cohort() * 1e-6).assign_attrs(units="uV"))
    encoder = quick().fit(cohort())
    with pytest.raises(ContractError, match="units are 'V'"):
        encoder.transform((cohort() * 1e-6).assign_attrs(units="V"))


def test_nan_and_continuous_recordings_are_refused(make_raw, tmp_path):
    X = cohort()
    X[3, 1, 5] = np.nan
    with pytest.raises(DataError, match=r"NaN.*subject s0.*Cz"):
        quick().fit(X)
    make_raw().save(tmp_path / "new_raw.fif", verbose="error")
    with pytest.raises(DataError, match="cut it into epochs"):
        quick().fit(tmp_path / "new_raw.fif")


def test_a_constant_channel_does_no_harm():
    X = cohort()
    X[:, 1] = 4.0
    encoder = quick().fit(X)
    assert np.isfinite(encoder.transform(X)).all()
    assert float(abs(encoder.denoise(X)[:, 1] - 4.0).max()) < 3


# -- what it is trained on ---------------------------------------------------------------------


def groups(n: int, k: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(np.arange(n) % k)


def test_bootstrap_averages_are_of_one_group_without_repetition():
    # Trials are powers of two of a number in their group: a mean shows which took part.
    group = groups(30, 3)
    number = np.array([np.sum(group[:i] == group[i]) for i in range(30)])
    X = np.zeros((30, 2, 1))
    X[:, 0, 0], X[:, 1, 0] = 2.0**number, 1000.0 * group
    index = np.flatnonzero(np.arange(30) % 7)  # some trials belong to another part
    source = GroupBatches(X, group, "bootstrap", 8, index=index, n_average=4, seed=5)
    used_k = set()
    for epoch in range(20):
        source.set_epoch(epoch)
        rows = np.concatenate([batch["x"].numpy() for batch in source])
        assert len(rows) == len(index)
        for first, second in rows[:, :, 0]:
            own = second / 1000
            assert own in (0, 1, 2)
            allowed = {int(2 ** number[i]) for i in index if group[i] == own}
            found = [k for k in range(1, 5) if _is_sum(first * k, k, allowed)]
            assert found
            used_k.add(found[0])
    assert used_k == {1, 2, 3, 4}


def _is_sum(total: float, k: int, allowed: set[int]) -> bool:
    """Whether `total` is a sum of k different powers of two, all allowed."""
    whole = round(total)
    bits = {1 << i for i in range(whole.bit_length()) if whole >> i & 1}
    return abs(total - whole) < 1e-6 and len(bits) == k and bits <= allowed


def test_averages_are_as_long_as_they_may_and_no_longer():
    X = np.random.default_rng(0).normal(size=(6, 1, 4))
    source = GroupBatches(
        X, np.array([0, 0, 0, 0, 1, 1]), "bootstrap", 6, index=np.arange(6), n_average=50, seed=0
    )
    variances = []
    for epoch in range(300):
        source.set_epoch(epoch)
        variances.append(next(iter(source))["x"].numpy())
    assert np.isfinite(variances).all()


def test_single_to_erp_leaves_the_input_out_of_the_target():
    X = np.random.default_rng(0).normal(size=(12, 2, 5))
    group = groups(12, 3)
    source = GroupBatches(X, group, "single-to-erp", 4, index=np.arange(12), seed=1)
    for batch in source:
        for x, target in zip(batch["x"].numpy(), batch["target"].numpy(), strict=True):
            (row,) = np.flatnonzero((x == X).all((1, 2)))
            others = (group == group[row]) & (np.arange(12) != row)
            np.testing.assert_allclose(target, X[others].mean(0), rtol=1e-10, atol=1e-12)


def test_single_to_erp_needs_a_second_trial():
    X = np.random.default_rng(0).normal(size=(4, 1, 5))
    source = GroupBatches(X, np.array([0, 0, 1, 2]), "single-to-erp", 4, index=np.arange(4))
    assert sorted(source.index) == [0, 1]
    with pytest.raises(DataError, match="at least two trials"):
        GroupBatches(X, np.arange(4), "single-to-erp", 4, index=np.arange(4))


def test_erps_are_group_means_of_the_training_part():
    X = np.random.default_rng(0).normal(size=(12, 2, 5))
    group, index = groups(12, 3), np.arange(9)
    source = GroupBatches(X, group, "erp", 4, index=index, shuffle=False)
    shown = np.concatenate([batch["x"].numpy() for batch in source])
    expected = [X[index][group[index] == g].mean(0) for g in group[index]]
    np.testing.assert_allclose(shown, expected, rtol=1e-12)


def test_epochs_have_orders_of_their_own_that_come_again():
    X = np.random.default_rng(0).normal(size=(12, 1, 5))
    source = GroupBatches(X, groups(12, 3), "bootstrap", 4, index=np.arange(12), n_average=3)

    def epoch(number):
        source.set_epoch(number)
        return np.concatenate([batch["x"].numpy() for batch in source])

    first, second = epoch(0), epoch(1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epoch(0), first)


@pytest.mark.parametrize("mode", ["single", "erp", "bootstrap", "single-to-erp"])
def test_statistics_are_those_of_what_is_shown(mode):
    X = (
        np.random.default_rng(0).normal(size=(40, 2, 9)) * [[3.0], [0.1]] + [[1e4], [-3.0]]
    ).astype("float32")
    source = training_batches(X, groups(40, 4), mode, 16, n_average=3)
    scaler, target = statistics(source)
    source.set_epoch(0)
    shown = list(source)
    pairs = [(scaler, "x")] + ([(target, "target")] if target else [])
    assert (target is not None) == (mode == "single-to-erp")
    for found, name in pairs:
        values = np.concatenate([batch[name].double().numpy() for batch in shown])
        np.testing.assert_allclose(found.mean, values.mean((0, 2)), rtol=1e-6)
        np.testing.assert_allclose(found.sd, values.std((0, 2)), rtol=2e-3)


@pytest.mark.parametrize("mode", ["single", "erp", "bootstrap", "single-to-erp"])
def test_every_mode_learns_to_denoise(mode):
    X = cohort(8, 20, scale=10)
    train, test = X[:120], X[120:]
    erp = test.groupby("subject").mean("trial").sel(subject=test.subject)
    encoder = BetaVAE(
        n_latents=4, n_hidden=32, beta=1.0, train_on=mode, max_epochs=30, batch_size=16,
        learning_rate=3e-3,
    ).fit(train)  # fmt: skip
    error = float(((encoder.denoise(test) - erp.values) ** 2).mean())
    assert error < 0.6 * float(((test - erp.values) ** 2).mean())
    losses = [row["loss"] for row in encoder.history_]
    assert losses[-1] < 0.98 * losses[0]


def test_averaging_modes_need_subjects():
    X = cohort().drop_vars("subject")
    with pytest.raises(DataError, match="pass subject="):
        quick(train_on="erp").fit(X)
    quick(train_on="erp").fit(X, subject=cohort().subject.values)
    with pytest.raises(DataError, match="'subject' has the shape"):
        quick(train_on="erp").fit(X.values, subject=["a"])


def test_validation_keeps_whole_subjects_aside():
    from eeg.fitting import _Data, _split

    X = cohort(10, 6)
    data = _Data(X.values, {"subject": X.subject.values, "condition": None}, {})
    train, held_out = _split(quick(validation_fraction=0.3), data, 0)
    assert not set(X.subject.values[train]) & set(X.subject.values[held_out])
    assert len(set(X.subject.values[held_out])) == 3
    assert sorted([*train, *held_out]) == list(range(60))
    encoder = quick(validation_fraction=0.3, patience=1, max_epochs=4).fit(X)
    assert "val_loss" in encoder.history_[0]
    best = min(encoder.history_, key=lambda row: row["val_loss"])
    assert best["epoch"] == encoder.best_epoch_
    with pytest.raises(DataError, match="one only: s0"):
        quick(validation_fraction=0.3).fit(X[:6])


# -- what it learned ---------------------------------------------------------------------------


def test_latents_are_counted():
    encoder = quick(max_epochs=5).fit(cohort())
    assert encoder.kl_.shape == encoder.kept_.shape == encoder.types_.shape == (3,)
    np.testing.assert_array_equal(encoder.kept_, encoder.kl_ > 0.01)
    counts = encoder.counts_
    assert counts["kl_active"] == encoder.kept_.sum()
    assert counts["active"] + counts["mixed"] + counts["passive"] == 3
    mean, variance = encoder.transform(cohort(), return_variance=True)
    expected = 0.5 * (mean**2 + variance - np.log(variance) - 1).mean("trial")
    np.testing.assert_allclose(encoder.kl_, expected, rtol=1e-4)


def test_a_huge_beta_collapses_and_says_so():
    with pytest.warns(UserWarning, match=r"posterior collapse.*beta = 1e\+06"):
        encoder = quick(beta=1e6, max_epochs=15, learning_rate=1e-2).fit(cohort())
    assert encoder.counts_["kl_active"] == 0
    assert encoder.counts_["passive"] == 3


def test_a_small_beta_leaves_no_passive_latent_and_says_so():
    with pytest.warns(UserWarning, match="may be too small"):
        encoder = quick(beta=1e-3, n_latents=1, max_epochs=30, learning_rate=1e-2).fit(cohort())
    assert encoder.counts_["passive"] == 0


def test_beta_zero_is_an_autoencoder():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        encoder = quick(beta=0, max_epochs=20, learning_rate=1e-2).fit(cohort())
    mean, variance = encoder.transform(cohort(), return_variance=True)
    assert not variance.any()
    np.testing.assert_allclose(encoder.kl_, 0.5 * (mean**2).mean("trial"), rtol=1e-4)
    assert all(row["loss"] == row["reconstruction"] for row in encoder.history_)


def test_same_seed_same_codes():
    X = cohort()
    first, again, other = (quick(random_state=s).fit(X).transform(X).values for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_fitting_again_forgets_the_first_fit():
    encoder = quick().fit(cohort())
    encoder.fit(cohort().values[:, :, :20])
    assert encoder.transform(cohort().values[:, :, :20]).shape == (40, 3)


# -- together ----------------------------------------------------------------------------------


def test_together_as_if_one_by_one():
    X = cohort(5, 10)
    settings = [{"beta": 0.5}, {"beta": 4.0}, {"random_state": 3}, {"learning_rate": 1e-2}]
    members = [quick(precision="64", **s) for s in settings]
    BetaVAE.fit_together(members, X)
    for member in members:
        alone = clone(member).fit(X)
        np.testing.assert_allclose(member.transform(X), alone.transform(X), rtol=1e-4, atol=1e-5)
        assert member.history_[-1]["loss"] == pytest.approx(alone.history_[-1]["loss"], rel=1e-6)


@pytest.mark.parametrize("mode", ["single", "single-to-erp"])
def test_folds_have_statistics_and_hashes_of_their_own(mode):
    X = cohort(6, 10)
    X[:20] *= 5
    subsets = [np.arange(20, 60), np.arange(50), np.arange(30, 57)]
    members = [quick(precision="64", train_on=mode) for _ in subsets]
    BetaVAE.fit_together(members, X, subsets=subsets)
    for member, subset in zip(members, subsets, strict=True):
        part = X[subset]
        if mode == "single":
            np.testing.assert_allclose(
                member.standardizer_.sd, part.std(("trial", "time")), rtol=1e-4
            )
        seen = member.seen(X)
        np.testing.assert_array_equal(np.flatnonzero(seen.trials), np.sort(subset))
        alone = clone(member).fit(part)
        np.testing.assert_allclose(member.transform(X), alone.transform(X), rtol=1e-4, atol=1e-5)


def test_members_of_other_kinds_follow_one_another():
    members = [quick(), quick(n_latents=2), quick(network="mlp"), quick(beta=2.0)]
    BetaVAE.fit_together(members, cohort())
    assert [member.kl_.shape for member in members] == [(3,), (2,), (3,), (3,)]
    with pytest.raises(InputError, match="1 subsets for 4"):
        BetaVAE.fit_together(members, cohort(), subsets=[[0]])
    assert BetaVAE.fit_together([], cohort()) == []


def test_a_fit_continues_in_its_scratch_folder(tmp_path):
    X = cohort()

    def stop_after_three(items, label, total):
        for number, item in enumerate(items):
            if number == 3:
                raise TimeoutError
            yield item

    whole = quick(max_epochs=6).fit(X)
    with pytest.raises(TimeoutError):
        quick(max_epochs=6).fit(X, scratch=tmp_path, progress=stop_after_three)
    epochs = []
    again = quick(max_epochs=6).fit(
        X, scratch=tmp_path, progress=lambda items, *_: (epochs.append(i) or i for i in items)
    )
    assert 0 < epochs[0] <= 3
    np.testing.assert_array_equal(again.transform(X), whole.transform(X))
    assert again.history_ == whole.history_


# -- on disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["single", "single-to-erp"])
def test_a_saved_encoder_is_the_same_to_the_bit(tmp_path, mode):
    X = cohort()
    encoder = quick(train_on=mode, capacity=2.0).fit(X)
    encoder.save(tmp_path / "encoder")
    loaded = neuro.load(tmp_path / "encoder")
    assert isinstance(loaded, BetaVAE)
    assert loaded.get_params() == encoder.get_params()
    for one, other in zip(
        encoder.transform(X, return_variance=True),
        loaded.transform(X, return_variance=True),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(encoder.denoise(X), loaded.denoise(X))
    xr.testing.assert_identical(encoder.traverse(), loaded.traverse())
    for name in ("kl_", "kept_", "types_"):
        np.testing.assert_array_equal(getattr(encoder, name), getattr(loaded, name))
    assert loaded.counts_ == encoder.counts_
    assert loaded.history_ == encoder.history_
    stored = json.loads((tmp_path / "encoder" / "preprocessing.json").read_text())
    assert stored["channels"] == ["Fz", "Cz", "Pz"]
    with pytest.raises(ContractError, match="without a history"):
        loaded.transform(tmp_path / "some_raw.fif")


# -- parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "cnn"}, "network is 'cnn'; expected one of conv, mlp"),
        ({"train_on": "trials"}, "train_on is 'trials'"),
        ({"beta": -1}, "beta is -1"),
        ({"n_latents": 0}, "n_latents is 0"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"capacity": -2.0}, "capacity is -2.0"),
        ({"precision": "8"}, "precision '8'"),
        ({"device": "tpu9"}, "device 'tpu9'"),
    ],
)
def test_wrong_parameters_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        quick(**settings).fit(cohort())


def test_divergence_is_an_error_with_advice():
    with pytest.raises(StageError, match="Try a lower learning rate"):
        quick(learning_rate=1e25).fit(cohort())


def test_codes_of_another_size_are_refused():
    with pytest.raises(ContractError, match=r"\(2, 4\), expected \(trial, 3\)"):
        quick().fit(cohort()).inverse_transform(np.zeros((2, 4)))
