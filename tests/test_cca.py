"""Canonical correlations against scikit-learn and against their definition."""

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from modal_aware_jax.models.cca import fit_cca
from modal_aware_jax.retrieval.matching import recall_at


def pairs(count=300, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(count, 3)) * [3.0, 2.0, 1.0]
    image = shared @ rng.normal(size=(3, 5)) + noise * rng.normal(size=(count, 5))
    text = shared @ rng.normal(size=(3, 4)) + noise * rng.normal(size=(count, 4))
    return image + 7, text * [1, 10, 100, 0.1] - 3


def test_correlations_and_projections_are_scikit_learns():
    image, text = pairs()
    ours = fit_cca(image, text, 3)
    both = CCA(n_components=3, max_iter=10_000, tol=1e-14).fit(image, text)
    theirs = both.transform(image, text)
    for k in range(3):
        for a, b in zip(
            (ours.embed_image(image), ours.embed_text(text)), theirs, strict=True
        ):  # up to sign and scale
            assert abs(np.corrcoef(a[:, k], b[:, k])[0, 1]) > 1 - 1e-9
        correlation = np.corrcoef(theirs[0][:, k], theirs[1][:, k])[0, 1]
        assert ours.correlations[k] == pytest.approx(correlation, rel=1e-9)


def test_coordinates_have_variance_one_and_correlate_in_pairs_only():
    image, text = pairs()
    fit = fit_cca(image, text, 4)
    x, y = fit.embed_image(image), fit.embed_text(text)
    both = np.corrcoef(np.concatenate([x, y], axis=1).T)
    expected = np.block([[np.eye(4), np.diag(fit.correlations)]] * 2)
    expected[4:] = np.block([[np.diag(fit.correlations), np.eye(4)]])
    np.testing.assert_allclose(both, expected, atol=1e-8)
    np.testing.assert_allclose(x.var(axis=0, ddof=1), np.ones(4), rtol=1e-8)
    np.testing.assert_allclose(x.mean(axis=0), np.zeros(4), atol=1e-8)
    weighted = fit.embed_image(image, power=4)
    np.testing.assert_allclose(weighted, x * fit.correlations**4)


def test_units_do_not_matter_and_regularisation_tames_many_features():
    image, text = pairs()
    plain = fit_cca(image, text, 3, regularization=0.1)
    scaled = fit_cca(image * 1000, text, 3, regularization=0.1)
    np.testing.assert_allclose(plain.correlations, scaled.correlations, rtol=1e-8)
    # 60 features of noise for 80 pairs: without a ridge everything correlates.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 80, 60))
    chance = fit_cca(x, y, 1).correlations[0]
    tamed = fit_cca(x, y, 1, regularization=10.0).correlations[0]
    assert chance > 0.99 and tamed < 0.5


def test_it_finds_the_texts_of_new_images():
    image, text = pairs(count=400, noise=0.1)
    fit = fit_cca(image[:300], text[:300], 3)
    x, y = fit.embed_image(image[300:], power=1), fit.embed_text(text[300:], power=1)
    groups = np.arange(100)
    assert recall_at(x, y, groups, groups, ks=(5,))[0] > 0.5


def test_what_has_no_solution_is_named():
    image, text = pairs()
    with pytest.raises(ValueError, match=r"same N >= 2, got \(300, 5\) and \(299, 4\)"):
        fit_cca(image, text[1:], 2)
    with pytest.raises(ValueError, match="from 1 to 4, the narrower side, got 5"):
        fit_cca(image, text, 5)
    with pytest.raises(ValueError, match=r"of image is singular \(5 features, 4 pairs"):
        fit_cca(image[:4], text[:4], 1)
    assert np.isfinite(
        fit_cca(image[:4], text[:4], 1, regularization=0.1).image_map
    ).all()
    with pytest.raises(ValueError, match="regularization >= 0, got -1"):
        fit_cca(image, text, 2, regularization=-1)
    with pytest.raises(ValueError, match="text holds NaN"):
        fit_cca(image, text * np.nan, 2)
    with pytest.raises(ValueError, match=r"image rows \[B, 5\], got \(300, 4\)"):
        fit_cca(image, text, 2).embed_image(text)
