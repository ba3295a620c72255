"""Every method of the tables learns: better than chance on pairs it never saw."""

import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax import build, modes
from modal_aware_jax.data import pipeline, shapes
from modal_aware_jax.experiment import backbones
from modal_aware_jax.experiment.losses import staged_beta
from modal_aware_jax.hashing.codes import binarize, pack
from modal_aware_jax.losses import central, pairwise
from modal_aware_jax.losses.contrastive import contrastive
from modal_aware_jax.losses.pairwise import hashnet_beta
from modal_aware_jax.losses.triplet import ninh
from modal_aware_jax.modes.encoder import lower_maps
from modal_aware_jax.retrieval.metrics import mean_average_precision
from modal_aware_jax.training import update as updates

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
# Of MAP: above chance, and above the same network before training, whose random
# features already tell something.
ABOVE_CHANCE, ABOVE_START = 0.1, 0.03
NUM_EPOCHS, BATCH, SIZE = 12, 64, 16


class TinyBackbone(nnx.Module):
    """Two convolutions in place of a network, for compile times of a second."""

    lower_features, upper_features, num_lower_blocks = 24, 100, 1

    def __init__(self, *, rngs):
        self.first = nnx.Conv(3, 24, (4, 4), strides=4, rngs=rngs)
        self.second = nnx.Conv(24, 100, (2, 2), strides=2, rngs=rngs)

    def lower(self, images, *, train):
        return nnx.relu(self.first(images))

    def upper(self, maps, *, train):
        return nnx.relu(self.second(maps))


@pytest.fixture(scope="module")
def pairs():
    """Shapes with the labels coast-day to hills-night alone, one a pair.

    The picture tells day from night, the tags tell coast from hills, so that each
    modality alone gets half of the way and a tiny network sees it.
    """
    pairs = shapes.load(num_pairs=900, image_size=32)
    assert pairs.label_names[-4:] == shapes.ONLY_BOTH
    return dataclasses.replace(
        pairs, labels=pairs.labels[:, -4:], label_names=shapes.ONLY_BOTH
    )


@pytest.fixture(scope="module")
def images(pairs):
    """All pictures, uint8 [N, S, S, 3]."""
    batches = pipeline.eval_batches(
        pairs, np.arange(len(pairs)), batch_size=100, image_size=SIZE
    )
    return np.concatenate([batch["image"] for batch in batches])


@pytest.fixture
def tiny(monkeypatch):
    kind = backbones.BACKBONES["resnet18"]._replace(
        constructor=TinyBackbone, block_of=lambda path: 0
    )
    monkeypatch.setitem(backbones.BACKBONES, "tiny", kind)


def tiny_config(method):
    config = runpy.run_path(str(CONFIGS / "shapes.py"))["get_config"](
        f"method={method},bits=16"
    )
    config.backbone = dict(name="tiny", options={}, weights="", frozen_blocks=0)
    config.data.num_queries, config.data.num_train = 150, 640
    config.data.num_validation = 0
    config.model.text_widths = (32, 100)  # compact bilinear pooling asks for width
    config.optimizer.learning_rate = config.optimizer.backbone_learning_rate = 3e-3
    config.optimizer.warmup_steps = 0
    config.training.batch_size, config.training.num_epochs = BATCH, NUM_EPOCHS
    return config


def batch_of(pairs, images, index):
    return {
        "image": images[index],
        "text": pairs.text[index].astype(np.float32),
        "labels": pairs.labels[index],
        "index": index.astype(np.int32),
    }


def train(experiment, images):
    """Trains for all its epochs -> the state, and the loss of each step."""
    pairs, order = experiment.collection, np.random.RandomState(0)
    tx = experiment.make_optimizer(len(experiment.split.train) // BATCH)
    graphdef, params, stats = updates.split_model(experiment.model)
    update = updates.make_update(graphdef, experiment.loss, tx)
    state, losses = updates.init_state(params, stats, tx), []
    for _ in range(experiment.num_epochs):
        positions = order.permutation(experiment.split.train)
        for index in positions.reshape(-1, BATCH):
            batch = batch_of(pairs, images, index)
            state, metrics = update(state, batch, jax.random.key(0))
            losses.append(float(metrics["loss"]))
    return updates.merge_model(graphdef, state), np.array(losses)


def map_of(experiment, model, images):
    pairs, parts = experiment.collection, experiment.split
    batch = batch_of(pairs, images, np.arange(len(pairs)))
    codes = np.asarray(pack(binarize(jax.jit(experiment.output)(model, batch))))
    return mean_average_precision(
        codes[parts.query],
        codes[parts.database],
        pairs.labels[parts.query],
        pairs.labels[parts.database],
        num_bits=16,
    )


def chance(experiment):
    """The share of relevant items, averaged over the queries: a random order's MAP."""
    pairs, parts = experiment.collection, experiment.split
    query, database = pairs.labels[parts.query], pairs.labels[parts.database]
    return np.mean([(database & own).any(axis=1).mean() for own in query])


# The others differ from one of these in a part that has tests of its own: networks in
# those of their blocks, losses below.
FAST = ("modal_aware", "text", "dpsh", "divide_and_encode")


SLOW = sorted(set(build.METHODS) - set(FAST))

# Plain products sum over C x R weights: blocks of them need a pace of their own.
LITERAL = ("modal_aware_paper", "modal_aware_low_rank", "modal_aware_squeezed")


@pytest.mark.parametrize(
    "method",
    [*FAST, *(pytest.param(method, marks=pytest.mark.slow) for method in SLOW)],
)
def test_the_method_learns(method, tiny, pairs, images):
    config = tiny_config(method)
    if method in LITERAL:
        config.optimizer.block_learning_rate = 0.1
    experiment = build.experiment(config, pairs)
    before = map_of(experiment, experiment.model, images)
    model, losses = train(experiment, images)
    assert np.isfinite(losses).all()
    score = map_of(experiment, model, images)
    assert score > chance(experiment) + ABOVE_CHANCE
    assert score > before + ABOVE_START


@pytest.mark.slow
def test_literal_blocks_reach_what_the_network_without_blocks_reaches(
    tiny, pairs, images
):
    """Two in a row, as a newcomer puts them there; slow ones are ahead of none.

    Half of the pairs' label is told by the picture and half by the words.
    """
    scores = {}
    for method, pace in (("concat", 1), ("modal_aware_paper", 1), (None, 0.1)):
        config = tiny_config(method or "modal_aware_paper")
        config.optimizer.learning_rate = config.optimizer.backbone_learning_rate = 1e-3
        config.optimizer.block_learning_rate = float(pace)
        config.training.num_epochs = 24
        experiment = build.experiment(config, pairs)
        model, _ = train(experiment, images)
        scores[method] = map_of(experiment, model, images)
    assert scores["modal_aware_paper"] > scores["concat"] - 0.03
    assert scores[None] > scores["concat"] + 0.01


def test_text_alone_reads_no_image(pairs):
    config = tiny_config("text")
    config.backbone.name = "resnet18"
    config.training.cached_maps, config.training.map_crop = True, 8
    experiment = build.experiment(config, pairs)
    maps = lower_maps(experiment)
    assert maps.shape == (len(pairs), 2, 1, 1, 1) and not any(maps.strides)
    batches = pipeline.cached_train_batches(
        maps, pairs, experiment.split.train, batch_size=8, seed=0
    )
    batch = {name: jax.numpy.asarray(x) for name, x in next(iter(batches)).items()}
    loss = experiment.loss(experiment.model, batch, jax.random.key(0))
    assert np.isfinite(loss)


def by_hand(method, experiment, u, labels):
    """The loss of a method's relaxed bits, with the options of its table."""
    if method == "contrastive":
        return contrastive(jnp.tanh(u), labels, margin=1.0 * 16**0.5)
    if method == "divide_and_encode":
        return ninh(u, labels, margin=16 / 16)
    if method == "hashnet":  # its first stage
        return pairwise.hashnet(u, labels, alpha=0.1, beta=1.0)
    if method == "dsh":
        return pairwise.dsh(u, labels, margin=2.0 * 16, quantization_weight=0.1)
    centers = central.hash_centers(4, 16, experiment.seed)
    bits = central.tie_bits(16, experiment.seed)
    return central.csq(u, labels, centers, bits, quantization_weight=1e-4)


@pytest.mark.parametrize(
    "method", ["dsh", "hashnet", "csq", "contrastive", "divide_and_encode"]
)
def test_a_methods_loss_is_that_of_its_networks_bits(method, tiny, pairs, images):
    experiment = build.experiment(tiny_config(method), pairs)
    batch = batch_of(pairs, images, experiment.split.train[:8])
    model = experiment.model
    joint = model.joint(normalized(batch), batch["text"], train=True)
    expected = by_hand(method, experiment, model.head(joint), batch["labels"])
    loss = experiment.loss(model, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_hashnet_sharpens_as_published_over_160_epochs():
    """Against the loop of public code: a stage is 20 epochs, of 7 steps here."""
    for epoch in range(160):
        for step in (7 * epoch, 7 * epoch + 6):
            beta = float(staged_beta(jax.numpy.int32(step), 160 * 7, 8))
            assert beta == pytest.approx(hashnet_beta(epoch), rel=1e-6)


def test_the_bank_of_dpsh_holds_the_latest_codes(tiny, pairs, images):
    """Two steps by hand: rows not yet seen count as dissimilar, with product 0."""
    experiment = build.experiment(tiny_config("dpsh"), pairs)
    train, model = experiment.split.train, experiment.model
    codes, labels = np.zeros((640, 16)), np.zeros((640, pairs.num_labels))
    for rows in (np.arange(0, 8), np.arange(6, 14)):
        batch = batch_of(pairs, images, train[rows])
        joint = model.joint(normalized(batch), batch["text"], train=True)
        u = np.asarray(model.head(joint))
        codes[rows], labels[rows] = u, batch["labels"]
        theta = u @ codes.T / 2
        similar = (batch["labels"] @ labels.T) > 0
        expected = np.mean(np.log1p(np.exp(theta)) - similar * theta)
        expected += 0.1 * np.mean((u - np.sign(u)) ** 2)
        loss = experiment.loss(model, batch, jax.random.key(0))
        assert float(loss) == pytest.approx(expected, rel=1e-4)
    bank = np.asarray(model.memory.codes[...])
    np.testing.assert_allclose(bank, codes, atol=1e-5)


def normalized(batch):
    kind = backbones.BACKBONES["tiny"]
    return build.normalizer(kind.mean, kind.deviation)(batch["image"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpsh", "hashnet"])
def test_a_resumed_run_remembers_what_its_loss_did(method, tiny, pairs, tmp_path):
    def run(directory, num_epochs):
        config = tiny_config(method)
        config.data.image_size = SIZE
        config.optimizer.schedule = "step"  # no other rate for another end
        config.loss.options.hashnet.num_stages = num_epochs  # nor other stages
        config.training.num_epochs = num_epochs
        experiment = build.experiment(config, pairs)
        modes.train(experiment, tmp_path / directory)
        record = modes.evaluate.load_run(experiment, tmp_path / directory)
        memory = jax.tree.leaves(nnx.to_pure_dict(nnx.state(experiment.model.memory)))
        return record["step"], [np.asarray(leaf) for leaf in memory]

    run("stopped", 1)
    step, memory = run("stopped", 2)
    straight_step, straight = run("straight", 2)
    assert step == straight_step == 20
    assert any(leaf.any() for leaf in memory)
    for ours, theirs in zip(memory, straight, strict=True):
        np.testing.assert_array_equal(ours, theirs)
