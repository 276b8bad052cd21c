"""What an encoder was fitted on, as hashes: scoring on it is refused, decoding flags it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuro.items import trial_hashes


class Seen(NamedTuple):
    """Which trials of new data an encoder knows from its training.

    Attributes
    ----------
    trials : ndarray of bool, shape (trial,)
        The trial's content was in the training data.
    subjects : ndarray of bool, shape (trial,)
        The trial's subject was; False where subjects aren't named.
    sessions : ndarray of bool, shape (trial,)
        The trial's session of that subject was.
    """

    trials: NDArray[np.bool_]
    subjects: NDArray[np.bool_]
    sessions: NDArray[np.bool_]

    @property
    def any(self) -> NDArray[np.bool_]:
        """True where the trial, or its subject, was trained on; shape (trial,)."""
        return self.trials | self.subjects


@dataclass
class FittedOn:
    """Hashes of subjects, sessions and trials.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(6, dtype="float32").reshape(3, 2)
    >>> fitted = FittedOn.of(X[:2], subject=["a", "b"])
    >>> fitted.seen(X, subject=["a", "c", "b"]).trials.tolist()
    [True, True, False]
    >>> fitted.seen(X, subject=["a", "c", "b"]).subjects.tolist()
    [True, False, True]
    """

    subjects: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    trials: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        X: NDArray[Any],
        subject: ArrayLike | None = None,
        session: ArrayLike | None = None,
    ) -> FittedOn:
        """Hash the trials `X (trial, ...)` and, where named, their subjects and sessions."""
        return cls(
            subjects=_unique(_subjects(subject)),
            sessions=_unique(_sessions(subject, session)),
            trials=_unique(trial_hashes(X)),
        )

    def seen(
        self,
        X: NDArray[Any],
        subject: ArrayLike | None = None,
        session: ArrayLike | None = None,
    ) -> Seen:
        """Compare new trials with the training data; see `Seen`."""
        return Seen(
            _known(trial_hashes(X), self.trials, len(X)),
            _known(_subjects(subject), self.subjects, len(X)),
            _known(_sessions(subject, session), self.sessions, len(X)),
        )

    def to_dict(self) -> dict[str, list[str]]:
        """Return plain lists for JSON."""
        return {"subjects": self.subjects, "sessions": self.sessions, "trials": self.trials}

    @classmethod
    def from_dict(cls, stored: dict[str, list[str]]) -> FittedOn:
        """Rebuild from `to_dict`."""
        return cls(**{name: list(stored[name]) for name in ("subjects", "sessions", "trials")})


def _subjects(subject: ArrayLike | None) -> list[str]:
    """Hash names of subjects; an empty name says that the subject isn't known."""
    if subject is None:
        return []
    return [_hash(name) if name else "" for name in np.asarray(subject).astype(str).tolist()]


def _sessions(subject: ArrayLike | None, session: ArrayLike | None) -> list[str]:
    if subject is None or session is None:
        return []
    pairs = zip(np.asarray(subject).astype(str), np.asarray(session).astype(str), strict=True)
    # "session 1" of another subject is another session, so the subject is part of the name.
    return [_hash(f"{s}\0{t}") if s and t else "" for s, t in pairs]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _unique(hashes: Iterable[str]) -> list[str]:
    return sorted(set(hashes) - {""})


def _known(hashes: list[str], known: list[str], n: int) -> NDArray[np.bool_]:
    if not hashes:
        return np.zeros(n, dtype=bool)
    lookup = set(known)
    return np.fromiter((h in lookup for h in hashes), dtype=bool, count=n)
