import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from modal_aware_jax.training.optimizer import (
    adam_l2,
    by_prefix,
    cosine,
    step_decay,
    warm_up,
)
from modal_aware_jax.training.update import (
    init_state,
    make_update,
    merge_model,
    split_model,
    starts_with,
)


class Table(nnx.Variable):
    """A fixed table, never trained."""


class Net(nnx.Module):
    def __init__(self, *, rngs):
        self.backbone = nnx.List(
            [nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)]
        )
        self.head = nnx.Linear(4, 2, rngs=rngs)
        self.table = Table(jnp.arange(2))

    def __call__(self, x, *, train):
        x = self.backbone[1](self.backbone[0](x), use_running_average=not train)
        return self.head(x)[:, self.table[...]]


def loss_fn(model, batch, key):
    outputs = model(batch["x"], train=True)
    noise = jax.random.uniform(key, outputs.shape)
    return jnp.mean((outputs - noise) ** 2), {"num_active": jnp.sum(outputs > 0)}


@pytest.fixture
def batch():
    return {"x": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)}


def leaves(tree):
    tree = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in tree}


def train(batch, tx, trained=None, steps=2):
    graphdef, params, stats = split_model(Net(rngs=nnx.Rngs(0)), trained)
    before = leaves(params), leaves(stats)
    state, update = init_state(params, stats, tx), make_update(graphdef, loss_fn, tx)
    for _ in range(steps):
        state, metrics = update(state, batch, jax.random.key(1))
    return before, state, metrics, graphdef


def test_a_step_changes_every_trained_parameter_and_the_statistics(batch):
    (params, stats), state, metrics, graphdef = train(batch, adam_l2(0.01))
    after = leaves(state.params)
    assert params.keys() == after.keys() and len(after) == 6
    for name in after:
        assert (params[name] != after[name]).any(), name
    changed = {n for n, v in leaves(state.stats).items() if (v != stats[n]).any()}
    assert changed == {"['backbone'][1]['mean']", "['backbone'][1]['var']"}
    assert int(state.step) == 2
    assert sorted(metrics) == ["gradient_norm", "loss", "num_active"]
    assert all(v.shape == () and v.dtype == jnp.float32 for v in metrics.values())
    model = merge_model(graphdef, state)
    assert model(batch["x"], train=False).shape == (8, 2)


def test_frozen_parameters_stay_and_have_no_optimiser_state(batch):
    (params, stats), state, _, _ = train(
        batch,
        adam_l2(0.01, weight_decay=0.5),
        lambda path: not starts_with(path, "backbone.0"),
    )
    assert "['backbone'][0]['kernel']" in stats
    after = leaves(state.stats)
    for name in ("['backbone'][0]['kernel']", "['backbone'][0]['bias']"):
        np.testing.assert_array_equal(after[name], stats[name])
    moments = [name for name in leaves(state.opt_state) if ".mu" in name]
    assert len(moments) == len(params) == 4
    assert all((params[n] != v).any() for n, v in leaves(state.params).items())


def test_the_model_survives_the_donation_of_its_state(batch):
    model, tx = Net(rngs=nnx.Rngs(0)), optax.sgd(0.1)
    expected = model(batch["x"], train=False)
    graphdef, params, stats = split_model(model)
    make_update(graphdef, loss_fn, tx)(
        init_state(params, stats, tx), batch, jax.random.key(0)
    )
    np.testing.assert_array_equal(model(batch["x"], train=False), expected)


def test_each_step_has_a_key_of_its_own(batch):
    def noise(model, batch, key):
        return jax.random.uniform(key) + 0.0 * jnp.sum(model.kernel[...])

    tx = optax.sgd(0.1)
    graphdef, params, stats = split_model(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    state, update = init_state(params, stats, tx), make_update(graphdef, noise, tx)
    state, first = update(state, batch, jax.random.key(1))
    state, second = update(state, batch, jax.random.key(1))
    assert float(first["loss"]) != float(second["loss"])


def test_the_gradient_norm_is_that_of_all_trained_parameters():
    class Point(nnx.Module):
        def __init__(self):
            self.a = nnx.Param(jnp.zeros(()))
            self.b = nnx.Param(jnp.zeros(2))

    def slope(model, batch, key):  # gradient (2) and (1, -2): norm 3
        return 2.0 * model.a[...] + jnp.dot(model.b[...], jnp.array([1.0, -2.0]))

    tx = optax.sgd(0.5)
    graphdef, params, stats = split_model(Point())
    state, update = init_state(params, stats, tx), make_update(graphdef, slope, tx)
    state, metrics = update(state, {}, jax.random.key(0))
    assert float(metrics["gradient_norm"]) == 3.0
    np.testing.assert_array_equal(state.params["a"], -1.0)
    np.testing.assert_array_equal(state.params["b"], [-0.5, 1.0])


def test_split_model_refuses_to_train_nothing():
    with pytest.raises(ValueError, match="split_model: no parameter is trained"):
        split_model(Net(rngs=nnx.Rngs(0)), lambda path: False)


def test_coupled_decay_equals_torch():
    # torch 2.13: Adam([w], lr=0.1, weight_decay=0.5) on the loss
    # 0.5 * (a * w**2).sum() + w.sum(); AdamW gives other numbers.
    torch_steps = [
        [0.8999999761581421, -1.899999976158142, 0.4000000059604645],
        [0.8002924919128418, -1.8004121780395508, 0.2998839020729065],
        [0.7011114358901978, -1.7015862464904785, 0.19958031177520752],
        [0.6027238965034485, -1.6039390563964844, 0.09902235865592957],
        [0.5054332613945007, -1.5079636573791504, -0.0018521994352340698],
    ]
    a, w = jnp.array([3.0, 0.5, -1.0]), jnp.array([1.0, -2.0, 0.5])
    tx = adam_l2(0.1, weight_decay=0.5)
    opt_state = tx.init(w)
    for expected in torch_steps:
        updates, opt_state = tx.update(a * w + 1.0, opt_state, w)
        w = optax.apply_updates(w, updates)
        np.testing.assert_allclose(w, expected, atol=1e-5)


def test_groups_have_their_own_rates():
    params = {"backbone": {0: jnp.ones(2), 1: jnp.ones(2)}, "head": jnp.ones(3)}
    tx = by_prefix(
        {"backbone": optax.sgd(0.1), "backbone.1": optax.sgd(0.01), "": optax.sgd(1.0)}
    )
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["backbone"][0], -0.1)
    np.testing.assert_allclose(updates["backbone"][1], -0.01)
    np.testing.assert_allclose(updates["head"], -1.0)
    with pytest.raises(
        ValueError, match="by_prefix: no group holds the parameter head"
    ):
        by_prefix({"backbone": optax.sgd(0.1)}).init(params)


def test_step_decay_by_hand():
    rate = step_decay(1e-4, steps_per_epoch=100, every_epochs=20, factor=0.1)
    steps = {0: 1e-4, 1999: 1e-4, 2000: 1e-5, 3999: 1e-5, 4000: 1e-6, 9999: 1e-8}
    for step, expected in steps.items():
        np.testing.assert_allclose(rate(step), expected, rtol=1e-4)


def test_cosine_and_warm_up_by_hand():
    rate = cosine(2.0, num_steps=100)
    for step, expected in {0: 2.0, 50: 1.0, 100: 0.0, 200: 0.0}.items():
        np.testing.assert_allclose(rate(step), expected, atol=1e-6)
    rate = step_decay(1.0, steps_per_epoch=5, every_epochs=2, warmup_steps=4)
    for step, expected in {0: 0.0, 1: 0.25, 4: 1.0, 9: 1.0, 10: 0.1}.items():
        np.testing.assert_allclose(rate(step), expected, rtol=1e-5)
    rate = warm_up(lambda step: 3.0, 0)
    assert rate(0) == 3.0
