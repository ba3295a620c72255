"""The cross-modal graph inside a network of pairs, where it has one."""

from flax import nnx

from modal_aware_jax.models.cross_modal_graph import CrossModalGraphNetwork


def graph_of(network: nnx.Module) -> CrossModalGraphNetwork | None:
    """The network whose graph scores pairs: itself, `graph` or `pairs`; or None.

    Example:
      >>> graph = CrossModalGraphNetwork(3, 4, 2, graph_features=8, rngs=nnx.Rngs(0))
      >>> graph_of(graph) is graph, graph_of(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
      (True, None)
    """
    inside = (network, *(getattr(network, name, None) for name in ("graph", "pairs")))
    found = [x for x in inside if isinstance(x, CrossModalGraphNetwork)]
    return found[0] if found else None
