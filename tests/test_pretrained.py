"""Public weights are read whole or refused with one clear message."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded_weights
from flax import nnx
from safetensors.numpy import save_file

from modal_aware_jax.backbones.pretrained import load_resnet18
from modal_aware_jax.backbones.resnet import ResNet18

WIDTH = 4


@pytest.fixture(scope="module")
def template():
    return nnx.jit(lambda: ResNet18(width=WIDTH, rngs=nnx.Rngs(0)))()


@pytest.fixture
def model(template):
    return nnx.clone(template)


@pytest.fixture
def state():
    return seeded_weights.resnet18(width=WIDTH)


def leaves(model):
    return [np.asarray(v) for v in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))]


def assert_loaded(model, state):
    np.testing.assert_array_equal(
        model.stages[1][0].projection.conv.kernel[0, 0].T,
        state["layer2.0.downsample.0.weight"][:, :, 0, 0],
    )
    kernel = model.stem.conv.kernel[...]  # [row, column, in, out]
    assert kernel[1, 2, 0, 3] == state["conv1.weight"][3, 0, 1, 2]
    np.testing.assert_array_equal(
        model.stages[3][1].second.norm.var[...], state["layer4.1.bn2.running_var"]
    )


def test_a_dict_of_arrays_with_classifier_and_counters(model, state):
    state["fc.weight"], state["fc.bias"] = np.zeros((10, 32)), np.zeros(10)
    state["layer1.0.bn1.num_batches_tracked"] = np.array(7)
    load_resnet18(model, state)
    assert_loaded(model, state)


def test_a_model_without_values_yet(state):
    model = nnx.eval_shape(lambda: ResNet18(width=WIDTH, rngs=nnx.Rngs(0)))
    load_resnet18(model, state)
    assert_loaded(model, state)


def test_every_variable_is_filled(model, state, template):
    load_resnet18(model, state)
    for old, new in zip(leaves(template), leaves(model), strict=True):
        assert (old != new).all()
        assert new.dtype == np.float32


def test_a_safetensors_file(model, state, tmp_path):
    save_file(state, tmp_path / "resnet18.safetensors")
    load_resnet18(model, tmp_path / "resnet18.safetensors")
    assert_loaded(model, state)


class Tensor:
    """Stands for a PyTorch tensor, of which the loader asks only this."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def detach(self):
        return self

    cpu = float = detach

    def numpy(self):
        return self.array


def test_pytorch_tensors(model, state):
    load_resnet18(model, {k: Tensor(v) for k, v in state.items()})
    assert_loaded(model, state)


def test_missing_and_unexpected_keys_are_all_listed(model, state, template):
    del state["conv1.weight"], state["layer3.1.bn2.bias"]
    state["head.weight"] = np.zeros(3)
    with pytest.raises(ValueError) as error:
        load_resnet18(model, state)
    message = str(error.value)
    assert "2 missing keys ['conv1.weight', 'layer3.1.bn2.bias']" in message
    assert "1 unexpected keys ['head.weight']" in message
    jax.tree.map(np.testing.assert_array_equal, leaves(template), leaves(model))


def test_wrong_shapes_name_key_expected_and_arrived(model, state, template):
    state["bn1.bias"] = np.zeros(7)
    state["layer4.0.conv1.weight"] = np.zeros((32, 16, 1, 1))
    with pytest.raises(ValueError) as error:
        load_resnet18(model, state)
    message = str(error.value)
    assert "bn1.bias: [4] expected, [7] arrived" in message
    assert (
        "layer4.0.conv1.weight: [32, 16, 3, 3] expected, [32, 16, 1, 1] arrived"
        in message
    )
    jax.tree.map(np.testing.assert_array_equal, leaves(template), leaves(model))


@pytest.mark.parametrize("kind", ["truncated", "header cut", "pickle", "empty"])
def test_truncated_and_foreign_files(model, state, tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "header cut": whole[:100],
        "pickle": b"\x80\x02}q\x00X\x05\x00\x00\x00conv1q\x01K\x01s." * 10,
        "empty": b"",
    }
    path.write_bytes(broken[kind])
    with pytest.raises(ValueError, match=r"weights.safetensors \(.* not a whole"):
        load_resnet18(model, path)


def test_another_networks_weights(model, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"encoder.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ValueError, match="not a ResNet18's: 100 missing keys"):
        load_resnet18(model, path)


def test_no_such_file(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*none.safetensors"):
        load_resnet18(model, tmp_path / "none.safetensors")


def test_hub_names_are_downloaded(model, state, tmp_path, monkeypatch):
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def hf_hub_download(*arguments, **options):
        asked.append((arguments, options))
        return str(tmp_path / "model.safetensors")

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    load_resnet18(model, "hf-hub:timm/resnet18.tv_in1k@main")
    assert_loaded(model, state)
    assert asked == [
        (("timm/resnet18.tv_in1k", "model.safetensors"), {"revision": "main"})
    ]


def test_hub_names_without_the_extra_say_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'modal-aware-jax\[hub\]'"):
        load_resnet18(model, "hf-hub:timm/resnet18.tv_in1k")


def test_weights_keep_the_models_dtype(model, state):
    half = {k: v.astype(jnp.bfloat16) for k, v in state.items()}
    load_resnet18(model, half)
    assert all(v.dtype == np.float32 for v in leaves(model))
