"""Standardising by domain: offsets and gains go, unknown domains are met by rule."""

from __future__ import annotations

import numpy as np
import pytest

import neuro
from timeseries.domain_scaler import DomainScaler
from timeseries.dts import DTS

SMALL = {"n_hidden": 16, "batch_size": 32, "device": "cpu", "random_state": 0}


def series(seed=0):
    """Three domains whose channels have other offsets and gains."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(90, 2, 16)).astype("float32")
    domain = np.repeat(["ann", "bob", "eve"], 30)
    gain, offset = np.repeat([1.0, 4.0, 0.2], 30), np.repeat([0.0, 10.0, -3.0], 30)
    return (X * gain[:, None, None] + offset[:, None, None]).astype("float32"), domain


def test_every_domain_gets_mean_0_and_sd_1():
    X, domain = series()
    scaled = DomainScaler.fit(X, domain).transform(X, domain)
    for name in np.unique(domain):
        own = scaled[domain == name]
        assert np.allclose(own.mean((0, 2)), 0, atol=1e-4)
        assert np.allclose(own.std((0, 2)), 1, atol=1e-3)


def test_padding_does_not_count():
    X, domain = series()
    real = np.ones((90, 16), bool)
    real[:, 10:] = False
    a = DomainScaler.fit(X, domain, real).transform(X, domain, real)
    X[:, :, 10:] = 1e6
    b = DomainScaler.fit(X, domain, real).transform(X, domain, real)
    assert np.array_equal(a, b)
    assert not a[:, :, 10:].any()


def test_a_new_domain_takes_its_own_statistics_only_if_it_brings_enough():
    X, domain = series()
    scaler = DomainScaler.fit(X[:60], domain[:60])
    own = scaler.transform(X[60:], domain[60:])
    assert abs(own.mean()) < 1e-3
    few = scaler.transform(X[60:63], domain[60:63])
    assert np.array_equal(few, scaler.pooled.transform(X[60:63]))
    nameless = scaler.transform(X[:5], [""] * 5)
    assert np.array_equal(nameless, scaler.pooled.transform(X[:5]))
    assert np.array_equal(nameless, scaler.transform(X[:5], None))


def test_inverse_and_stored_statistics():
    X, domain = series()
    scaler = DomainScaler.fit(X, domain)
    again = DomainScaler.from_dict(scaler.pooled, scaler.to_dict())
    scaled = scaler.transform(X, domain)
    assert np.array_equal(again.transform(X, domain), scaled)
    assert np.allclose(again.inverse(scaled, domain), X, atol=1e-3)


@pytest.fixture(scope="module")
def fitted():
    X, domain = series()
    y = np.tile(["up", "down"], 45)
    model = DTS(3, 2, standardise="domain", max_epochs=2, **SMALL)
    return model.fit(X, y, domain=domain), X, domain


def test_dts_does_not_see_offset_and_gain_of_a_domain(fitted):
    """A domain's sensor may be moved: the codes are the same."""
    model, X, domain = fitted
    moved = X.copy()
    moved[domain == "bob"] = 3 * moved[domain == "bob"] - 7
    y = np.tile(["up", "down"], 45)
    other = DTS(3, 2, standardise="domain", max_epochs=2, **SMALL).fit(moved, y, domain=domain)
    a, b = model.transform(X, domain=domain), other.transform(moved, domain=domain)
    assert np.allclose(a, b, atol=1e-3)
    assert not np.allclose(model.transform(X), model.transform(X, domain=domain), atol=1e-3)


def test_dts_comes_back_and_inverts(fitted, tmp_path):
    model, X, domain = fitted
    model.save(tmp_path / "encoder")
    again = neuro.load(tmp_path / "encoder")
    codes = model.transform(X, domain=domain)
    assert np.array_equal(again.transform(X, domain=domain), codes)
    assert np.array_equal(
        again.predict_proba(X, domain=domain), model.predict_proba(X, domain=domain)
    )
    bob = again.inverse_transform(codes, domain)[domain == "bob"]
    assert abs(bob.mean() - 10) < 2
    assert abs(again.inverse_transform(codes)[domain == "bob"].mean() - X.mean()) < 2
