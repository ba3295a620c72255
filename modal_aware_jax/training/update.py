"""One training step as a pure function of plain dicts, under `jax.jit`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class TrainState(NamedTuple):
    """All that a training step changes, as plain dicts of arrays.

    Attributes:
        step: int32 scalar, the number of updates done.
        params: the trained parameters; only these have optimiser state.
        stats: everything else the model owns: batch statistics, frozen
            parameters, hash tables.
        opt_state: the optimiser's state.
    """

    step: jax.Array
    params: Any
    stats: Any
    opt_state: Any


def starts_with(path: tuple, prefix: str) -> bool:
    """Whether a variable's path lies under a dotted prefix ('' is everything).

    >>> starts_with(("backbone", "layers", 0, "kernel"), "backbone.layers.0")
    True
    """
    names = prefix.split(".") if prefix else []
    return [str(name) for name in path[: len(names)]] == names


def split_model(
    model: nnx.Module, trained: Callable[[tuple], bool] | None = None
) -> tuple[Any, dict, dict]:
    """Splits a model into its structure, its trained parameters and the rest.

    The arrays are copies, since `make_update` donates its state: the model stays
    usable.

    Args:
        model: any NNX module.
        trained: says by its path, such as `("backbone", "stem", "kernel")`, whether
            an `nnx.Param` is trained; all are by default. The others go to the
            statistics: no gradient, no optimiser state, no weight decay.

    Returns:
        graphdef, params, stats: the last two are nested plain dicts.

    >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    >>> _, params, stats = split_model(model, lambda path: path[-1] != "bias")
    >>> list(params), list(stats)
    (['kernel'], ['bias'])
    """

    def is_trained(path, value):
        return isinstance(value, nnx.Param) and (trained is None or trained(path))

    graphdef, params, stats = nnx.split(model, is_trained, ...)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    if not jax.tree.leaves(params):
        raise ValueError(
            "split_model: no parameter is trained. Expected `trained` to be true for "
            "the path of at least one nnx.Param."
        )
    return graphdef, *jax.tree.map(jnp.copy, (params, stats))


def merge_model(graphdef: Any, state: TrainState) -> nnx.Module:
    """The model of a training state, for evaluation; it shares the state's arrays."""
    return nnx.merge(graphdef, state.params, state.stats)


def init_state(params: Any, stats: Any, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, stats, tx.init(params))


def make_update(
    graphdef: Any,
    loss_fn: Callable,
    tx: optax.GradientTransformation,
    *,
    shardings: tuple[TrainState, Any] | None = None,
) -> Callable:
    """The jitted `update(state, batch, key) -> state, metrics`; the state is donated.

    Args:
        graphdef: the model's structure, of `split_model`.
        loss_fn: `loss_fn(model, batch, key)` returns the scalar loss, or the loss and
            a dict of further scalars to record. It calls the model in training mode;
            key is fresh at each step.
        tx: the optimiser.
        shardings: where a state's arrays and a batch's lie on a mesh of several
            devices, as `training.devices` gives them. The loss and the batch norms
            then see the global batch, and the parameters come out as on one device,
            up to the order of sums.

    Returns:
        The update. Its metrics are float32 scalars: `loss`, `gradient_norm` and those
        that the loss gave. One key serves the whole run: the step is folded in.

    >>> graphdef, params, stats = split_model(nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
    >>> loss_fn = lambda model, batch, key: jnp.mean(model(batch["x"]) ** 2)
    >>> update = make_update(graphdef, loss_fn, optax.sgd(0.1))
    >>> state = init_state(params, stats, optax.sgd(0.1))
    >>> sorted(update(state, {"x": jnp.ones((4, 2))}, jax.random.key(0))[1])
    ['gradient_norm', 'loss']
    """

    def update(state, batch, key):
        trained = set(nnx.traversals.flatten_mapping(state.params))
        key = jax.random.fold_in(key, state.step)

        def loss(params):
            model = nnx.merge(graphdef, params, state.stats)
            value = loss_fn(model, batch, key)
            value, scalars = value if isinstance(value, tuple) else (value, {})
            stats = nnx.state(model, lambda path, _: path not in trained)
            return value, (nnx.to_pure_dict(stats), scalars)

        grad_fn = jax.value_and_grad(loss, has_aux=True)
        (value, (stats, scalars)), grads = grad_fn(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": value,
            "gradient_norm": optax.tree.norm(grads),
            **scalars,
        }
        metrics = {name: jnp.float32(value) for name, value in metrics.items()}
        return TrainState(state.step + 1, params, stats, opt_state), metrics

    if shardings is None:
        return jax.jit(update, donate_argnums=0)
    state, batch = shardings
    mesh = state.step.mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    jitted = jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(state, batch, everywhere),
        out_shardings=(state, everywhere),
    )

    def on_mesh(function):
        def call(*args):
            with jax.set_mesh(mesh):  # for layers that ask how the batch is split
                return function(*args)

        return call

    sharded = on_mesh(jitted)
    sharded.lower = on_mesh(jitted.lower)
    return sharded
