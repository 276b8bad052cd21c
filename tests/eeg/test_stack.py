"""Conditions side by side: nothing is used twice, subjects don't mix."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eeg.simulate import simulate_cohort
from eeg.stack import stack_conditions
from neuro.errors import DataError, InputError


@pytest.fixture(scope="module")
def cohort():
    data = simulate_cohort(3, 4, channels=("Fz", "Pz"), sfreq=32.0)
    marked = np.broadcast_to(np.arange(data.sizes["trial"])[:, None, None], data.signal.shape)
    return data.assign(signal=(data.signal.dims, marked.astype(np.float32)))


def test_pairs_are_of_one_subject_and_both_conditions(cohort):
    stacked = stack_conditions(cohort, random_state=1)
    rows = stacked.signal.values[:, :, 0].astype(int)
    neutral, pleasant = rows[:, 0], rows[:, 2]
    assert_array_equal(rows[:, 1], neutral)
    assert len(set(neutral) | set(pleasant)) == cohort.sizes["trial"]
    assert (cohort.condition.values[neutral] == "neutral").all()
    assert (cohort.condition.values[pleasant] == "pleasant").all()
    for own in (neutral, pleasant):
        assert_array_equal(cohort.subject.values[own], stacked.subject.values)
    assert_array_equal(stacked["truth"].values[:, :2], cohort["truth"].values[neutral])
    assert set(stacked.condition.values) == {"neutral + pleasant"}
    assert "positions" not in stacked.attrs
    again = stack_conditions(cohort, random_state=1)
    assert_array_equal(again.signal, stacked.signal)
    assert (stack_conditions(cohort, random_state=2).signal.values != stacked.signal.values).any()


def test_the_surplus_and_subjects_without_a_condition_are_left_out(cohort):
    gone = (cohort.subject == "sub-01") & (cohort.condition == "neutral")
    gone |= (
        (cohort.subject == "sub-02") & (np.arange(24) % 2 == 1) & (cohort.condition == "neutral")
    )
    part = cohort.isel(trial=np.flatnonzero(~gone.values))
    with pytest.warns(UserWarning, match="sub-01"):
        stacked = stack_conditions(part)
    n = int(((part.subject == "sub-02") & (part.condition == "neutral")).sum())
    assert (stacked.subject == "sub-02").sum() == n
    assert "sub-01" not in stacked.subject.values


def test_conditions_must_be_there(cohort):
    with pytest.raises(InputError, match="sad"):
        stack_conditions(cohort, ["neutral", "sad"])
    with pytest.raises(InputError, match="two"):
        stack_conditions(cohort, ["neutral"])
    apart = (cohort.subject == "sub-01") == (cohort.condition == "neutral")
    with pytest.raises(DataError, match="no subject"):
        stack_conditions(cohort.isel(trial=np.flatnonzero(apart.values)))
