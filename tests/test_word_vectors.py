"""Words as vectors: counted and summed by loops, read by a network, never trained."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax.backbones.word_vectors import WordVectorMLP, sum_of_words
from modal_aware_jax.data.word_vectors import cooccurrence_vectors, model_vectors

BAGS = (np.random.RandomState(0).rand(40, 9) < 0.35).astype(np.uint8)
BAGS[:, 8] = 0  # a word of no document


def information(bags):
    """Positive pointwise mutual information by loops over documents and words."""
    documents = [set(np.flatnonzero(row)) for row in bags]
    size = bags.shape[1]
    found = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            both = sum(i in words and j in words for words in documents)
            ones = [sum(k in words for words in documents) + 1 for k in (i, j)]
            if both:
                found[i, j] = max(0, math.log(both * len(bags) / (ones[0] * ones[1])))
    return found


def test_all_eigenvectors_give_back_the_information():
    vectors = cooccurrence_vectors(BAGS, features=9).astype(float)
    assert vectors.mean(axis=0) == pytest.approx(np.zeros(9), abs=1e-6)
    assert vectors.std() == pytest.approx(1, abs=1e-6)
    expected = information(BAGS)
    values, columns = np.linalg.eigh(expected)
    # With the |eigenvalues| the vectors' products are |M|, up to centring and scale.
    rows = columns * np.sqrt(abs(values))
    rows = rows - rows.mean(axis=0)
    products = rows @ rows.T / rows.std() ** 2
    np.testing.assert_allclose(vectors @ vectors.T, products, atol=1e-4)


def test_words_that_stand_together_are_near_and_strangers_alike():
    bags = np.zeros((60, 7), np.uint8)
    bags[:30, [0, 1]] = 1
    bags[30:, [2, 3]] = 1
    bags[::3, 4] = 1
    vectors = cooccurrence_vectors(bags, features=3)
    assert vectors.shape == (7, 3)
    away = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert away[0, 1] < 1e-3 < away[0, 2] and away[2, 3] < 1e-3
    assert away[5, 6] == 0  # of no document


def test_a_words_sign_does_not_hang_on_the_machine():
    again = cooccurrence_vectors(BAGS[::-1], features=4)
    np.testing.assert_allclose(again, cooccurrence_vectors(BAGS, features=4), atol=1e-4)


def test_refuses_what_is_no_bag():
    with pytest.raises(ValueError, match=r"expected bags \[N, T\].*got \(3,\)"):
        cooccurrence_vectors(np.ones(3))


def test_each_word_is_a_sentence_to_the_model():
    read = []

    def model(words):
        read.extend(words)
        return np.array([[len(word), 1.0] for word in words], np.float32)

    vectors = model_vectors(("a", "bcd"), model)
    assert read == ["a", "bcd"]
    np.testing.assert_allclose(vectors, [[-(2**0.5), 0], [2**0.5, 0]], atol=1e-6)


def test_the_sum_by_loops_and_nothing_for_no_words():
    vectors = np.random.RandomState(1).normal(size=(9, 4)).astype(np.float32)
    summed = np.asarray(jax.jit(sum_of_words)(BAGS, vectors))
    for row, bag in zip(summed, BAGS, strict=True):
        words = np.flatnonzero(bag)
        expected = (
            sum((vectors[w] for w in words), np.zeros(4)) / max(len(words), 1) ** 0.5
        )
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert not np.asarray(sum_of_words(np.zeros((1, 9)), vectors)).any()


def test_the_vectors_are_no_parameters_and_the_layers_are():
    vectors = np.eye(9, 4, dtype=np.float32)
    network = WordVectorMLP(9, (6, 3), vectors=vectors, rngs=nnx.Rngs(0))
    paths = [
        "/".join(map(str, p))
        for p, _ in nnx.to_flat_state(nnx.state(network, nnx.Param))
    ]
    assert sorted(paths) == [
        f"mlp/dense_{name}/{part}"
        for name in ("narrow", "wide")
        for part in ("bias", "kernel")
    ]
    same = network.mlp(sum_of_words(BAGS, vectors))
    np.testing.assert_allclose(network(BAGS), same, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda n: n(np.ones((2, 8))), r"bags \[B, 9\], got \(2, 8\)"),
        (
            lambda n: WordVectorMLP(9, (6, 3), vectors=np.eye(4), rngs=nnx.Rngs(0)),
            r"vectors of 9 words, \[T, D\], got \(4, 4\)",
        ),
    ],
)
def test_refuses_other_widths(call, message):
    network = WordVectorMLP(9, (6, 3), vectors=np.eye(9), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        call(network)
