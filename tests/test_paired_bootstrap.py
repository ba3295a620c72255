"""The interval against theory and hand cases."""

import numpy as np
import pytest

from modal_aware_jax.report.paired_bootstrap import paired_bootstrap


def test_agrees_with_the_normal_interval_on_many_queries():
    random = np.random.default_rng(0)
    theirs = random.uniform(size=4000)
    ours = theirs + random.normal(0.02, 0.3, size=4000)
    interval = paired_bootstrap(ours, theirs)
    half = 1.96 * np.std(ours - theirs, ddof=1) / np.sqrt(4000)
    assert interval.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert interval.low == pytest.approx(interval.mean - half, abs=half * 0.05)
    assert interval.high == pytest.approx(interval.mean + half, abs=half * 0.05)


def test_pairing_matters_and_one_query_is_its_own_interval():
    scores = np.random.default_rng(0).uniform(size=500)
    interval = paired_bootstrap(scores + 0.01, scores)  # the same lead everywhere
    np.testing.assert_allclose(interval, [0.01] * 3)
    np.testing.assert_allclose(paired_bootstrap([0.5], [0.25]), [0.25] * 3)


def test_refuses_queries_that_differ():
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3,\)"):
        paired_bootstrap([1, 2], [1, 2, 3])
