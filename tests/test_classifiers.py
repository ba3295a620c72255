"""The methods of classification on tokens: all have a step, one of them a whole run."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_methods import TinyBackbone, tiny  # noqa: F401

from modal_aware_jax import build, modes
from modal_aware_jax.data.text_vectors import represent, text_encoder
from modal_aware_jax.experiment import classifiers
from modal_aware_jax.experiment.classifiers import CLASSIFIERS, TOKENS, token_network
from modal_aware_jax.experiment.inputs import presence
from modal_aware_jax.fusion import PooledFusion
from modal_aware_jax.fusion.modal_aware_tokens import ModalAwareFusion
from modal_aware_jax.models.classifier import NoInteraction, TokenClassifier
from modal_aware_jax.models.token_network import (
    OneVectorNetwork,
    TokenNetwork,
    averaged,
)

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def posts_config(method="sgmft", **changes):
    config = runpy.run_path(str(CONFIGS / "posts.py"))["get_config"](f"method={method}")
    config.data.options.num_pairs, config.data.options.image_size = 120, 32
    config.data.image_size = 16
    config.data.num_queries = config.data.num_validation = 20
    config.data.num_train = 80
    config.backbone = dict(name="tiny", options={}, weights="", frozen_blocks=0)
    config.model.features, config.model.num_heads = 16, 2
    config.model.block_dropout = 0.0
    config.training.batch_size, config.training.num_epochs = 40, 1
    config.update_from_flattened_dict(changes)
    return config.lock()


@pytest.fixture
def pairs():
    return build.collection(posts_config().data)


@pytest.mark.parametrize("method", TOKENS)
def test_every_method_has_logits_and_a_loss_on_tokens(method, pairs):
    row = CLASSIFIERS[method].tokens
    seen = represent(pairs, text_encoder("word_tokens", pairs, np.arange(80)))
    text = jax.tree.map(jnp.asarray, seen.text[np.arange(4)])
    labels = jnp.asarray(seen.labels[:4])

    def step(key):  # shapes alone: nothing is computed
        trunk, options = TinyBackbone(rngs=nnx.Rngs(0)), posts_config(method).model
        width = seen.num_text_features
        network = token_network(options, trunk, width, 5, row, nnx.Rngs(0))
        outputs = network.joint(
            jnp.zeros((4, 16, 16, 3)), text, train=True, rngs=nnx.Rngs(dropout=key)
        )

        def of_head(logits):
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

        loss = of_head(network.head(outputs))
        if row.added is not None:
            loss += row.added(outputs, of_head, {"labels": labels})
        return network.head(outputs), loss

    logits, loss = jax.eval_shape(step, jax.random.key(0))
    assert logits.shape == (4, 5) and loss.shape == ()
    assert (row.added is not None) == (method in ("unis_mmc", "loss_balanced"))


@pytest.mark.slow
def test_one_run_from_words_to_its_page(pairs, tiny, tmp_path):  # noqa: F811
    config = posts_config()
    result = modes.train(build.experiment(config, pairs), tmp_path)
    assert len(result["correct"]) == 20 and result["num_items"] == 20
    again = modes.evaluate_run(build.experiment(config, pairs), tmp_path)
    assert again["accuracy"] == result["accuracy"]
    assert (tmp_path / "report" / "index.html").exists()


def test_a_picture_that_is_not_there_has_no_say(key):
    class Same(nnx.Module):
        def upper(self, maps, *, train):
            return maps

    sizes = {"features": 8, "num_heads": 2}
    plain = {"fusion": PooledFusion, "interaction": NoInteraction}
    classify = TokenClassifier(4, 3, 2, **sizes, **plain, rngs=nnx.Rngs(0))
    network = TokenNetwork(Same(), classify)
    maps = np.array(jax.random.normal(key, (3, 3, 3, 3)))
    tokens = np.array(jax.random.normal(key, (3, 5, 4)))
    text = {"tokens": tokens, "mask": np.ones((3, 5), bool)}
    batch = {"has_image": [True, False, True], "has_text": [True, True, False]}
    present = presence({k: np.array(v) for k, v in batch.items()}, text)

    @jax.jit
    def joint(maps, words):
        return network.joint_from_maps(maps, words, train=False, present=present)

    outputs = joint(maps, text)
    assert outputs["has_image"].tolist() == [True, False, True]
    assert outputs["has_text"].tolist() == [True, True, False]
    unknown = maps.copy(), {**text, "tokens": tokens.copy()}
    unknown[0][1] = unknown[1]["tokens"][2] = np.nan
    other = joint(*unknown)
    np.testing.assert_array_equal(other["logits"], outputs["logits"])
    numbers = {**text, "mask": np.ones((3, 5))}  # as good as true and false
    other = joint(maps, numbers)
    np.testing.assert_allclose(other["logits"], outputs["logits"], rtol=1e-4, atol=1e-5)
    pooled = OneVectorNetwork(Same(), network.classifier)
    _, image, masks = pooled.tokens(
        tokens, maps.reshape(3, 9, 3), text["mask"], np.ones((3, 9), bool)
    )
    np.testing.assert_allclose(image[:, 0], maps.mean(axis=(1, 2)), rtol=1e-5)
    assert masks["image_mask"].shape == (3, 1)


def test_windows_of_maps_by_hand():
    maps = jnp.arange(36.0).reshape(1, 6, 6, 1)
    expected = np.arange(36.0).reshape(3, 2, 3, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(averaged(maps, 3)[0, ..., 0], expected)
    assert averaged(maps, 0) is maps
    with pytest.raises(ValueError, match="image_side=7: the last maps are 6x6"):
        averaged(maps, 7)


def test_the_modal_aware_fusion_leaves_one_modality_alone(key):
    fuse = ModalAwareFusion(4, rngs=nnx.Rngs(0))
    text, image = jnp.ones((2, 3, 4)), jax.random.normal(key, (2, 5, 4))
    masks = {
        "text_mask": jnp.array([[1, 1, 0], [0, 0, 0]]),
        "image_mask": jnp.ones((2, 5)),
    }
    fused = jax.jit(fuse.__call__)(text, image, **masks)
    np.testing.assert_allclose(fused[1, :4], image[1].mean(axis=0), rtol=1e-5)
    assert not fused[1, 4:].any()
    maps, vector = jax.jit(fuse.block.__call__)(image[:, :, None], jnp.ones((2, 4)))
    np.testing.assert_allclose(fused[0, :4], maps[0].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(fused[0, 4:], vector[0], rtol=1e-5)


def test_added_terms_by_hand():
    logits = jnp.array([[4.0, 0.0], [0.0, 1.0]])
    labels = jnp.array([[1, 0], [1, 0]])
    there = jnp.array([True, True])
    outputs = {"text_logits": logits, "image_logits": -logits, "has_text": there}
    outputs |= {"has_image": there, "text": jnp.eye(2), "image": jnp.eye(2)}

    def of_head(x):
        return jnp.abs(x).sum() + (x[0, 0] < 0)

    # 5 and 6: (5 * 10 / 11 + 6 * 12 / 11) / 2.
    value = classifiers.balanced(outputs, of_head, {"labels": labels})
    assert value == pytest.approx((50 / 11 + 72 / 11) / 2)
    # One modality of each is right: both pairs are drawn, of all pairs: log 1.
    value = classifiers.unis_mmc(outputs, of_head, {"labels": labels})
    assert value == pytest.approx(11.0)


def test_text_and_method_must_fit(pairs, tiny):  # noqa: F811
    with pytest.raises(ValueError, match="'sgmft' reads tokens: config.data.text=bag"):
        build.experiment(posts_config(**{"data.text": "bag"}), pairs)
    with pytest.raises(ValueError, match="'sum' reads one vector a post: .*word_tok"):
        build.experiment(posts_config("sum", **{"data.text": "word_tokens"}), pairs)
    with pytest.raises(ValueError, match="'concat' reads .*=sequences gives the numb"):
        build.experiment(posts_config("concat", **{"data.text": "sequences"}), pairs)
    with pytest.raises(ValueError, match="label_weight=1.0: networks of tokens"):
        build.experiment(posts_config(**{"loss.label_weight": 1.0}), pairs)
    config = runpy.run_path(str(CONFIGS / "shapes.py"))["get_config"]("method=text")
    config.data.options.num_pairs = 260
    config.data.num_queries, config.data.num_train = 20, 80
    config.data.num_validation = 0
    for config.data.text in ("word_tokens", "sequences"):
        with pytest.raises(ValueError, match="gives tokens, which the method 'text' c"):
            build.experiment(config)


def test_settings_of_the_paper():
    get_config = runpy.run_path(str(CONFIGS / "posts.py"))["get_config"]
    config = get_config("source=folder,settings=paper")
    assert (config.optimizer.learning_rate, config.optimizer.b2) == (1e-5, 0.99)
    assert (config.training.batch_size, config.training.num_epochs) == (20, 30)
    assert (config.model.head_layers, config.model.num_heads) == (5, 8)
    assert get_config("method=sum").data.text == "bag"
    assert CLASSIFIERS["sum"].tokens is None
