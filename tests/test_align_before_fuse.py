"""Single stream, align before fuse and their losses: loops, masks, draws, training."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import token_loops as loops
from flax import nnx

from modal_aware_jax.losses.cross_pairs import cosines
from modal_aware_jax.losses.hard_negatives import draw_hard_negatives
from modal_aware_jax.losses.matching import binary_matching, choice_among
from modal_aware_jax.losses.momentum_contrast import momentum_info_nce, moving_average
from modal_aware_jax.models.align_before_fuse import AlignBeforeFuse, FusionBlock
from modal_aware_jax.models.single_stream import SingleStream

B, M, S, DI, DT, D = 3, 4, 5, 6, 7, 4
IMAGE = np.asarray(jax.random.normal(jax.random.key(1), (B, M, DI)))
TEXT = np.asarray(jax.random.normal(jax.random.key(2), (B, S, DT)))
IMAGE_MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]])
TEXT_MASK = np.array([[1] * 5, [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
MASKS = {"image_mask": IMAGE_MASK, "text_mask": TEXT_MASK}
GROUPS = np.array([0, 1, 0])


@functools.cache
def stream(**arguments):
    form = dict(features=D, num_heads=2, num_layers=1) | arguments
    return loops.randomised(lambda: SingleStream(DI, DT, **form, rngs=nnx.Rngs(0)))


@functools.cache
def aligned(**arguments):
    form = dict(width=D, num_heads=2, fusion_layers=1) | arguments
    return loops.randomised(
        lambda: AlignBeforeFuse(DI, DT, 3, **form, rngs=nnx.Rngs(0))
    )


compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def call(module, method, *arrays, **arguments):
    graphdef, state = nnx.split(module)
    state = nnx.to_pure_dict(state)
    return jax.device_get(_call(graphdef, method, state, arrays, arguments))


@functools.partial(compiled, static_argnums=(0, 1))
def _call(graphdef, method, state, arrays, arguments):
    return getattr(nnx.merge(graphdef, state), method)(*arrays, **arguments)


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def feed_forward(x, layer):
    hidden = [[gelu(h) for h in loops.dense(row, layer.inner)] for row in x]
    return np.array([loops.dense(row, layer.outer) for row in hidden])


def renamed(attention):
    """Of transformer.Attention by the names that the loops know."""

    class Names:
        num_heads = attention.num_heads
        query, key, value = attention.query, attention.key, attention.value
        out = attention.output

    return Names


def test_the_single_stream_by_loops():
    module = stream()
    scores = call(module, "score_pairs", IMAGE, TEXT, **MASKS)
    kinds = np.asarray(module.kinds[...], float)
    for b in range(B):
        image = loops.layer_norm(
            [loops.dense(x, module.image_tokens) for x in IMAGE[b]], module.image_norm
        )
        text = loops.layer_norm(
            [loops.dense(x, module.text_tokens) for x in TEXT[b]], module.text_norm
        )
        tokens = np.concatenate([kinds[:1], image + kinds[1], text + kinds[2]])
        keep = [1, *IMAGE_MASK[b], *TEXT_MASK[b]]
        block = module.blocks[0]
        mixed = loops.attention(tokens, tokens, keep, renamed(block.attention))
        tokens = loops.layer_norm(tokens + mixed, block.attention_norm)
        tokens = loops.layer_norm(
            tokens + feed_forward(tokens, block.feed_forward), block.feed_forward_norm
        )
        pooled = np.tanh(loops.dense(tokens[0], module.pool))
        assert scores[b] == pytest.approx(
            loops.dense(pooled, module.score)[0], rel=1e-3, abs=1e-4
        )


def test_the_fusion_by_loops():
    module = aligned()
    image = np.asarray(call(module, "encode_image", IMAGE, image_mask=IMAGE_MASK))
    text = np.asarray(call(module, "encode_text", TEXT, text_mask=TEXT_MASK))
    scores = call(module, "score_encoded", image, text, **MASKS)
    block = module.fusion[0]
    for b in range(B):
        own = loops.attention(text[b], text[b], TEXT_MASK[b], block.own)
        x = loops.layer_norm(text[b] + own, block.own_norm)
        x = loops.layer_norm(
            x + loops.attention(x, image[b], IMAGE_MASK[b], block.cross),
            block.cross_norm,
        )
        x = loops.layer_norm(x + feed_forward(x, block.feed_forward), block.out_norm)
        (score,) = loops.dense(loops.mean_of(x, TEXT_MASK[b]), module.score)
        assert scores[b] == pytest.approx(score, rel=1e-3, abs=1e-4)
    whole = call(module, "score_pairs", IMAGE, TEXT, **MASKS)
    np.testing.assert_allclose(whole, scores, rtol=1e-4, atol=1e-5)


def test_the_sides_are_embedded_apart_and_padding_has_no_say():
    other = np.random.default_rng(9).normal(size=TEXT.shape)
    first = call(aligned(), "__call__", IMAGE, TEXT, **MASKS)
    second = call(aligned(), "__call__", IMAGE, other, **MASKS)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].shape == (B, 3) and np.any(first[1] != second[1])
    image = np.where(IMAGE_MASK[..., None] != 0, IMAGE, np.nan)
    text = np.where(TEXT_MASK[..., None] != 0, TEXT, np.nan)
    for module in (stream(), aligned()):
        kept = call(module, "score_pairs", IMAGE, TEXT, **MASKS)
        again = call(module, "score_pairs", image, text, **MASKS)
        np.testing.assert_array_equal(kept, again)
        moved = call(module, "score_pairs", IMAGE, other, **MASKS)
        assert np.all(kept != moved)


def test_one_step_of_its_training_moves_every_parameter():
    """The docstring's recipe, with the momentum copy beside."""
    module = aligned()
    graphdef, state = nnx.split(module)
    temperature = {"log_scale": jnp.float32(1.0), "bias": jnp.float32(0.0)}
    state = {**nnx.to_pure_dict(state), "temperature": temperature}
    tx = optax.adam(1e-2)

    @compiled
    def step(state, slow, opt_state, key):
        def loss(state):
            model = nnx.merge(graphdef, state)
            copy = nnx.merge(graphdef, slow)
            scale = model.temperature.scale()
            image = model.encode_image(IMAGE, image_mask=IMAGE_MASK)
            text = model.encode_text(TEXT, text_mask=TEXT_MASK)
            sides = model(IMAGE, TEXT, **MASKS)
            contrast = momentum_info_nce(
                *sides, *copy(IMAGE, TEXT, **MASKS), scale=scale
            )
            drawn = draw_hard_negatives(key, scale * cosines(*sides))
            rows, keep = np.arange(B), (jnp.array(IMAGE_MASK), jnp.array(TEXT_MASK))
            i = jnp.concatenate([rows, rows, drawn.image_of_text])
            t = jnp.concatenate([rows, drawn.text_of_image, rows])
            logits = model.score_encoded(
                image[i], text[t], image_mask=keep[0][i], text_mask=keep[1][t]
            )
            is_pair = np.repeat([1, 0, 0], B)
            return contrast + binary_matching(logits, is_pair)

        value, grads = jax.value_and_grad(loss)(state)
        updates, opt_state = tx.update(grads, opt_state)
        state = optax.apply_updates(state, updates)
        return state, moving_average(slow, state), opt_state, value

    trained, slow, opt_state, first = step(
        state, state, tx.init(state), jax.random.key(0)
    )
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), *jax.device_get((state, trained))
    )
    moved["temperature"].pop("bias")  # no part of this recipe
    assert all(jax.tree.leaves(moved)), moved
    for i in range(40):
        trained, slow, opt_state, last = step(
            trained, slow, opt_state, jax.random.key(i)
        )
    assert np.isfinite(last) and last < first - 0.2  # soft targets keep it above 0


def test_binary_matching_and_choice_by_hand():
    logits = jnp.array([2.0, -1.0, 0.5, jnp.nan])
    expected = [
        math.log(1 + math.exp(-2)),
        math.log(1 + math.exp(-1)),
        math.log(1 + math.exp(-0.5)),
    ]
    value = binary_matching(logits, np.array([1, 0, 1, 0]), mask=np.array([1, 1, 1, 0]))
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-6)
    nothing = jax.grad(lambda x: binary_matching(x, np.ones(4), mask=np.zeros(4)))
    assert not nothing(logits).any()
    right, wrong = jnp.array([1.0, 0.0]), jnp.array([[0.0, 2.0], [3.0, jnp.inf]])
    value = choice_among(right, wrong, mask=np.array([[1, 1], [1, 0]]))
    one = math.log(math.exp(1) + 1 + math.exp(2)) - 1
    two = math.log(1 + math.exp(3))
    np.testing.assert_allclose(value, (one + two) / 2, rtol=1e-6)
    with pytest.raises(
        ValueError, match="binary_matching: expected real logits, got i"
    ):
        binary_matching(np.array([1, 2]), np.array([1, 0]))
    with pytest.raises(ValueError, match="choice_among: expected real logits, got int"):
        choice_among(np.array([1, 2]), np.array([[1], [0]]))
    with pytest.raises(ValueError, match=r"binary_matching: expected is_pair.*\(4,\)"):
        binary_matching(logits, np.ones(3))
    with pytest.raises(ValueError, match=r"choice_among.*got \(2,\), \(3, 2\)"):
        choice_among(right, jnp.zeros((3, 2)))


def test_hard_negatives_are_drawn_by_their_similarity_and_never_of_the_group():
    logits = jnp.log(jnp.array([[9.0, 1.0, 3.0], [1.0, 9.0, 1.0], [3.0, 1.0, 9.0]]))
    draws = jax.jit(jax.vmap(lambda key: draw_hard_negatives(key, logits)))(
        jax.random.split(jax.random.key(0), 4000)
    )
    # Of image 0: text 1 with 1 of 4, text 2 with 3 of 4, its own never.
    share = np.bincount(draws.text_of_image[:, 0], minlength=3) / 4000
    np.testing.assert_allclose(share, [0, 0.25, 0.75], atol=0.03)
    share = np.bincount(draws.image_of_text[:, 1], minlength=3) / 4000
    np.testing.assert_allclose(share, [0.5, 0, 0.5], atol=0.03)
    assert draws.image_has.all() and draws.text_has.all()
    drawn = draw_hard_negatives(jax.random.key(1), logits, groups=GROUPS)
    assert drawn.text_of_image[0] == 1 and drawn.image_of_text[2] == 1
    alone = draw_hard_negatives(jax.random.key(1), logits, groups=np.zeros(3, int))
    assert alone.text_of_image.tolist() == [0, 1, 2] and not alone.image_has.any()
    with pytest.raises(ValueError, match=r"logits \[B, B\], got \(2, 3\)"):
        draw_hard_negatives(jax.random.key(0), logits[:2])


def loop_momentum(sides, slow, queues, scale, share, groups, queue_groups):
    """ALBEF's eq. 6 of both directions, one candidate at a time."""
    total = 0.0
    for own, own_slow, others, queue in (
        (sides[0], slow[0], slow[1], queues[1]),
        (sides[1], slow[1], slow[0], queues[0]),
    ):
        candidates = [*others, *queue]
        owners = [*groups, *queue_groups]
        for i in range(B):
            allowed = [
                j for j in range(len(candidates)) if j == i or owners[j] != groups[i]
            ]

            def softmax(row, allowed=allowed, candidates=candidates):
                return loops.softmax(
                    [
                        scale
                        * float(row @ candidates[j])
                        / np.linalg.norm(row)
                        / np.linalg.norm(candidates[j])
                        for j in allowed
                    ]
                )

            p, q = softmax(own[i]), softmax(own_slow[i])
            for j, pj, qj in zip(allowed, p, q, strict=True):
                target = (1 - share) * (j == i) + share * qj
                total -= target * math.log(pj) / B
    return total / 2


def test_momentum_contrast_equals_a_loop_and_has_no_gradient_in_the_slow_copy():
    rng = np.random.default_rng(0)
    sides, slow = rng.normal(size=(2, 2, B, 4)).astype(np.float32)
    queues = rng.normal(size=(2, 6, 4)).astype(np.float32)
    queue_groups = np.array([0, 5, 6, 7, 8, 9])

    def loss(image, text, slow_image, slow_text, groups=GROUPS):
        return momentum_info_nce(
            *(image, text, slow_image, slow_text),
            scale=3.0,
            share=0.4,
            image_queue=queues[0],
            text_queue=queues[1],
            groups=groups,
            image_queue_groups=queue_groups,
            text_queue_groups=queue_groups,
        )

    slopes = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))
    value, gradients = slopes(*sides, *slow)
    expected = loop_momentum(sides, slow, queues, 3.0, 0.4, GROUPS, queue_groups)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.any(gradients[0]) and np.any(gradients[1])
    assert not np.any(gradients[2]) and not np.any(gradients[3])
    same = slopes(0 * sides[0], sides[1], *slow)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(same))
    with pytest.raises(ValueError, match=r"text_queue_groups of shape None.*not given"):
        loss(*sides, *slow, groups=None)
    with pytest.raises(ValueError, match=r"text_queue \[N, 4\], got \(6, 3\)"):
        momentum_info_nce(*sides, *slow, scale=1.0, text_queue=queues[0][:, 1:])


def test_the_moving_average_by_hand():
    old = {"a": jnp.array([1.0, 2.0]), "b": jnp.ones(1, jnp.bfloat16)}
    new = {"a": jnp.array([3.0, 2.0]), "b": jnp.zeros(1, jnp.bfloat16)}
    mixed = moving_average(old, new, momentum=0.75)
    assert mixed["a"].tolist() == [1.5, 2.0] and mixed["b"].tolist() == [0.75]
    assert mixed["b"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="between 0 and 1, got 1.5"):
        moving_average(old, new, momentum=1.5)


def test_dropout_and_shapes_are_named():
    for module in (stream(dropout_rate=0.5), aligned(dropout_rate=0.5)):
        graphdef, state = nnx.split(module)

        @functools.partial(compiled, static_argnums=1)
        def scores(state, train, graphdef=graphdef):
            rngs = nnx.Rngs(dropout=jax.random.key(0))
            module = nnx.merge(graphdef, state)
            return module.score_pairs(IMAGE, TEXT, train=train, rngs=rngs)

        assert np.any(scores(state, False) != scores(state, True))
        with pytest.raises(ValueError, match=r"nnx.Rngs\(dropout=key\)"):
            jax.eval_shape(lambda m=module: m.score_pairs(IMAGE, TEXT, train=True))
    with pytest.raises(
        ValueError, match=r"SingleStream expects image tokens \[B, n, 6\]"
    ):
        stream().score_pairs(IMAGE[..., 1:], TEXT)
    with pytest.raises(ValueError, match=r"text_mask .* \(3, 5\), got \(3, 4\)"):
        stream().score_pairs(IMAGE, TEXT, text_mask=IMAGE_MASK)
    with pytest.raises(ValueError, match=r"text tokens \[B, n, 7\] with n >= 1"):
        aligned().embed_text(TEXT[:, :0])
    with pytest.raises(ValueError, match=r"image_mask .* \(3, 4\), got \(3, 5\)"):
        aligned().embed_image(IMAGE, image_mask=TEXT_MASK)


def test_an_image_without_tokens_adds_nothing_to_the_fusion():
    block = loops.randomised(lambda: FusionBlock(D, 2, rngs=nnx.Rngs(0)))
    text, image = jnp.ones((1, 2, D)), jnp.full((1, 3, D), jnp.nan)
    made = loops.run(block, text, image, None, jnp.zeros((1, 3)))
    assert np.isfinite(made).all()
