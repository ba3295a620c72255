"""Codes whose first bits are codes: the loss by hand, prefixes in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_end_to_end import tiny_config

from modal_aware_jax import build, modes
from modal_aware_jax.hashing.codes import unpack
from modal_aware_jax.hashing.nested import check_lengths, nested_loss
from modal_aware_jax.losses.contrastive import contrastive
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.checkpoint import Checkpointer


def test_the_loss_is_the_mean_over_the_prefixes():
    asked = []

    def loss_of(bits):
        asked.append(bits)
        return lambda u, batch, memory: bits * u.sum() + batch

    total = nested_loss(loss_of, (1, 3))
    u = jnp.array([[1.0, 10.0, 100.0, 1000.0]])
    assert float(total(u, 5.0, None)) == ((1 * 1 + 5) + (3 * 111 + 5)) / 2
    assert asked == [1, 3]


def test_lengths_are_sorted_and_end_with_the_whole():
    assert check_lengths((), 16) == (16,)
    assert check_lengths((8, 16, 4), 16) == (4, 8, 16)
    for wrong in ((0,), (17,), (8, 8)):
        with pytest.raises(ValueError, match=r"nested_bits=.*from 1 to 16"):
            check_lengths(wrong, 16)


def config(**changes):
    config = tiny_config("text")
    with config.unlocked():
        config.model.num_bits = 16
        config.model.nested_bits = (4, 8)
        config.loss.name = "expected_ap"
        config.update_from_flattened_dict(changes)
    return config


def test_the_networks_loss_is_the_mean_of_its_prefixes():
    experiment = build.experiment(config(**{"loss.name": "contrastive"}))
    batch = {
        "image": np.zeros((30, 1, 1, 1), np.float32),
        "text": experiment.collection.text[:30].astype(np.float32),
        "labels": experiment.collection.labels[:30],
        "index": np.arange(30),
    }
    found = experiment.loss(experiment.model, batch, jax.random.key(0))
    joint = experiment.model.joint(None, jnp.asarray(batch["text"]), train=True)
    h = jnp.tanh(experiment.model.head(joint))
    each = [contrastive(h[:, :b], batch["labels"], margin=b**0.5) for b in (4, 8, 16)]
    assert float(found) == pytest.approx(float(sum(each)) / 3, rel=1e-4)


def test_a_loss_with_a_memory_of_one_length_is_refused():
    with pytest.raises(ValueError, match="nested_bits: the loss dpsh_bank keeps"):
        build.experiment(config(**{"loss.name": "dpsh_bank"}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of initial weights and its experiment."""
    workdir = tmp_path_factory.mktemp("run")
    experiment = build.experiment(config())
    tx = experiment.make_optimizer(3)
    _, params, stats = updates.split_model(experiment.model, experiment.is_trained)
    state = updates.init_state(params, stats, tx)
    record = {"epoch": 0, "history": [], "best": None}
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(0, state, data=None, run=record)
    return workdir, experiment


def bits_of(path):
    with np.load(path) as kept:
        return np.asarray(unpack(kept["codes"], int(kept["num_bits"])))


def test_a_prefix_is_evaluated_encoded_and_searched(run):
    workdir, whole = run
    short = build.shortened(whole, 8)
    codes = bits_of(modes.encode_collection(whole, workdir))
    own = bits_of(modes.encode_collection(short, workdir))
    assert own.shape[1] == 8
    np.testing.assert_array_equal(own, codes[:, :8])
    result = modes.evaluate_run(short, workdir)
    assert result["num_bits"] == 8 and (workdir / "report-8" / "index.html").is_file()
    pairs = whole.collection
    found = modes.search_run(short, workdir, words=pairs.captions[7], k=len(pairs))
    assert {row["id"]: row["distance"] for row in found}[pairs.ids[7]] == 0
    assert (workdir / "collection-0-8.index").is_file()


def test_a_prefix_is_exported(run):
    workdir, whole = run
    folder = modes.export_run(build.shortened(whole, 4), workdir)
    assert folder.name == "export-4"
    text = whole.collection.text[:5].astype(np.float32)
    images = np.zeros((5, whole.image_size, whole.image_size, 3), np.uint8)
    expected = np.asarray(whole.model(images, text, train=False))[:, :4]
    for name in ("encoder.stablehlo", "model.safetensors"):
        model = modes.load_model_file(folder / name)
        assert model.num_bits == 4
        relaxed = model.relaxed({"image": images, "text": text})
        np.testing.assert_allclose(relaxed, expected, atol=1e-5)


def test_another_length_is_refused_with_a_cure(run):
    with pytest.raises(ValueError, match=r"--bits=12: this run's codes have 4, 8, 16"):
        build.shortened(run[1], 12)
