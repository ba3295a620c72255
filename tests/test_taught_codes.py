"""Codes that learn from the label head: the loss, and a network trained by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_end_to_end import tiny_config

from modal_aware_jax import build, modes
from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.hashing.head import HashHead, TaughtHashHead
from modal_aware_jax.losses.taught_codes import steepness, taught_code_loss
from modal_aware_jax.retrieval import average_precision


def config_of(method="concat", loss="expected_ap", label_weight=1.0, **model):
    config = tiny_config(method)
    with config.unlocked():
        config.loss.name, config.loss.label_weight = loss, label_weight
        config.model.head_features = 32
        for name, value in model.items():
            config.model[name] = value
    return config


def test_sure_labels_and_steep_bits_give_the_evaluators_average_precision():
    random = np.random.default_rng(0)
    signs = np.where(random.normal(size=(40, 16)) > 0, 1, -1)
    labels = (random.random((40, 5)) < 0.3).astype(np.uint8)
    packed, rest = np.asarray(pack(signs)), ~np.eye(40, dtype=bool)
    scores = [
        average_precision(
            packed[i : i + 1],
            packed[rest[i]],
            labels[i : i + 1],
            labels[rest[i]],
            num_bits=16,
        )[0]
        for i in range(40)
        if (labels[rest[i]] @ labels[i]).any()
    ]
    u = random.uniform(0.1, 3, signs.shape) * signs
    logits = np.where(labels, 99.0, -99.0).astype(np.float32)
    loss = taught_code_loss(u.astype(np.float32), logits, 1e3)
    assert float(loss) == pytest.approx(1 - np.mean(scores), abs=1e-4)


def test_no_gradient_reaches_the_logits_and_bits_have_a_finite_one():
    u, logits = jnp.zeros((6, 8)).at[0].set(1e-3), jnp.linspace(-2, 2, 18)
    logits = logits.reshape(6, 3)
    of_u, of_logits = jax.grad(taught_code_loss, (0, 1))(u, logits, 1000.0)
    assert np.isfinite(of_u).all() and not of_logits.any()


def test_bits_grow_steeper_from_one_to_a_thousand():
    betas = [float(steepness(jnp.int32(step), 640)) for step in (0, 320, 639, 640, 700)]
    np.testing.assert_allclose(betas, [1, 31.62, 989.3, 1000, 1000], rtol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    experiment = build.experiment(config_of(nested_bits=(8,)))
    return workdir, experiment, modes.train(experiment, workdir)


def test_a_run_trains_both_heads_counts_its_steps_and_goes_to_the_evaluator(run):
    workdir, experiment, results = run
    fresh, trained = experiment.model, build.experiment(config_of(nested_bits=(8,)))
    again = modes.evaluate_run(trained, workdir)
    assert again["map_expected"] == results["map_expected"] > 0.3
    trained = trained.model
    for part in ("direct", "labels", "hidden", "code"):
        before, after = (
            jax.tree.leaves(nnx.state(getattr(model.head, part), nnx.Param))
            for model in (fresh, trained)
        )
        assert any((a != b).any() for a, b in zip(before, after, strict=True)), part
    assert trained.label_head is None
    assert int(trained.taught_steps.steps[...]) == 2 * 3  # epochs of 150 in 50s


def test_codes_are_a_function_of_the_label_logits_alone(run):
    _, experiment, _ = run
    head, joint = experiment.model.head, jax.random.normal(jax.random.key(0), (4, 8))
    joint = jnp.resize(joint, (4, head.in_features))
    np.testing.assert_array_equal(head(joint), head.of_labels(head.labels(joint)))


@pytest.mark.parametrize(
    "config",
    [
        config_of(label_weight=0.0),
        config_of("csq", "csq"),
        config_of(head_features=0),
    ],
)
def test_without_label_head_or_with_another_loss_codes_are_the_losss_own(config):
    assert isinstance(build.experiment(config).model.head, HashHead)


def test_one_modality_alone_has_the_head_too():
    for method in ("image", "text"):
        model = build.experiment(config_of(method)).model
        assert isinstance(model.head, TaughtHashHead) and model.label_head is None


@pytest.mark.parametrize("loss", ["soft_ap", "listwise"])
def test_losses_by_the_label_head_refuse_to_be_without_one(loss):
    with pytest.raises(ValueError, match=f"{loss} learns .*label_weight above 0"):
        build.experiment(config_of(loss=loss, label_weight=0.0))
