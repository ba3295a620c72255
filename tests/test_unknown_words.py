"""Words of no training pair: the map, their mixtures, and a search for them."""

import numpy as np
import pytest

from modal_aware_jax.backbones.word_vectors import sum_of_words
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import Words
from modal_aware_jax.data.unknown_words import as_mixtures, fit_map, open_words

RANDOM = np.random.default_rng(0)


def test_the_map_is_ridge_regression_and_its_error_that_of_words_left_out():
    from sklearn.linear_model import Ridge

    inputs, targets = RANDOM.normal(size=(12, 4)), RANDOM.normal(size=(12, 3))
    targets[:, 0] += 3 * inputs[:, 1]
    errors = {}
    for ridge in (0.1, 10.0):
        rows = []
        for i in range(12):
            rest = np.arange(12) != i
            model = Ridge(alpha=ridge).fit(inputs[rest], targets[rest])
            rows.append(targets[i] - model.predict(inputs[i : i + 1])[0])
        errors[ridge] = np.mean(np.square(rows))
        found = fit_map(inputs, targets, ridges=[ridge])
        model = Ridge(alpha=ridge).fit(inputs, targets)
        np.testing.assert_allclose(found(inputs), model.predict(inputs), atol=1e-9)
        explained = 1 - errors[ridge] / targets.var(axis=0).mean()
        # Centred once for all: the mean of the others is not exactly left out.
        assert found.explained == pytest.approx(explained, abs=0.03)
    assert fit_map(inputs, targets, ridges=errors).ridge == min(errors, key=errors.get)
    with pytest.raises(ValueError, match="of the same words, at least 3"):
        fit_map(inputs, targets[:5])


def test_a_mixture_has_the_vector_and_counts_as_one_word():
    vectors, wanted = np.split(RANDOM.normal(size=(11, 4)).astype(np.float32), [9])
    mixtures = as_mixtures(wanted, vectors)
    np.testing.assert_allclose(mixtures.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(sum_of_words(mixtures, vectors), wanted, atol=1e-4)
    bag = np.eye(9, dtype=np.float32)[:1] + mixtures[:1]  # with another word
    both = (vectors[:1] + wanted[:1]) / np.sqrt(2)
    np.testing.assert_allclose(sum_of_words(bag, vectors), both, atol=1e-4)


class Model:
    """A sentence model whose vectors are twice ours, and whose words are counted."""

    digest = "abc"

    def __init__(self, vectors):
        self.vectors, self.asked = vectors, []

    def __call__(self, words):
        self.asked.append(list(words))
        return np.array([2 * self.vectors[word] for word in words])


def test_unknown_words_are_read_and_the_map_is_kept(tmp_path):
    vocabulary = [f"w{i}" for i in range(12)]
    vectors = RANDOM.normal(size=(12, 3)).astype(np.float32)
    bags = np.eye(12, dtype=np.uint8)
    pairs = Collection(
        "words", vocabulary, [b""] * 12, bags, vocabulary, bags, vocabulary, vocabulary
    )
    of_word = dict(zip(vocabulary, vectors, strict=True)) | {"new": np.ones(3)}
    model = Model(of_word)
    path = tmp_path / "map.npz"
    encoder = open_words(pairs, np.arange(11), vectors, model, path=path)
    assert model.asked == [vocabulary[:11]]  # no training pair has the last
    assert encoder.split("w3 new") == (["w3", "new"], [])
    bags = encoder.encode([["w3"], ["w3", "new", "new"], ["w11"], []])
    np.testing.assert_array_equal(bags[0], Words(pairs, vectors).encode([["w3"]])[0])
    assert model.asked[1:] == [["new", "w11"]] and not bags[3].any()
    assert bags[2, 11] == 0
    expected = np.stack([(of_word["w3"] + 1) / np.sqrt(2), of_word["w11"]])
    read = sum_of_words(bags[1:3], vectors)
    np.testing.assert_allclose(read, expected, atol=0.02)  # the ridge shrinks a little
    again = open_words(pairs, np.arange(11), vectors, Model(of_word), path=path)
    np.testing.assert_array_equal(again.encode([["new"]]), encoder.encode([["new"]]))
    other = Model(of_word)
    other.digest = "xyz"
    with pytest.raises(ValueError, match=r"another sentence model \(abc, the instal"):
        open_words(pairs, np.arange(11), vectors, other, path=path)
