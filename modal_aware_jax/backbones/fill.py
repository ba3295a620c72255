"""A model's variables filled from a checkpoint in PyTorch's names, all or nothing."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx


class Slot(NamedTuple):
    """Where one array of a checkpoint belongs.

    Attributes:
      variables: those it fills, one or (of a fused layer) several.
      shape: of the array in the checkpoint.
      arrange: from that array to one for each variable.
    """

    variables: tuple[nnx.Variable, ...]
    shape: tuple[int, ...]
    arrange: Callable[[np.ndarray], Iterable[np.ndarray]]


def kernel_slot(kernel: nnx.Variable) -> Slot:
    """A dense kernel [in, out] from PyTorch's [out, in], a 3x3 one's HWIO from OIHW."""
    axes = (3, 2, 0, 1) if len(kernel.shape) == 4 else (1, 0)
    back = (2, 3, 1, 0) if len(kernel.shape) == 4 else (1, 0)
    shape = tuple(kernel.shape[axis] for axis in axes)
    return Slot((kernel,), shape, lambda array: (array.transpose(back),))


def plain_slot(variable: nnx.Variable, shape: tuple[int, ...] | None = None) -> Slot:
    """A variable as it is, or reshaped from the checkpoint's shape."""
    ours = tuple(variable.shape)
    return Slot((variable,), shape or ours, lambda array: (array.reshape(ours),))


def layer_slots(prefix: str, layer: nnx.Module) -> dict[str, Slot]:
    """The slots of a dense layer, a convolution, a table or a norm, by key."""
    if isinstance(layer, nnx.Embed):
        return {f"{prefix}.weight": plain_slot(layer.embedding)}
    slots = {}
    if isinstance(layer, nnx.Linear | nnx.Conv):
        slots[f"{prefix}.weight"] = kernel_slot(layer.kernel)
    else:
        slots[f"{prefix}.weight"] = plain_slot(layer.scale)
    if layer.bias is not None:
        slots[f"{prefix}.bias"] = plain_slot(layer.bias)
    if hasattr(layer, "mean"):  # batch norm
        slots[f"{prefix}.running_mean"] = plain_slot(layer.mean)
        slots[f"{prefix}.running_var"] = plain_slot(layer.var)
    return slots


def fused_slots(weight: str, bias: str, layers) -> dict[str, Slot]:
    """Dense layers of the same sizes that are one layer in the checkpoint."""
    inputs, outputs = layers[0].kernel.shape
    return {
        weight: Slot(
            tuple(layer.kernel for layer in layers),
            (len(layers) * outputs, inputs),
            lambda array: [part.T for part in np.split(array, len(layers))],
        ),
        bias: Slot(
            tuple(layer.bias for layer in layers),
            (len(layers) * outputs,),
            lambda array: np.split(array, len(layers)),
        ),
    }


def fill(
    slots: Mapping[str, Slot],
    state: Mapping,
    *,
    caller: str,
    source: str = "the state",
    whole: str,
    cure: str,
) -> None:
    """Fills the variables of `slots`, or changes nothing and says what is wrong.

    Args:
      slots: by key.
      state: arrays or PyTorch tensors by key.
      caller: whom the error names.
      source: where the state is from, for the error.
      whole: whose it should be: "a ResNet18's".
      cure: what to do where shapes do not fit.

    >>> layer = nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> slots = layer_slots("fc", layer)
    >>> fill(slots, {}, caller="f", whole="an MLP's", cure="")
    Traceback (most recent call last):
    ValueError: f: the state is not an MLP's: 2 missing keys ['fc.weight', 'fc.bias'], \
0 unexpected keys [].
    """
    missing = [key for key in slots if key not in state]
    unexpected = [key for key in state if key not in slots]
    if missing or unexpected:
        raise ValueError(
            f"{caller}: {source} is not {whole}: {len(missing)} missing keys "
            f"{missing}, {len(unexpected)} unexpected keys {unexpected}."
        )
    wrong = [
        f"{key}: {list(slot.shape)} expected, {list(state[key].shape)} arrived"
        for key, slot in slots.items()
        if tuple(state[key].shape) != tuple(slot.shape)
    ]
    if wrong:
        raise ValueError(
            f"{caller}: {len(wrong)} arrays of {source} do not have the model's "
            "shapes:\n  " + "\n  ".join(wrong) + f"\n{cure}"
        )
    for key, slot in slots.items():  # nothing is changed before all is checked
        arrays = slot.arrange(as_array(state[key]))
        for variable, array in zip(slot.variables, arrays, strict=True):
            variable.set_value(jnp.asarray(array, variable.dtype))


def as_array(value) -> np.ndarray:
    """A NumPy array of an array or of a PyTorch tensor, perhaps on another device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    return np.asarray(value)
