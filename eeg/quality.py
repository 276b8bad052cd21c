"""What preprocessing did to one recording: figures, reasons and warnings in one JSON-able dict."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any


class Quality(dict[str, Any]):
    """Figures of one recording, filled step by step.

    Keys: ``recording, subject, file, kind ("raw" or "epochs"), sfreq_in, sfreq, n_channels,
    duration (s), bad_channels {name: reason}, interpolated, ica, events {name: count},
    epochs {"before": {condition: n}, "after": {condition: n}}, dropped {reason: n},
    done [step], skipped {step: why}, warnings``.

    Examples
    --------
    >>> quality = Quality(recording="sub-01")
    >>> quality.skip("baseline", "no sample before 0 s")
    >>> quality["skipped"]
    {'baseline': 'no sample before 0 s'}
    """

    def __init__(self, **facts: Any) -> None:
        super().__init__(
            bad_channels={},
            interpolated=[],
            ica=None,
            events={},
            epochs={"before": {}, "after": {}},
            dropped={},
            done=[],
            skipped={},
            warnings=[],
        )
        self.update(facts)

    def did(self, step: str) -> None:
        """Note a step that was applied."""
        self["done"].append(step)

    def skip(self, step: str, why: str) -> None:
        """Note a step that was asked for and could not be applied."""
        self["skipped"][step] = why

    def bad(self, channels: list[str], reason: str) -> None:
        """Note bad channels; a second reason is added to the first."""
        for name in channels:
            known = self["bad_channels"].get(name)
            self["bad_channels"][name] = f"{known}; {reason}" if known else reason

    def drop(self, reasons: Counter[str]) -> None:
        """Add dropped trials by reason."""
        for reason, n in sorted(reasons.items()):
            self["dropped"][reason] = self["dropped"].get(reason, 0) + n

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Turn the warnings raised inside into entries of ``warnings``, each once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            text = " ".join(str(warning.message).split())
            foreign = issubclass(warning.category, (DeprecationWarning, FutureWarning))
            if not foreign and text not in self["warnings"]:
                self["warnings"].append(text)
