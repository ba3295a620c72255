"""The text that fusion reads: plain, or each feature standardised."""

import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.preprocessing import StandardScaler

from modal_aware_jax.backbones.text_vector import PlainText, StandardText
from modal_aware_jax.models import TextHashing

# Features whose means and scales differ, none of them near batch norm's epsilon.
TEXT = np.random.default_rng(0).normal([0.0, 1.0, -9.0], [0.1, 1.0, 50.0], (64, 3))
TEXT = TEXT.astype(np.float32)


def test_the_plain_text_is_the_text():
    text = PlainText(3, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(text(TEXT, train=True), TEXT)


def test_a_training_batch_is_standardised_feature_by_feature():
    text = StandardText(3, rngs=nnx.Rngs(0))
    expected = StandardScaler().fit_transform(TEXT.astype(np.float64))
    np.testing.assert_allclose(text(TEXT, train=True), expected, atol=2e-3)
    assert not jax.tree.leaves(nnx.state(text, nnx.Param))  # nothing to train


def test_evaluation_uses_what_training_saw():
    text = StandardText(3, rngs=nnx.Rngs(0))
    for _ in range(100):
        trained = text(TEXT, train=True)
    alone = np.concatenate([text(row[None], train=False) for row in TEXT])
    np.testing.assert_allclose(alone, trained, atol=5e-2)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_network_reads_it_whatever_its_scale(scale):
    """Text weights made larger change nothing of what the hash head is given."""
    model = TextHashing(
        3, 8, text_widths=(16, 4), text_vector=StandardText, rngs=nnx.Rngs(0)
    )
    # Large enough at the start that batch norm's epsilon plays no part.
    model.text.dense_wide.kernel[...] = model.text.dense_wide.kernel[...] * 100
    model.text.dense_narrow.kernel[...] = model.text.dense_narrow.kernel[...] * 100
    expected = model(None, TEXT, train=True)
    model.text.dense_narrow.kernel[...] = model.text.dense_narrow.kernel[...] * scale
    np.testing.assert_allclose(model(None, TEXT, train=True), expected, atol=2e-3)
