"""A modality that is not there: stand-ins, what training takes away, every mode."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_end_to_end import tiny_config
from test_multimodal_hashing import IMAGES, TEXT, TinyBackbone

from modal_aware_jax import build, modes
from modal_aware_jax.backbones.stand_in import StandIn, stand_in_where_missing
from modal_aware_jax.blocks.modal_aware import ModalAwareBlock, PassThrough
from modal_aware_jax.compare.cells import fingerprint
from modal_aware_jax.data import pipeline
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.experiment.inputs import drop_modalities, presence
from modal_aware_jax.experiment.losses import LOSSES, Loss
from modal_aware_jax.hashing.exported import export_encoder
from modal_aware_jax.models import MultimodalHashing
from modal_aware_jax.retrieval.index import HammingIndex
from modal_aware_jax.tasks.joint_vector import head_loss, head_output
from modal_aware_jax.training import update as updates
from modal_aware_jax.training.checkpoint import Checkpointer

SOME = np.array([True, False, True, False, True])


def test_the_vector_stands_where_the_mask_says():
    maps = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 1, 2)
    maps[1] = np.nan  # what is not there is not read

    def total(maps, vector):
        return stand_in_where_missing(maps, vector, jnp.array([True, False])).sum()

    vector = jnp.array([10.0, 20.0])
    value, (to_maps, to_vector) = jax.jit(jax.value_and_grad(total, (0, 1)))(
        maps, vector
    )
    assert float(value) == sum(range(6)) + 3 * 30
    assert to_maps[0].min() == 1 and not to_maps[1].any()
    assert to_vector.tolist() == [3, 3]
    assert stand_in_where_missing(vector[None], vector, None) is not vector
    with pytest.raises(ValueError, match=r"expected features \[B, ..., 2\], got"):
        stand_in_where_missing(jnp.ones((2, 3)), vector, None)
    with pytest.raises(ValueError, match=r"expected a mask \[2\] of the rows"):
        stand_in_where_missing(jnp.ones((2, 2)), vector, jnp.ones(3))


def network(block, stand_in=StandIn):
    rngs = nnx.Rngs(0)
    model = MultimodalHashing(
        TinyBackbone(rngs=rngs),
        9,
        12,
        text_widths=(16, 7),
        block=block,
        stand_in=stand_in,
        rngs=rngs,
    )
    for part in (model.image_stand_in, model.text_stand_in):
        part.vector[...] = 0.3 * jnp.ones_like(part.vector[...])
    return model


@pytest.mark.parametrize("block", [ModalAwareBlock, PassThrough])
def test_a_missing_modality_is_not_read(block):
    model = network(block)

    @jax.jit
    def relaxed(images, text, image, words):
        present = {"image": image, "text": words}
        return model(images, text, train=False, present=present)

    all_rows = np.ones(5, bool)
    whole = relaxed(IMAGES, TEXT, all_rows, all_rows)
    for masks, other in (
        ((SOME, all_rows), (2 - IMAGES, TEXT)),
        ((all_rows, SOME), (IMAGES, 1 - TEXT)),
    ):
        found = relaxed(IMAGES, TEXT, *masks)
        np.testing.assert_allclose(found[SOME], whole[SOME], rtol=1e-5)
        assert (abs(found - whole)[~SOME].max(axis=1) > 1e-4).all()
        np.testing.assert_allclose(
            relaxed(*other, *masks)[~SOME], found[~SOME], rtol=1e-5
        )


def test_means_that_were_computed_once_have_the_same_stand_in():
    model = network(PassThrough)
    present = {"image": SOME, "text": ~SOME}
    maps = model.backbone.upper(model.backbone.lower(IMAGES, train=False), train=False)
    means = maps.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(
        model.joint_from_means(means, TEXT, train=False, present=present),
        model.joint(IMAGES, TEXT, train=False, present=present),
        atol=1e-6,
    )


def test_no_row_loses_both():
    text = jnp.ones((4000, 3)).at[:400].set(0)
    has_image = np.ones(4000, bool)
    has_image[400:800] = False
    batch = {"has_image": has_image, "index": jnp.arange(4000)}
    taken = drop_modalities(
        jax.random.key(0), batch, text, image_rate=0.25, text_rate=0.5
    )
    image, words = np.asarray(taken["has_image"]), np.asarray(taken["has_text"])
    assert (image | words).all() and taken["index"] is batch["index"]
    assert image[:400].all() and not words[:400].any()
    assert words[400:800].all() and not image[400:800].any()
    np.testing.assert_allclose(1 - image[800:].mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(1 - words[800:].mean(), 0.5, atol=0.03)
    pieces = {"tokens": jnp.ones((4000, 3, 2)), "mask": text != 0}
    same = drop_modalities(
        jax.random.key(0), batch, pieces, image_rate=0.25, text_rate=0.5
    )
    for name in pipeline.PRESENCE:
        np.testing.assert_array_equal(same[name], taken[name])
    both_masks = presence({"has_text": [True, False, True]}, jnp.eye(3).at[2].set(0))
    assert both_masks["image"] is None
    assert both_masks["text"].tolist() == [True, False, False]


def config(method="modal_aware", **changes):
    config = tiny_config(method)
    with config.unlocked():
        config.data.options.num_pairs, config.data.num_train = 160, 60
        config.update_from_flattened_dict(changes)
    return config


def test_without_missing_modalities_all_is_as_it_was():
    old = config()
    with old.unlocked():
        del old.model["image_missing"], old.model["text_missing"]
    assert fingerprint(config()) == fingerprint(old)
    assert fingerprint(config(**{"model.text_missing": 0.1})) != fingerprint(old)
    experiment = build.experiment(config())
    assert not experiment.model.has_stand_ins
    names = {path[0] for path, _ in nnx.to_flat_state(nnx.state(experiment.model))}
    assert not {name for name in names if "stand_in" in name}
    assert experiment.collection.has_text is None
    batch = next(
        iter(
            pipeline.eval_batches(
                experiment.collection, [0, 1], batch_size=2, image_size=32
            )
        )
    )
    assert not set(pipeline.PRESENCE) & set(batch)


def test_shares_that_are_none_are_refused():
    for image, text in ((0.6, 0.5), (-0.1, 0.2)):
        with pytest.raises(ValueError, match="1 at most together, got"):
            changes = {"model.image_missing": image, "model.text_missing": text}
            build.experiment(config(**changes))


class Net:
    """A network whose head is not there."""

    has_stand_ins = True

    def head(self, x):
        return x


def loss_of(given, joint):
    pairs = Collection(
        "one", ["a"], [b""], np.ones((1, 3)), [""], np.ones((1, 2)), "abc", "xy"
    )
    none = Loss(lambda setting: lambda u, batch, memory: u.sum(), {})
    with given.unlocked():
        given.loss.name = "none"
    parts = types.SimpleNamespace(train=np.arange(100))
    return head_loss({**LOSSES, "none": none}, given, pairs, parts, Net(), joint)


BATCH = {"text": jnp.ones((1000, 3)), "labels": jnp.ones((1000, 2))}


def test_training_takes_modalities_away_and_evaluation_does_not():
    seen = []

    def joint(model, batch, text, **options):
        seen.append({name: batch.get(name) for name in pipeline.PRESENCE})
        return jnp.ones((len(text), 4))

    given = config(**{"model.image_missing": 0.3, "model.text_missing": 0.6})
    loss_of(given, joint)(Net(), BATCH, jax.random.key(0))
    head_output(joint)(Net(), BATCH)
    shares = [float(np.mean(seen[0][name])) for name in pipeline.PRESENCE]
    np.testing.assert_allclose(shares, [0.7, 0.4], atol=0.05)
    assert seen[1] == {"has_image": None, "has_text": None}


def test_what_else_a_step_draws_is_bit_for_bit_what_it_was():
    def joint(model, batch, text, *, train, window, rngs):
        noise = jax.random.normal(rngs.dropout(), text.shape)
        return noise * text * jax.random.normal(window, ())

    old = config(**{"training.word_dropout": 0.5})
    words, window, dropout = jax.random.split(jax.random.key(3), 3)
    kept = BATCH["text"] * jax.random.bernoulli(words, 0.5, (1000, 3))
    noise = jax.random.normal(nnx.Rngs(dropout=dropout).dropout(), (1000, 3))
    expected = (noise * kept * jax.random.normal(window, ())).sum()
    for shares in ({}, {"model.image_missing": 0.3, "model.text_missing": 0.3}):
        old.update_from_flattened_dict(shares)
        found = loss_of(old, joint)(Net(), BATCH, jax.random.key(3))
        assert float(found) == float(expected)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint with stand-ins that were not learned, and its experiment."""
    workdir = tmp_path_factory.mktemp("run")
    experiment = build.experiment(config("concat", **{"model.text_missing": 0.4}))
    model = experiment.model
    for part in (model.image_stand_in, model.text_stand_in):
        vector = part.vector[...]
        part.vector[...] = jax.random.normal(jax.random.key(1), vector.shape)
    tx = experiment.make_optimizer(3)
    _, params, stats = updates.split_model(model, experiment.is_trained)
    state = updates.init_state(params, stats, tx)
    record = {"epoch": 0, "history": [], "best": None}
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(0, state, data=None, run=record)
    return workdir, experiment


def test_search_by_one_modality_says_which(run, monkeypatch):
    workdir, experiment = run
    pairs = experiment.collection
    assert pairs.has_image.all() and pairs.has_text.all()
    index = HammingIndex(num_bits=16)
    index.add(np.zeros((len(pairs), 1), np.uint32), ids=pairs.ids)
    index.save(workdir / "collection-0.index")
    seen = []

    def remember(relaxed, batches):
        seen.append([bool(batches[0][name][0]) for name in pipeline.PRESENCE])
        return np.zeros((1, 1), np.uint32), None

    monkeypatch.setattr(modes.search, "encode", remember)
    image = workdir / "query.png"
    image.write_bytes(pairs.images[7])
    for query in ({"words": "red"}, {"image": image}, {"words": "x", "image": image}):
        modes.search_run(experiment, workdir, k=3, **query)
    assert seen == [[False, True], [True, False], [True, True]]


def test_a_program_with_masks_is_read_back(tmp_path):
    def relaxed(images, text, has_image, has_text):
        return text * has_text[:, None] - has_image[:, None]

    program = export_encoder(
        relaxed, image_size=4, text_features=2, num_masks=2, platforms=["cpu"]
    )
    (tmp_path / "encoder.stablehlo").write_bytes(program)
    model = modes.load_model_file(tmp_path)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    batch = {"image": images, "text": np.eye(2, dtype=np.float32)}
    assert model.relaxed(batch).tolist() == [[0, -1], [-1, 0]]
    batch |= {"has_image": [True, False], "has_text": [False, True]}
    assert model.relaxed(batch).tolist() == [[-1, -1], [0, 1]]


@pytest.mark.slow
def test_an_export_reads_the_masks(run):
    workdir, experiment = run
    folder = modes.export_run(experiment, workdir)
    pairs = experiment.collection
    images = np.zeros((3, 32, 32, 3), np.uint8)
    batch = {"image": images, "text": pairs.text[:3].astype(np.float32)}
    masked = {**batch, "has_image": SOME[:3], "has_text": np.array([True, True, False])}
    program, weights = (
        modes.load_model_file(folder / name)
        for name in ("encoder.stablehlo", "model.safetensors")
    )
    for given in (batch, masked):
        expected = experiment.output(experiment.model, given)
        for model in (program, weights):
            np.testing.assert_allclose(model.relaxed(given), expected, atol=1e-5)
    assert abs(program.relaxed(masked) - program.relaxed(batch)).max() > 1e-4
