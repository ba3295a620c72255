"""ViT, BERT and CLIP as modules: masks, sizes, dropout, training, Linen.

What they compute is compared with other libraries in `test_from_pretrained.py`.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax import BERT, CLIP, ViT, linen
from modal_aware_jax.backbones.clip import BERTText, CLIPImage, CLIPText
from modal_aware_jax.backbones.positions import cubic_weights, resize_positions
from modal_aware_jax.backbones.transformer import (
    Attention,
    attend,
    gelu,
    gelu_tanh,
    quick_gelu,
)

# Half the time to compile; the sums are the same.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"num_layers": 1, "num_heads": 2}


def build(kind, *args, **arguments):
    """A module, its initial weights compiled in one program."""
    return nnx.jit(lambda: kind(*args, **arguments, rngs=nnx.Rngs(0)))()


@pytest.fixture(scope="module")
def bert():
    return build(BERT, 20, 8, **SMALL, max_length=6, dropout_rate=0.5)


@pytest.fixture(scope="module")
def vit():
    return build(ViT, 8, 4, 8, **SMALL, dropout_rate=0.5)


IDS = np.array([[3, 7, 9, 4], [3, 5, 4, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


def softmax_loop(query, key, value, num_heads, readable):
    """Attention by loops over heads and positions, in float64."""
    width = query.shape[-1] // num_heads
    mixed = np.zeros(query.shape)
    for b, q, head in np.ndindex(*query.shape[:2], num_heads):
        part = slice(head * width, (head + 1) * width)
        weights = np.zeros(key.shape[1])
        for s in range(key.shape[1]):
            if readable(b, q, s):
                product = float(query[b, q, part] @ key[b, s, part])
                weights[s] = math.exp(product / math.sqrt(width))
        mixed[b, q, part] = weights @ value[b, :, part] / weights.sum()
    return mixed


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_the_loop_over_heads_and_positions(is_causal):
    generator = np.random.default_rng(0)
    query, key, value = generator.normal(size=(3, 2, 4, 6)).astype(np.float32)
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0]])
    expected = softmax_loop(
        *(query, key, value, 3),
        lambda b, q, s: mask[b, s] and (s <= q or not is_causal),
    )
    attention = functools.partial(attend, num_heads=3, is_causal=is_causal)
    for run in (attention, jax.jit(attention)):
        mixed = run(query, key, value, mask=jnp.asarray(mask))
        np.testing.assert_allclose(mixed, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_where_all_keys_are_hidden_there_is_no_nan(dtype):
    tokens = jax.random.normal(jax.random.key(0), (2, 3, 4), dtype)
    mask = jnp.array([[False] * 3, [True] * 3])

    def total(tokens):
        return attend(tokens, tokens, 1e4 * tokens, num_heads=2, mask=mask).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(tokens)
    assert value.dtype == dtype
    chex.assert_tree_all_finite((value, gradient))


def test_heads_must_divide_the_features():
    with pytest.raises(ValueError, match="8 features cannot be split into 3 heads"):
        Attention(8, 3, rngs=nnx.Rngs(0))


def test_activations_by_hand():
    x = np.array([-3.0, -0.5, 0.0, 1.0, 4.0])
    exact = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x]
    np.testing.assert_allclose(gelu(jnp.array(x)), exact, atol=1e-6)
    half = gelu(jnp.array(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), exact, rtol=0.01)
    np.testing.assert_allclose(gelu_tanh(jnp.array(x)), exact, atol=1e-3)
    assert np.abs(gelu_tanh(jnp.array(x)) - np.array(exact)).max() > 1e-5
    quick = [v / (1 + math.exp(-1.702 * v)) for v in x]
    np.testing.assert_allclose(quick_gelu(jnp.array(x)), quick, atol=1e-6)


def test_cubic_weights_by_hand():
    # Half way between points Keys' kernel with a = -3/4 has -3/32 and 19/32; beyond
    # the ends the last point is repeated.
    np.testing.assert_allclose(
        32 * cubic_weights(4, 2), [[16, 19, -3, 0], [0, -3, 19, 16]], atol=1e-5
    )
    np.testing.assert_allclose(cubic_weights(3, 7).sum(axis=1), 1, atol=1e-6)
    grid = jnp.arange(12.0).reshape(6, 2)
    assert resize_positions(grid, (2, 3), (2, 3)) is grid
    turned = grid.reshape(2, 3, 2).transpose(1, 0, 2).reshape(6, 2)
    wide = resize_positions(grid, (2, 3), (4, 5)).reshape(4, 5, 2)
    tall = resize_positions(turned, (3, 2), (5, 4)).reshape(5, 4, 2)
    np.testing.assert_allclose(wide, tall.transpose(1, 0, 2), atol=1e-5)


def test_padding_is_never_read(bert):
    read = jit(bert.__call__)
    tokens = read(IDS, MASK)
    assert tokens.shape == (2, 4, 8)
    other = IDS.copy()
    other[1, 3] = 11
    np.testing.assert_array_equal(read(other, MASK)[1, :3], tokens[1, :3])
    assert np.abs(read(other, np.ones((2, 4), int))[1, :3] - tokens[1, :3]).max() > 1e-3


def test_tokens_do_not_depend_on_the_batch_or_the_padding_beside_them(bert):
    alone = jit(bert.__call__)(IDS[1:, :3], MASK[1:, :3])
    together = jit(bert.__call__)(IDS, MASK)
    np.testing.assert_allclose(alone[0], together[1, :3], atol=1e-5)


def test_a_text_of_padding_alone_has_finite_tokens_and_gradients(bert):
    graphdef, weights = nnx.split(bert)

    def total(weights):
        return nnx.merge(graphdef, weights)(IDS, np.zeros((2, 4), bool)).sum()

    chex.assert_tree_all_finite(jit(jax.value_and_grad(total))(weights))


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), r"ids are integers .* float64 \(2, 3\)"),
        (np.ones(3, int), np.ones(3), r"ids are integers \[B, S\], got int64 \(3,\)"),
        (IDS, MASK[:, :3], r"shape of the ids, \(2, 4\), got \(2, 3\)"),
        (np.ones((1, 7), int), np.ones((1, 7)), "at most 6 word pieces, got 7. Cut"),
    ],
)
def test_texts_of_wrong_shapes_are_refused(bert, ids, mask, message):
    with pytest.raises(ValueError, match=f"BERT: .*{message}"):
        bert(ids, mask)


def test_what_does_not_fill_a_patch_is_not_read(vit):
    images = jax.random.normal(jax.random.key(1), (1, 11, 9, 3))
    see = jit(vit.__call__)
    np.testing.assert_allclose(see(images), see(images[:, :8, :8]), atol=1e-6)
    assert see(images).shape == (1, 5, 8)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 3), r"are \[B, H, W, 3\], got \(8, 8, 3\)"),
        ((1, 3, 8, 8), r"are \[B, H, W, 3\], got \(1, 3, 8, 8\)"),
        ((1, 3, 8, 3), r"\(3, 8\) pixels hold no patch of \(4, 4\). Scale"),
    ],
)
def test_images_of_wrong_shapes_are_refused(vit, shape, message):
    with pytest.raises(ValueError, match=message):
        vit(jnp.ones(shape))


def test_a_size_without_a_patch_is_refused():
    with pytest.raises(ValueError, match="hold no patch .* Take larger images"):
        ViT(3, 4, 8, rngs=nnx.Rngs(0))


def test_training_drops_moves_every_weight_and_asks_for_randomness(vit, bert):
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    for model, inputs in ((vit, (images,)), (bert, (IDS, MASK))):
        with pytest.raises(ValueError, match="rngs=nnx.Rngs.dropout=key"):
            jax.eval_shape(functools.partial(model, train=True), *inputs)
        graphdef, weights = nnx.split(model)

        @jit
        def step(weights, key, graphdef=graphdef, inputs=inputs):
            def loss(weights):
                rngs = nnx.Rngs(dropout=key)
                tokens = nnx.merge(graphdef, weights)(*inputs, train=True, rngs=rngs)
                return (tokens**2 * jnp.arange(8.0)[None, None]).mean(), tokens

            return jax.grad(loss, has_aux=True)(weights)

        gradients, tokens = step(weights, jax.random.key(2))
        moved = jax.tree.map(lambda g: bool(jnp.any(g != 0)), gradients)
        # A key's bias adds the same to all scores of a query: softmax takes it away.
        still = [
            path
            for path, moves in jax.tree_util.tree_leaves_with_path(moved)
            if not moves and "key" not in jax.tree_util.keystr(path)
        ]
        assert not still
        assert np.any(step(weights, jax.random.key(3))[1] != tokens)


def test_each_token_of_clips_text_reads_those_before_it():
    text = build(CLIPText, 20, 8, 4, **SMALL, max_length=6, end_id=4)
    read = jit(text.tokens)
    other = IDS.copy()
    other[:, 2] = 11
    a, b = read(IDS), read(other)
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    assert np.abs(a[:, 2:] - b[:, 2:]).max() > 1e-3
    # Ends at positions 3 and 2; where there is none, and by the largest number.
    tokens = jnp.arange(2 * 4 * 8.0).reshape(2, 4, 8)
    chosen = np.stack([tokens[0, 3], tokens[1, 2]])
    kernel = text.projection.kernel[...]
    np.testing.assert_allclose(text.project(tokens, IDS), chosen @ kernel, rtol=1e-5)
    none = text.project(tokens, np.full((2, 4), 9))
    np.testing.assert_allclose(none, tokens[:, 0] @ kernel, rtol=1e-5)
    text.end_id = None
    chosen = np.stack([tokens[0, 2], tokens[1, 1]])
    np.testing.assert_allclose(text.project(tokens, IDS), chosen @ kernel, rtol=1e-5)


def test_both_encoders_must_project_to_one_width():
    image = nnx.eval_shape(lambda: CLIPImage(8, 4, 8, 5, **SMALL, rngs=nnx.Rngs(0)))
    text = nnx.eval_shape(lambda: CLIPText(20, 8, 4, **SMALL, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="projects to 5 features, the text .* to 4"):
        CLIP(image, text)


def test_logits_are_scaled_cosines():
    image = build(CLIPImage, 8, 4, 8, 4, **SMALL)
    words = build(BERT, 20, 8, **SMALL)
    clip = CLIP(image, BERTText(words, 4, rngs=nnx.Rngs(0)), scale=20.0, bias=-3.0)
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))

    @jit
    def compute(images):
        vectors = clip.encode_image(images), clip.encode_text(IDS, MASK)
        return *vectors, clip(images, IDS, MASK)

    a, b, logits = compute(images)
    for i, j in np.ndindex(3, 2):
        cosine = a[i] @ b[j] / (np.linalg.norm(a[i]) * np.linalg.norm(b[j]))
        np.testing.assert_allclose(logits[i, j], 20 * cosine - 3, atol=1e-4)
    assert clip.features == 4 and CLIP(image, clip.text).bias == 0


def test_linen_forms_compute_the_same(vit, bert):
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    seen = linen.ViT(image_size=8, patch_size=4, features=8, **SMALL)
    read = linen.BERT(vocabulary_size=20, features=8, max_length=6, **SMALL)
    for form, model, inputs in ((seen, vit, (images,)), (read, bert, (IDS, MASK))):
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        np.testing.assert_allclose(
            jit(form.apply)({"params": params}, *inputs),
            jit(model.__call__)(*inputs),
            atol=1e-6,
        )
    image = linen.CLIPImage(
        image_size=8, patch_size=4, features=8, projected_features=4, **SMALL
    )
    clip = linen.CLIP(image=image, text=linen.BERTText(bert=read, projected_features=4))

    def run(key):
        logits, variables = clip.init_with_output(key, images, IDS, MASK)
        return logits, variables, clip.apply(variables, IDS, nnx_method="encode_text")

    logits, variables, text = jax.eval_shape(run, jax.random.key(0))
    assert logits.shape == (2, 2) and text.shape == (2, 4)
    assert set(variables) == {"params"}
    assert {"image", "text", "log_scale"} == set(variables["params"])
