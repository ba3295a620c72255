"""Public ImageNet weights, from PyTorch's names and layouts to our modules."""

import os
from collections.abc import Iterator, Mapping

from flax import nnx

from modal_aware_jax.backbones.fill import fill, layer_slots


def load_resnet18(model: nnx.Module, path_or_state) -> None:
    """Fills a `ResNet18` in place with the weights of torchvision or timm.

    The images must then be RGB in 0..1 less (0.485, 0.456, 0.406), divided by
    (0.229, 0.224, 0.225). The classifier (`fc.*`) and `num_batches_tracked` are left
    out; the model is untouched where anything else is missing, unexpected or of
    another shape.

    Args:
      model: a `ResNet18`.
      path_or_state: a `.safetensors` file; `hf-hub:owner/name`, a repository of
        huggingface.co such as `hf-hub:timm/resnet18.tv_in1k`; or a dict of arrays or
        PyTorch tensors by name.

    >>> import numpy as np
    >>> from modal_aware_jax.backbones.resnet import ResNet18
    >>> model = nnx.eval_shape(lambda: ResNet18(width=4, rngs=nnx.Rngs(0)))
    >>> load_resnet18(model, {"conv1.weight": np.zeros((4, 3, 7, 7))})
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: load_resnet18: the state is not a ResNet18's: 99 missing keys ...
    """
    _fill(_resnet18_names(model), path_or_state, "load_resnet18", ignored="fc.")


def load_mobilenet_v2(model: nnx.Module, path_or_state) -> None:
    """Fills a `MobileNetV2` in place with weights in torchvision's names.

    What else the weights ask for is not in their names:
    - torchvision's own are for `MobileNetV2(padding=1)` and images normalised as in
      `load_resnet18`; those that come from TensorFlow are for the default padding and
      images scaled to [-1, 1];
    - where batch norm was folded into the convolutions (scale 1, mean 0, variance 1),
      its batch statistics must not be used as loaded. Either build the model with
      `freeze_norm=True`, or call `unfold_batch_norm` once.

    Args:
      model: a `MobileNetV2`.
      path_or_state: as in `load_resnet18`; `classifier.*` is left out.
    """
    names = _mobilenet_v2_names(model)
    _fill(names, path_or_state, "load_mobilenet_v2", ignored="classifier.")


def _resnet18_names(model) -> Iterator[tuple[str, nnx.Module]]:
    """Pairs of PyTorch's prefix and our convolution or norm."""
    yield "conv1", model.stem.conv
    yield "bn1", model.stem.norm
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage):
            prefix = f"layer{i + 1}.{j}"
            yield f"{prefix}.conv1", block.first.conv
            yield f"{prefix}.bn1", block.first.norm
            yield f"{prefix}.conv2", block.second.conv
            yield f"{prefix}.bn2", block.second.norm
            if block.projection is not None:
                yield f"{prefix}.downsample.0", block.projection.conv
                yield f"{prefix}.downsample.1", block.projection.norm


def _mobilenet_v2_names(model) -> Iterator[tuple[str, nnx.Module]]:
    for i, block in enumerate(model.blocks):
        prefix = f"features.{i}"
        if not hasattr(block, "layers"):  # the first and the last convolution
            yield f"{prefix}.0", block.conv
            yield f"{prefix}.1", block.norm
            continue
        *inner, last = block.layers
        for j, layer in enumerate(inner):
            yield f"{prefix}.conv.{j}.0", layer.conv
            yield f"{prefix}.conv.{j}.1", layer.norm
        yield f"{prefix}.conv.{len(inner)}", last.conv
        yield f"{prefix}.conv.{len(inner) + 1}", last.norm


def _fill(names, path_or_state, function, ignored):
    network = {"load_resnet18": "ResNet18", "load_mobilenet_v2": "MobileNetV2"}
    slots = {}
    for prefix, layer in names:
        slots |= layer_slots(prefix, layer)
    state = {
        key: value
        for key, value in _read(path_or_state, function).items()
        if not key.startswith(ignored) and not key.endswith("num_batches_tracked")
    }
    fill(
        slots,
        state,
        caller=function,
        whole=f"a {network[function]}'s",
        cure="Build the model with the width of the weights.",
    )


def _read(path_or_state, function) -> Mapping:
    if isinstance(path_or_state, Mapping):
        return path_or_state
    path = os.fspath(path_or_state)
    if path.startswith("hf-hub:"):
        path = _download(path.removeprefix("hf-hub:"), function)
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(
            f"{function} reads {path} through safetensors, which is not installed. "
            "Run `pip install 'modal-aware-jax[train]'`, or pass a dict of arrays."
        ) from error
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{function}: there is no file {path}. Give a .safetensors file, "
            "'hf-hub:owner/name', or a dict of arrays."
        )
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{function}: {path} ({os.path.getsize(path):,} bytes) is not a whole "
            f".safetensors file: {error}. If it was downloaded, download it again; "
            "PyTorch's own .pth files must be saved anew with "
            "safetensors.torch.save_file."
        ) from error


def _download(name, function):
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ImportError(
            f"{function}: 'hf-hub:{name}' needs huggingface_hub, which is not "
            "installed. Run `pip install 'modal-aware-jax[hub]'`, or download the "
            "repository's model.safetensors yourself and give its path."
        ) from error
    repository, _, revision = name.partition("@")
    return hf_hub_download(repository, "model.safetensors", revision=revision or None)
