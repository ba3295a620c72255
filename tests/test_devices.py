import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from modal_aware_jax.training import devices
from modal_aware_jax.training.update import TrainState

HERE = pathlib.Path(__file__).parent
EIGHT = AbstractMesh((8, 1), (devices.DATA, devices.TENSOR))
FOUR_BY_TWO = AbstractMesh((4, 2), (devices.DATA, devices.TENSOR))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three steps on one, on eight and on 4 x 2 simulated devices."""
    path = tmp_path_factory.mktemp("eight") / "results.npz"
    done = subprocess.run(
        [sys.executable, str(HERE / "eight_devices.py"), str(path)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": f"{HERE.parent}:{HERE}",
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as saved:
        return dict(saved)


def of(results, name):
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): value
        for key, value in results.items()
        if key.startswith(prefix)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eight", "tensor"])
def test_many_devices_train_the_parameters_of_one(results, name):
    """Up to 1e-5 of the largest number of an array: sums have another order.

    The momentum, in which gradients cancel, up to 1e-4.
    """
    np.testing.assert_allclose(
        results[f"{name}-losses"], results["one-losses"], rtol=1e-5
    )
    one, many = of(results, "one"), of(results, name)
    assert one.keys() == many.keys() and len(one) > 40
    for path, expected in one.items():
        scale = np.abs(expected).max() * (10 if "opt_state" in path else 1)
        np.testing.assert_allclose(
            many[path], expected, rtol=0, atol=1e-5 * scale + 1e-9, err_msg=path
        )


@pytest.mark.slow
def test_the_steps_moved_what_is_compared(results):
    losses = results["one-losses"]
    assert np.isfinite(losses).all() and len(set(losses)) == 3
    assert int(of(results, "one")["step"]) == 3
    means = of(results, "one")["stats.backbone.first.norm.mean"]
    assert np.abs(means).max() > 1e-3


@pytest.mark.slow
def test_batches_are_split_and_no_image_or_map_is_sent_around(results):
    program = str(results["program"])
    assert re.search(r"f32\[2,16,16,3\]\S* parameter", program)  # 16 images on 8
    check_only_sums_of_maps_are_sent(program)


def check_only_sums_of_maps_are_sent(program):
    assert "all-reduce" in program
    gathered = re.findall(r"= \(?\w+\[([\d,]*)\]\S* all-(?:gather|to-all)", program)
    assert all(shape.count(",") < 3 for shape in gathered), gathered


@pytest.mark.slow
def test_convolutions_in_chunks_keep_a_batch_split(results):
    program = str(results["convolving"])
    assert re.search(r"f32\[2,8,8,4\]\S* parameter", program)
    check_only_sums_of_maps_are_sent(program)
    one, many = of(results, "convolved-one"), of(results, "convolved")
    assert len(one) == len(many) == 3
    for name, expected in one.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(many[name], expected, rtol=0, atol=3e-6 * scale)


@pytest.mark.slow
def test_the_wide_text_weights_are_split_when_asked(results):
    whole, part = of(results, "one"), of(results, "tensor-shard")
    for name, split in {
        "params.text.dense_wide.kernel": (9, 16),
        "params.text.dense_wide.bias": (16,),
        "params.text.dense_narrow.kernel": (16, 8),
        "params.block1.kernel_network.text_query.kernel": (32, 16),
        "params.block1.channel_attention.text_logits.kernel": (36, 16),
        "params.block2.kernel_network.text_query.kernel": (8, 8),
        "params.head.dense.kernel": (14, 8),
    }.items():
        assert tuple(part[name]) == split, name
        momentum = [key for key in part if key.endswith("trace." + name[7:])]
        assert tuple(part[momentum[0]]) == split
        assert whole[name].size > 0
    for name, shape in of(results, "eight-shard").items():
        assert tuple(shape) == whole[name].shape, name


def test_a_batch_that_the_devices_cannot_divide_is_refused():
    devices.check_batch_size(96, EIGHT)
    with pytest.raises(ValueError) as refused:
        devices.check_batch_size(100, EIGHT)
    message = str(refused.value)
    assert "A batch of 100 cannot be split over 8 devices" in message
    assert "batch_size=96 or 104" in message
    assert "or use 1, 2, 4, 5 devices for batches of 100" in message
    with pytest.raises(ValueError, match="batch_size=8, or use 1, 2, 3, 6 devices"):
        devices.check_batch_size(6, EIGHT)


def test_tensor_parallel_must_divide_devices_and_width():
    with pytest.raises(ValueError, match="tensor_parallel is 3, but .* 1 devices"):
        devices.device_mesh(3)
    state = TrainState(jnp.int32(0), {"text": {"w": jnp.zeros((3, 9))}}, {}, ())
    with pytest.raises(ValueError, match="does not divide the wide text vector of 9"):
        devices.state_shardings(state, FOUR_BY_TWO, 9)
    params = {"text": {"w": jnp.zeros((8, 8))}, "head": {"w": jnp.zeros((8, 8))}}
    state = TrainState(jnp.int32(0), params, {}, ())
    where = devices.state_shardings(state, FOUR_BY_TWO, 8)
    assert where.params["text"]["w"].spec == PartitionSpec(None, devices.TENSOR)
    assert where.params["head"]["w"].spec == PartitionSpec()


def test_one_device_is_a_mesh_too():
    mesh = devices.device_mesh()
    batch = devices.put_batch({"x": np.arange(6.0, dtype=np.float32)}, mesh)
    np.testing.assert_array_equal(batch["x"], np.arange(6.0))
    tree = {"a": np.ones(3, np.float32), "n": jnp.int32(4)}
    on_mesh = devices.put(tree, devices.replicated(mesh))
    assert on_mesh["a"].sharding == devices.replicated(mesh) and int(on_mesh["n"]) == 4
    assert devices.put(on_mesh, devices.replicated(mesh))["a"] is on_mesh["a"]
    expected = jax.random.normal(jax.random.key(7), (2,))
    found = jax.random.normal(devices.key_of(7, mesh), (2,))
    np.testing.assert_array_equal(found, expected)
    assert devices.share() == (0, 1)
