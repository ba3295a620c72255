"""Similarity interaction against loops over single numbers, its masks and extremes."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import token_loops as loops
from flax import nnx

from modal_aware_jax.blocks.guided_feed_forward import ImageWiseFeedForward
from modal_aware_jax.blocks.similarity_interaction import (
    AskedByOther,
    SimilarityInteraction,
    element_similarity,
    interpolate,
    mean_one_similarity,
    modality_similarity,
    sigmoid_similarity,
)
from modal_aware_jax.blocks.token_attention import TokenAttention, masked_mean

B, S, M, D = 3, 4, 5, 6
TEXT = np.asarray(jax.random.normal(jax.random.key(1), (B, S, D)))
IMAGE = np.asarray(jax.random.normal(jax.random.key(2), (B, M, D)))
# The second row has no image, the third no text.
TEXT_MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
IMAGE_MASK = np.array([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
MASKS = {"text_mask": TEXT_MASK, "image_mask": IMAGE_MASK}


def interaction(**arguments):
    return loops.randomised(
        lambda: SimilarityInteraction(D, 2, 7, rngs=nnx.Rngs(0), **arguments)
    )


def run(module, text=TEXT, image=IMAGE, **arguments):
    return loops.run(module, text, image, **arguments)


def by_loops(block, text, image, text_keep, image_keep, *, wise="text"):
    """One sample, equation by equation."""
    text = np.where(np.array(text_keep)[:, None], text, 0)
    image = np.where(np.array(image_keep)[:, None], image, 0)
    product = loops.mean_of(text, text_keep) * loops.mean_of(image, image_keep)
    share = np.array(loops.softmax(list(product)))
    if not (any(text_keep) and any(image_keep)):
        share = 0 * share

    def aware(own, other, own_keep, other_keep, self_attention, cross, norm):
        mine = loops.attention(own, own, own_keep, self_attention)
        theirs = loops.attention(own, other, other_keep, cross.attention)
        mixed = np.array(
            [
                [
                    theirs[n, d] * share[d] + mine[n, d] * (1 - share[d])
                    for d in range(D)
                ]
                for n in range(len(own))
            ]
        )
        return loops.layer_norm(mixed + own, norm)

    keeps = text_keep, image_keep
    text_aware = aware(
        text, image, *keeps, block.text_self, block.text_cross, block.text_norm
    )
    image_aware = aware(
        image, text, *keeps[::-1], block.image_self, block.image_cross, block.image_norm
    )

    def alike(own, other, other_keep, values):
        rows = []
        for x in own:
            kept = [m for m in range(len(other)) if other_keep[m]]
            scores = [sum(x[d] * other[m][d] for d in range(D)) for m in kept]
            weights = loops.softmax(scores) if kept else []
            row = [0.0] * D
            for weight, m in zip(weights, kept, strict=True):
                row = [r + weight * v for r, v in zip(row, values[m], strict=True)]
            rows.append(row)
        return rows

    ff = block.feed_forward
    guided = {"text": [None, None], "image": [None, None]}
    if wise == "text":
        found = alike(text, image, image_keep, image_aware)
        guided["text"] = [ff.text.guide, found]
    else:
        found = alike(image, text, text_keep, text_aware)
        guided["image"] = [ff.image.guide, found]
    text_added = loops.feed_forward(
        text_aware, ff.text.inner, ff.text.outer, *guided["text"]
    )
    image_added = loops.feed_forward(
        image_aware, ff.image.inner, ff.image.outer, *guided["image"]
    )
    text = loops.layer_norm(text_aware + text_added, block.text_out_norm)
    image = loops.layer_norm(image_aware + image_added, block.image_out_norm)
    text[~np.array(text_keep, bool)] = 0
    image[~np.array(image_keep, bool)] = 0
    return text, image


@pytest.mark.parametrize("wise", ["text", "image"])
def test_equals_the_equations_by_loops(wise):
    block = interaction(
        **({"feed_forward": ImageWiseFeedForward} if wise == "image" else {})
    )
    text, image = run(block, **MASKS)
    for row in range(B):
        expected = by_loops(
            block,
            np.asarray(TEXT[row], float),
            np.asarray(IMAGE[row], float),
            TEXT_MASK[row].tolist(),
            IMAGE_MASK[row].tolist(),
            wise=wise,
        )
        np.testing.assert_allclose(text[row], expected[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(image[row], expected[1], rtol=1e-4, atol=1e-4)


def test_shares_by_hand():
    text, image = jnp.array([[0.0, math.log(3)]]), jnp.array([[5.0, 1.0]])
    np.testing.assert_allclose(modality_similarity(text, image), [[0.25, 0.75]], 1e-6)
    np.testing.assert_allclose(mean_one_similarity(text, image), [[0.5, 1.5]], 1e-6)
    np.testing.assert_allclose(sigmoid_similarity(text, image), [[0.5, 0.75]], 1e-6)
    for share in (modality_similarity, mean_one_similarity, sigmoid_similarity):
        np.testing.assert_array_equal(share(text, image), share(image, text))
        assert np.isfinite(share(1e30 * text, image)).all()
        with pytest.raises(ValueError, match=rf"{share.__name__}.*\(1, 2\) and \(2,\)"):
            share(text, image[0])


def test_element_similarity_by_hand():
    text = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    image = jnp.array([[[math.log(3), 0.0], [0.0, 0.0], [9.0, 9.0]]])
    rows = element_similarity(text, image, jnp.array([[1, 1, 0]]))
    np.testing.assert_allclose(rows, [[[0.75, 0.25, 0], [0.5, 0.5, 0]]], rtol=1e-6)
    rows = element_similarity(TEXT, IMAGE, IMAGE_MASK)
    np.testing.assert_allclose(rows.sum(-1)[:, 0], [1, 0, 1], rtol=1e-6)
    # Permuting the image's tokens permutes the columns.
    order = np.array([4, 2, 0, 1, 3])
    np.testing.assert_allclose(
        element_similarity(TEXT, IMAGE[:, order]),
        element_similarity(TEXT, IMAGE)[:, :, order],
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match=r"element_similarity.*\(3, 4, 6\)"):
        element_similarity(TEXT, IMAGE[:, :, :5])


def test_interpolate_by_hand_and_with_one_share_for_all_tokens():
    cross, own = jnp.array([[[4.0, 4.0], [0.0, 0.0]]]), jnp.array([[[0.0, 8.0]] * 2])
    expected = [[[1.0, 6.0], [0.0, 4.0]]]
    share = jnp.array([[0.25, 0.5]])
    np.testing.assert_array_equal(interpolate(cross, own, share), expected)
    wide = jnp.broadcast_to(share[:, None], cross.shape)
    np.testing.assert_array_equal(interpolate(cross, own, wide), expected)


def test_padding_has_no_say_in_values_or_gradients():
    block = interaction()
    noise = np.where(TEXT_MASK[..., None] == 0, np.nan, TEXT)
    bad = np.where(IMAGE_MASK[..., None] == 0, np.inf, IMAGE)
    chex.assert_trees_all_equal(run(block, noise, bad, **MASKS), run(block, **MASKS))

    by_weight, (by_text, by_image) = loops.gradients(block, noise, bad, **MASKS)
    chex.assert_tree_all_finite((by_weight, by_text, by_image))
    np.testing.assert_array_equal(by_text[TEXT_MASK == 0], 0)
    np.testing.assert_array_equal(by_image[IMAGE_MASK == 0], 0)


def test_longer_padding_changes_nothing():
    block = interaction()
    text, image = run(block, **MASKS)
    longer = np.pad(TEXT, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
    mask = np.pad(TEXT_MASK, ((0, 0), (0, 3)))
    text_again, image_again = run(block, longer, text_mask=mask, image_mask=IMAGE_MASK)
    np.testing.assert_allclose(text_again[:, :S], text, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(image_again, image, rtol=1e-5, atol=1e-5)


def test_without_the_other_modality_a_row_keeps_its_self_attention():
    block = interaction()
    shares = block.shares(TEXT, IMAGE, TEXT_MASK, IMAGE_MASK)
    assert (shares[0] > 0).all() and (shares[1:] == 0).all()
    text, image = run(block, **MASKS)
    other_text, _ = run(block, TEXT, IMAGE + 1, **MASKS)
    np.testing.assert_array_equal(text[1], other_text[1])
    assert (image[1] == 0).all() and (text[2] == 0).all()
    assert np.abs(text[1]).min() > 0 and np.abs(image[2, :2]).min() > 0


def test_without_masks_all_tokens_count():
    block = interaction()
    ones = {"text_mask": np.ones((B, S)), "image_mask": np.ones((B, M), bool)}
    chex.assert_trees_all_close(run(block), run(block, **ones), atol=1e-6)
    order = np.array([4, 2, 0, 1, 3])  # tokens have no order
    text, image = run(block)
    moved = run(block, TEXT, IMAGE[:, order])
    chex.assert_trees_all_close(moved, (text, image[:, order]), atol=1e-5)


def test_with_one_vector_each_no_attention_attends():
    """Eq. 9 as printed: all weights are 1, queries and keys are idle."""
    text, image = TEXT[:, :1], IMAGE[:, :1]
    block = interaction(cross=AskedByOther)
    found = loops.run(block.text_cross, text, image)
    for row in range(B):  # cross-attention is a linear map of the own vector
        value, out = (getattr(block.text_cross.attention, n) for n in ("value", "out"))
        expected = loops.dense(loops.dense(text[row, 0], value), out)
        np.testing.assert_allclose(found[row, 0], expected, rtol=1e-4, atol=1e-5)

    by_weight, _ = loops.gradients(block, text, image)
    for path, leaf in jax.tree.leaves_with_path(by_weight):
        idle = any(p.key in ("query", "key") for p in path)
        # One logit's softmax has derivative w − w², exactly 0 at w = 1.
        assert np.any(leaf) != idle, path
    # The usual form reads the other vector, the printed one its own.
    usual = interaction().text_cross
    one, other = (loops.run(usual, text, x) for x in (image, image + 1))
    assert np.abs(one - other).max() > 0.1
    np.testing.assert_array_equal(loops.run(block.text_cross, text, image + 1), found)


def test_the_printed_form_fits_only_equally_many_tokens():
    block = interaction(cross=AskedByOther)
    assert run(block, TEXT, IMAGE[:, :S])[1].shape == (B, S, D)
    with pytest.raises(ValueError, match=r"eq. 9 as printed.*Pool both"):
        block(TEXT, IMAGE)


def test_a_step_changes_every_parameter_and_bfloat16_is_close():
    block = interaction()
    by_weight, _ = loops.gradients(block, TEXT, IMAGE, **MASKS)
    for path, leaf in jax.tree.leaves_with_path(by_weight):
        assert np.isfinite(leaf).all() and np.any(leaf), path

    narrow = interaction(dtype=jnp.bfloat16)
    wide = run(block, **MASKS)
    made = run(narrow, TEXT.astype(jnp.bfloat16), IMAGE.astype(jnp.bfloat16), **MASKS)
    assert all(x.dtype == jnp.bfloat16 for x in made)
    error = [
        np.abs(a.astype(jnp.float32) - b).mean()
        for a, b in zip(made, wide, strict=True)
    ]
    assert max(error) < 0.05, error


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extremes_stay_finite(scale):
    block = interaction()

    arrays = scale * TEXT, scale * IMAGE
    chex.assert_tree_all_finite(run(block, *arrays, **MASKS))
    chex.assert_tree_all_finite(loops.gradients(block, *arrays, **MASKS))


def test_dropout_drops_in_training_only_and_asks_for_randomness():
    block = interaction(dropout_rate=0.5)

    @jax.jit
    def train(key):
        return block(TEXT, IMAGE, train=True, rngs=nnx.Rngs(dropout=key))

    first, second = (train(jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(first[0] - second[0]).max() > 0
    with pytest.raises(ValueError, match="SimilarityInteraction: training needs fresh"):
        jax.eval_shape(lambda: block(TEXT, IMAGE, train=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": TEXT[:, :, :5]}, r"text tokens \[B, S, 6\].*got \(3, 4, 5\)"),
        ({"image": IMAGE[:2]}, r"got \(3, 4, 6\) and \(2, 5, 6\)"),
        ({"image": IMAGE[:, :0]}, "one masked token"),
        ({"text_mask": IMAGE_MASK}, r"text_mask \[B, S\] = \(3, 4\), got \(3, 5\)"),
        ({"image_mask": TEXT_MASK}, r"image_mask \[B, M\] = \(3, 5\), got \(3, 4\)"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    block = SimilarityInteraction(D, 2, 7, rngs=nnx.Rngs(0))
    given = {"text": TEXT, "image": IMAGE, **change}
    with pytest.raises(ValueError, match=rf"SimilarityInteraction expects .*{message}"):
        block(given.pop("text"), given.pop("image"), **given)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="8 features and 3 heads"):
        TokenAttention(8, 3, rngs=nnx.Rngs(0))


def test_the_mean_of_bfloat16_tokens_is_not_summed_in_bfloat16():
    tokens = jnp.ones((1, 600, 1), jnp.bfloat16)
    assert masked_mean(tokens, jnp.ones((1, 600)))[0, 0] == 1
