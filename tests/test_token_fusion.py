"""Fusions of two sets of tokens, against loops over single numbers, and their masks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import token_loops as loops
from flax import nnx

from modal_aware_jax.fusion import (
    AsymmetricCoAttention,
    CoAttention,
    MergeAttention,
    SimilarityFusion,
)

FUSIONS = (SimilarityFusion, MergeAttention, CoAttention, AsymmetricCoAttention)
B, S, M, D = 4, 3, 5, 4
TEXT = np.asarray(jax.random.normal(jax.random.key(1), (B, S, D)))
IMAGE = np.asarray(jax.random.normal(jax.random.key(2), (B, M, D)))
# The second row has no image, the third no text, the fourth neither.
TEXT_MASK = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
IMAGE_MASK = np.array([[1, 0, 1, 1, 1], [0] * 5, [1, 1, 0, 0, 0], [0] * 5])
MASKS = {"text_mask": TEXT_MASK, "image_mask": IMAGE_MASK}


def fusion(kind, **arguments):
    layers = 2 if kind in (SimilarityFusion, MergeAttention) else 1  # time to compile
    return loops.randomised(
        lambda: kind(D, 2, num_layers=layers, rngs=nnx.Rngs(0), **arguments)
    )


def similarity_fusion(fuse, text, image, text_keep, image_keep):
    for layer in fuse.layers:
        read = loops.attention(text, image, image_keep, layer.text_attention)
        seen = loops.attention(image, text, text_keep, layer.image_attention)
        text = loops.layer_norm(text + read, layer.text_norm)
        image = loops.layer_norm(image + seen, layer.image_norm)
    return loops.mean_of(text, text_keep) + loops.mean_of(image, image_keep)


def sublayers(layer, x, keep, other=None, other_keep=None):
    x = loops.layer_norm(x + loops.attention(x, x, keep, layer.attention), layer.norm)
    if other is not None:
        read = loops.attention(x, other, other_keep, layer.cross)
        x = loops.layer_norm(x + read, layer.cross_norm)
    added = loops.feed_forward(x, layer.feed_forward.inner, layer.feed_forward.outer)
    return loops.layer_norm(x + added, layer.out_norm)


def merge_attention(fuse, text, image, text_keep, image_keep):
    of_text, of_image = np.asarray(fuse.modality[...], float)
    x, keep = np.concatenate([text + of_text, image + of_image]), text_keep + image_keep
    for layer in fuse.layers:
        x = sublayers(layer, x, keep)
    return loops.mean_of(x, keep)


def co_attention(fuse, text, image, text_keep, image_keep):
    for read, see in zip(fuse.text_layers, fuse.image_layers, strict=True):
        text, image = (
            sublayers(read, text, text_keep, image, image_keep),
            sublayers(see, image, image_keep, text, text_keep),
        )
    return loops.mean_of(text, text_keep) + loops.mean_of(image, image_keep)


def asymmetric_co_attention(fuse, text, image, text_keep, image_keep):
    if not any(text_keep):
        return loops.mean_of(image, image_keep)
    for layer in fuse.layers:
        text = sublayers(layer, text, text_keep, image, image_keep)
    return loops.mean_of(text, text_keep)


LOOPS = dict(
    zip(
        FUSIONS,
        (similarity_fusion, merge_attention, co_attention, asymmetric_co_attention),
        strict=True,
    )
)


@pytest.mark.parametrize("kind", FUSIONS)
def test_equals_the_equations_by_loops(kind):
    fuse = fusion(kind)
    found = loops.run(fuse, TEXT, IMAGE, **MASKS)
    assert found.shape == (B, fuse.features) == (B, D)
    for row in range(B):
        rows = np.asarray(TEXT[row], float), np.asarray(IMAGE[row], float)
        keeps = TEXT_MASK[row].tolist(), IMAGE_MASK[row].tolist()
        expected = LOOPS[kind](fuse, *rows, *keeps)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-4)
    assert (found[3] == 0).all() and (found[:3] != 0).all()


@pytest.mark.parametrize("kind", FUSIONS)
def test_padding_has_no_say_and_a_step_changes_every_parameter(kind):
    fuse = fusion(kind)
    text = np.where(TEXT_MASK[..., None] == 0, np.nan, TEXT)
    image = np.where(IMAGE_MASK[..., None] == 0, np.inf, IMAGE)
    np.testing.assert_array_equal(
        loops.run(fuse, text, image, **MASKS), loops.run(fuse, TEXT, IMAGE, **MASKS)
    )
    by_weight, by_token = loops.gradients(fuse, text, image, **MASKS)
    chex.assert_tree_all_finite((by_weight, by_token))
    for path, leaf in jax.tree.leaves_with_path(by_weight):
        assert np.any(leaf), path
    for gradient, mask in zip(by_token, MASKS.values(), strict=True):
        np.testing.assert_array_equal(gradient[mask == 0], 0)
        assert np.any(gradient[mask != 0])
    huge = loops.gradients(fuse, 1e4 * TEXT, 0 * IMAGE, **MASKS)
    chex.assert_tree_all_finite(huge)


@pytest.mark.parametrize("kind", FUSIONS)
def test_without_masks_all_tokens_count_in_any_order(kind):
    fuse = fusion(kind)
    found = loops.run(fuse, TEXT, IMAGE)
    ones = {"text_mask": np.ones((B, S)), "image_mask": np.ones((B, M), bool)}
    np.testing.assert_allclose(
        loops.run(fuse, TEXT, IMAGE, **ones), found, rtol=1e-5, atol=1e-5
    )
    order = np.array([2, 0, 1]), np.array([4, 2, 0, 1, 3])
    moved = loops.run(fuse, TEXT[:, order[0]], IMAGE[:, order[1]])
    np.testing.assert_allclose(moved, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", FUSIONS)
def test_bfloat16_is_close(kind):
    narrow = loops.run(
        fusion(kind, dtype=jnp.bfloat16),
        *(x.astype(jnp.bfloat16) for x in (TEXT, IMAGE)),
        **MASKS,
    )
    assert narrow.dtype == jnp.bfloat16
    wide = loops.run(fusion(kind), TEXT, IMAGE, **MASKS)
    assert np.abs(narrow.astype(jnp.float32) - wide).mean() < 0.05


@pytest.mark.parametrize("kind", FUSIONS)
def test_wrong_shapes_are_named(kind):
    fuse = fusion(kind)
    with pytest.raises(ValueError, match=rf"{kind.__name__} expects text tokens"):
        fuse(TEXT[:, :, :3], IMAGE)
    with pytest.raises(ValueError, match=rf"{kind.__name__} expects image_mask"):
        fuse(TEXT, IMAGE, image_mask=TEXT_MASK)


def test_similarity_fusion_adds_before_pooling_where_tokens_are_as_many():
    """The paper's order: add the two sets, then pool."""
    fuse = fusion(SimilarityFusion)
    image = IMAGE[:, :S]
    streams = jax.jit(lambda t, i: fuse.layers[1](*fuse.layers[0](t, i)))(TEXT, image)
    added = np.asarray(streams[0]) + np.asarray(streams[1])
    np.testing.assert_allclose(
        loops.run(fuse, TEXT, image), added.mean(axis=1), rtol=1e-5, atol=1e-5
    )
