"""Small NumPy encoders, as a third party would write them: they prove the contract."""

from __future__ import annotations

import numpy as np

from neuro.encoder import Encoder


class TinyPCA(Encoder):
    """Principal components of whole trials."""

    name = "tiny-pca"

    def __init__(self, n_latents=1, whiten=False):
        self.n_latents = n_latents
        self.whiten = whiten

    def fit(self, X, y=None, *, subject=None, session=None):
        values = self.start_fit(X, subject=subject, session=session)
        flat = values.reshape(len(values), -1).astype(np.float64)
        if len(flat) < 2:
            raise ValueError(f"n_samples={len(flat)}: principal components need two samples")
        self.mean_ = flat.mean(0)
        _, scale, components = np.linalg.svd(flat - self.mean_, full_matrices=False)
        n = min(self.n_latents, len(components))
        largest = np.abs(components[:n]).argmax(1)
        sign = np.sign(components[np.arange(n), largest])
        self.components_ = components[:n] * sign[:, None]
        self.scale_ = np.maximum(scale[:n] / np.sqrt(len(flat)), 1e-12)
        return self

    def transform(self, X):
        X = self.as_input(X)
        values = self.check_input(X)
        Z = (values.reshape(len(values), -1) - self.mean_) @ self.components_.T
        return self.wrap((Z / self.scale_ if self.whiten else Z).astype(np.float32), X)

    @property
    def _n_features_out(self):
        return len(self.components_)

    def state_dict_arrays(self):
        return {"mean": self.mean_, "components": self.components_, "scale": self.scale_}

    def load_state_arrays(self, arrays, preprocessing):
        self.mean_ = arrays["mean"]
        self.components_ = arrays["components"]
        self.scale_ = arrays["scale"]


class TinyPrior(Encoder):
    """Two parts: principal components, and the mean of their codes."""

    name = "tiny-prior"
    parts = ("base_",)

    def __init__(self, base=None):
        self.base = base

    def fit(self, X, y=None, **coords):
        self.start_fit(X, **coords)
        self.base_ = (self.base or TinyPCA()).fit(X, **coords)
        self.prior_ = np.asarray(self.base_.transform(X)).mean(0)
        return self

    def transform(self, X):
        X = self.as_input(X)
        return self.wrap(np.asarray(self.base_.transform(X)) - self.prior_, X)

    @property
    def _n_features_out(self):
        return len(self.prior_)

    def state_dict_arrays(self):
        return {"prior": self.prior_}

    def load_state_arrays(self, arrays, preprocessing):
        self.prior_ = arrays["prior"]
