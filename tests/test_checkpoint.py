import asyncio
import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from orbax.checkpoint.experimental.v1._src.handlers import json_handler
from tiny_run import Net, loss_fn, new_state

from modal_aware_jax.training.checkpoint import Checkpointer, load_model
from modal_aware_jax.training.checksums import find_damage
from modal_aware_jax.training.errors import CheckpointError
from modal_aware_jax.training.optimizer import adam_l2, by_prefix
from modal_aware_jax.training.update import (
    TrainState,
    init_state,
    make_update,
    split_model,
)


def state_of(number):
    """A state with every kind of leaf, and lists of more than ten."""
    layers = {i: {"kernel": jnp.full((2, 3), number + i / 16)} for i in range(12)}
    tx = by_prefix({"layers": adam_l2(0.1), "": optax.sgd(0.1)})
    params = {"layers": layers, "head": jnp.full(4, float(number))}
    stats = {"table": jnp.arange(3), "mean": jnp.full(2, 0.5 + number)}
    state = init_state(params, stats, tx)
    return state._replace(step=jnp.int32(number))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 10, 20 and 30; the best is 10."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpointer(directory, best="map") as checkpointer:
        for step, score in ((10, 0.9), (15, 0.4), (20, 0.5), (30, 0.6)):
            best = {"step": 10, "epoch": 1, "score": 0.9}
            checkpointer.save(
                step,
                state_of(step),
                data={"next_index": step},
                run={"best": best, "epoch": step // 10},
                metrics={"map": score},
            )
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def largest(path):
    files = [file for file in path.rglob("*") if file.is_file()]
    return max(files, key=lambda file: file.stat().st_size)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def cut(file):
    with open(file, "r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def test_all_comes_back_and_the_best_and_latest_stay(saved):
    assert sorted(int(path.name) for path in saved.iterdir()) == [10, 20, 30]
    with Checkpointer(saved, best="map") as checkpointer:
        state, data, run, messages = checkpointer.restore(state_of(0))
    assert_same(state, state_of(30))
    assert data == {"next_index": 30} and run["epoch"] == 3 and messages == []


def test_nothing_saved_yet(tmp_path):
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        assert checkpointer.restore(state_of(0)) is None


@pytest.mark.parametrize("harm", [cut, flip_a_bit, lambda file: file.unlink()])
def test_a_damaged_latest_gives_way_to_the_one_before(directory, harm):
    harm(largest(directory / "30" / "model" / "d"))
    with Checkpointer(directory) as checkpointer:
        state, data, _, messages = checkpointer.restore(state_of(0))
        assert_same(state, state_of(20))
        assert data == {"next_index": 20}
        assert len(messages) == 1
        assert "The checkpoint of step 30 is damaged (model/d/" in messages[0]
        assert (directory.parent / "damaged" / "30-0").is_dir()
        checkpointer.save(30, state_of(30), data=b"\x00\xff", run={})
        checkpointer.wait()
        assert checkpointer.restore(state_of(0))[1] == b"\x00\xff"


@pytest.mark.parametrize(
    "part", ["checksums.json", "run/data.json", "_CHECKPOINT_METADATA"]
)
def test_every_file_is_watched(directory, part):
    assert find_damage(directory / "30") is None
    flip_a_bit(directory / "30" / part)
    assert find_damage(directory / "30")


def test_all_damaged_is_an_error_and_the_next_start_is_afresh(directory):
    for path in directory.iterdir():
        cut(largest(path))
    with Checkpointer(directory) as checkpointer:
        with pytest.raises(CheckpointError, match="No undamaged checkpoint is left"):
            checkpointer.restore(state_of(0))
        assert checkpointer.restore(state_of(0)) is None


def test_unfinished_ones_do_not_count(directory):
    for step in ("10", "20", "30"):
        (directory / step / "checksums.json").unlink()
    (directory / "40.orbax-checkpoint-tmp").mkdir()
    with Checkpointer(directory) as checkpointer:
        assert checkpointer.restore(state_of(0)) is None
    assert not list(directory.iterdir())


def test_the_latest_two_and_the_best_stay(tmp_path):
    """Those saved inside an epoch, before a validation, are no better than others."""
    scores = {5: 0.1, 10: None, 15: 0.3, 20: None, 25: None, 30: 0.2, 35: None}
    with Checkpointer(tmp_path / "c", best="map") as checkpointer:
        for step, score in scores.items():
            metrics = None if score is None else {"map": score}
            checkpointer.save(step, state_of(step), data=None, run={}, metrics=metrics)
        checkpointer.wait()
        assert checkpointer.steps() == [15, 30, 35]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "15",
        "30",
        "35",
    ]


def test_the_state_may_be_donated_while_it_is_saved(tmp_path):
    add_one = jax.jit(lambda x: jax.tree.map(lambda a: a + 1, x), donate_argnums=0)
    state = TrainState(jnp.int32(0), {"w": jnp.zeros((1000, 1000))}, {}, ())
    with Checkpointer(tmp_path / "c", keep=5) as checkpointer:
        for step in (5, 10, 15):
            for _ in range(5):
                state = add_one(state)
            checkpointer.save(step, state, data=None, run={})
            state = add_one(state._replace(step=state.step - 1))
            state = state._replace(params={"w": state.params["w"] - 1})
        checkpointer.wait()
        restored, *_ = checkpointer.restore(state)
    np.testing.assert_array_equal(restored.params["w"], 15.0)
    assert restored.stats == {} and restored.opt_state == ()


def test_another_model_is_refused_by_name(directory):
    wider = state_of(0)
    wider.params["head"] = jnp.zeros(5)
    wider.params["gate"] = jnp.zeros(5)
    with Checkpointer(directory) as checkpointer:
        with pytest.raises(CheckpointError) as refused:
            checkpointer.restore(wider)
    message = str(refused.value)
    assert "params.gate is not in the checkpoint" in message
    assert "params.head is [5], in the checkpoint [4]" in message


def test_a_full_disk_is_one_message_that_names_the_last_good(directory, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    with Checkpointer(directory) as checkpointer:
        monkeypatch.setattr("modal_aware_jax.training.checkpoint.write_checksums", full)
        checkpointer.save(40, state_of(40), data=None, run={})
        with pytest.raises(CheckpointError) as failed:
            checkpointer.wait()
    assert "step 40 could not be written" in str(failed.value)
    assert "no space left on the disk" in str(failed.value)
    assert f"The last good checkpoint is {directory / '30'}." in str(failed.value)


def test_load_model_for_inference(tmp_path):
    def frozen_first(path):
        return path[:2] != ("layers", 0)

    tx = adam_l2(0.1)
    graphdef, params, stats = split_model(Net(rngs=nnx.Rngs(0)), frozen_first)
    state = init_state(params, stats, tx)
    update = make_update(graphdef, loss_fn, tx)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    outputs = {}
    with Checkpointer(tmp_path, best="map") as checkpointer:
        best = {"step": 1, "epoch": 1, "score": 0.7}
        for step in (1, 2):
            state, _ = update(state, {"x": x}, jax.random.key(0))
            model = nnx.merge(graphdef, state.params, state.stats)
            outputs[step] = np.asarray(model(x, train=False))
            score = {"map": 0.8 - step / 10}
            run = {"best": best, "config": {"num_bits": 2}}
            checkpointer.save(step, state, data=None, run=run, metrics=score)
    model = Net(rngs=nnx.Rngs(7))
    for step, number in {"latest": 2, "best": 1, 1: 1}.items():
        run = load_model(model, tmp_path, step=step)
        assert run["step"] == number and run["config"] == {"num_bits": 2}
        np.testing.assert_allclose(model(x, train=False), outputs[number], atol=1e-6)
    with pytest.raises(CheckpointError, match=r"of step 3; it has \[1, 2\]"):
        load_model(model, tmp_path, step=3)
    with pytest.raises(CheckpointError, match="kernel is not in the checkpoint"):
        load_model(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), tmp_path)
    cut(largest(tmp_path / "2"))
    assert load_model(model, tmp_path)["step"] == 1
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(CheckpointError, match="has no undamaged checkpoint"):
        load_model(model, tmp_path)


def test_the_run_record_is_plain_json(saved):
    assert json.loads((saved / "30" / "run" / "data.json").read_text())["epoch"] == 3
    assert int(new_state()[1].step) == 0


def test_what_changes_after_the_call_is_saved_as_it_was(tmp_path, monkeypatch):
    """On a slow disk the background writes when training has gone on for a while."""
    gone_on = threading.Event()
    write = json_handler.JsonHandler._background_save

    async def late(self, *args, **options):
        while not gone_on.is_set():
            await asyncio.sleep(0.01)
        return await write(self, *args, **options)

    monkeypatch.setattr(json_handler.JsonHandler, "_background_save", late)
    run = {"sums": {"count": 1, "loss": 0.5}, "history": [{"epoch": 1}]}
    data = {"next_index": 8}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state_of(1), data=data, run=run)
        data["next_index"] = 9
        del run["sums"]["count"]
        run["history"] += [{"epoch": 2}]
        gone_on.set()
        checkpointer.wait()
        _, data, run, _ = checkpointer.restore(state_of(0))
    assert data == {"next_index": 8}
    assert run == {"sums": {"count": 1, "loss": 0.5}, "history": [{"epoch": 1}]}
