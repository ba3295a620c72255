"""bfloat16 where it saves time; float32 where a small error would spoil something."""

import collections
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_end_to_end import tiny_config

from modal_aware_jax import build
from modal_aware_jax.losses.triplet import triplet_ranking
from modal_aware_jax.training.update import init_state, make_update, split_model

SIZES = types.SimpleNamespace(num_text_features=9, num_labels=3)
BATCH = {
    "image": np.random.default_rng(0).normal(size=(6, 32, 32, 3)).astype(np.float32),
    "text": (np.random.default_rng(1).random((6, 9)) < 0.5).astype(np.float32),
    "labels": np.eye(3, dtype=np.uint8)[[0, 0, 1, 1, 2, 2]],
}


def network(dtype, method="modal_aware"):
    config = tiny_config(method)
    with config.unlocked():
        config.model.dtype, config.model.hidden_features = dtype, 8
    return build.model(config, SIZES)


def loss_fn(model, batch, key):
    rngs = nnx.Rngs(dropout=key)
    joint = model.joint(batch["image"], batch["text"], train=True, rngs=rngs)
    relaxed = jnp.tanh(model.head(joint))
    scalars = {"is_wide": relaxed.dtype == jnp.float32}
    return triplet_ranking(relaxed, batch["labels"]), scalars


def step(dtype):
    tx = optax.adam(1e-3)
    graphdef, params, stats = split_model(network(dtype))
    return make_update(graphdef, loss_fn, tx), init_state(params, stats, tx)


def operands(jaxpr, found=None):
    """The dtypes of the operands of every operation, inner functions' too."""
    found = collections.defaultdict(list) if found is None else found
    for equation in jaxpr.eqns:
        dtypes = {str(v.aval.dtype) for v in equation.invars if v.aval.shape}
        shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars)]
        found[equation.primitive.name].append((dtypes, shapes))
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                operands(inner, found)
    return found


def test_products_and_convolutions_read_bfloat16_but_those_of_the_head():
    update, state = step("bfloat16")
    jaxpr = jax.make_jaxpr(update)(state, BATCH, jax.random.key(0)).jaxpr
    found = operands(jaxpr)
    convolutions = [dtypes for dtypes, _ in found["conv_general_dilated"]]
    assert len(convolutions) >= 40 and all(d == {"bfloat16"} for d in convolutions)
    wide = [s for dtypes, s in found["dot_general"] if dtypes != {"bfloat16"}]
    # What is left: the head's product with its two gradients, K = 16, and the labels
    # that the pairs of the batch share.
    assert len(found["dot_general"]) > 30
    assert all(any(16 in s for s in shapes) or (6, 6) in shapes for shapes in wide)
    assert 3 <= len(wide) <= 5


def test_the_state_gradients_and_losses_stay_float32():
    update, state = step("bfloat16")
    after, metrics = jax.eval_shape(update, state, BATCH, jax.random.key(0))
    for tree in (state, after, metrics):
        for path, leaf in jax.tree.leaves_with_path(tree):
            assert leaf.dtype in (jnp.float32, jnp.int32), path
    graphdef, params, stats = split_model(network("bfloat16"))

    def loss(params):
        model = nnx.merge(graphdef, params, stats)
        return loss_fn(model, BATCH, jax.random.key(0))[0]

    value, gradients = jax.eval_shape(jax.value_and_grad(loss), params)
    assert value.dtype == jnp.float32
    assert {str(g.dtype) for g in jax.tree.leaves(gradients)} == {"float32"}


def test_the_initial_weights_are_those_of_float32():
    ours, theirs = (
        jax.tree.leaves(nnx.to_pure_dict(nnx.state(network(dtype))))
        for dtype in ("bfloat16", "float32")
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_maps_and_vectors_are_bfloat16_and_relaxed_bits_float32():
    def forward(dtype):
        model = network(dtype)

        @jax.jit
        def outputs(images, text):
            joint = model.joint(images, text, train=False)
            return model.backbone.lower(images, train=False), joint, model.head(joint)

        return outputs(BATCH["image"], BATCH["text"])

    exact, half = forward("float32"), forward("bfloat16")
    assert [x.dtype for x in half] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    assert {x.dtype for x in exact} == {jnp.dtype("float32")}
    for a, b in zip(half, exact, strict=True):
        error = np.asarray(a, np.float32) - np.asarray(b)
        assert 0 < np.abs(error).max() < 0.04 * np.abs(b).max()


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="'bfloat61'. Did you mean 'bfloat16'"):
        network("bfloat61")
