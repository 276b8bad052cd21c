"""An encoder of two parts, with decode options of its own, for data (trial, iq, time)."""

from __future__ import annotations

import numpy as np

from neuro.encoder import DecodeOptions, Encoder


class BurstOptions(DecodeOptions):
    """What `neuro decode` accepts for this encoder."""

    scale: float = 1.0
    """Factor on the codes."""


class Energy(Encoder):
    """The first part: mean power of each of I and Q."""

    name = "toy-energy"
    dims = ("trial", "iq", "time")

    def __init__(self, gain=1.0):
        self.gain = gain

    def fit(self, X, y=None, **coords):
        self.level_ = self.start_fit(X, **coords).std(axis=(0, 2)) * self.gain
        return self

    def transform(self, X):
        X = self.as_input(X)
        return self.wrap((self.check_input(X) ** 2).mean(axis=2) / self.level_**2, X)

    @property
    def _n_features_out(self):
        return len(self.level_)

    def state_dict_arrays(self):
        return {"level": self.level_}

    def load_state_arrays(self, arrays, preprocessing):
        self.level_ = arrays["level"]


class TwoPart(Encoder):
    """Power, then the power's mean taken away: two parts in one file."""

    name = "toy-two-part"
    dims = ("trial", "iq", "time")
    parts = ("energy_",)
    DecodeOptions = BurstOptions

    def __init__(self, gain=1.0, seed=0):
        self.gain = gain
        self.seed = seed

    def fit(self, X, y=None, **coords):
        self.start_fit(X, **coords)
        self.energy_ = Energy(self.gain).fit(X, **coords)
        self.center_ = np.asarray(self.energy_.transform(X)).mean(axis=0)
        return self

    def transform(self, X):
        X = self.as_input(X)
        return self.wrap(np.asarray(self.energy_.transform(X)) - self.center_, X)

    def decode(self, path, options=None):
        options = options or self.DecodeOptions()
        found = super().decode(path, options)
        return found.assign(codes=found.codes * options.scale)

    @property
    def _n_features_out(self):
        return len(self.center_)

    def state_dict_arrays(self):
        return {"center": self.center_}

    def load_state_arrays(self, arrays, preprocessing):
        self.center_ = arrays["center"]
