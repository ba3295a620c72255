"""Classifiers of tokens: each learns a class that only both modalities tell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import token_loops as loops
from flax import nnx

from modal_aware_jax.backbones.text_cnn import TextCNN
from modal_aware_jax.fusion import (
    AsymmetricCoAttention,
    CoAttention,
    GatedMultimodalUnit,
    MergeAttention,
    SimilarityFusion,
)
from modal_aware_jax.fusion.bridges import CrossLayerBridges
from modal_aware_jax.fusion.pooled_tokens import (
    FeatureLevelFusion,
    ImageAlone,
    PooledFusion,
    TextAlone,
)
from modal_aware_jax.losses.cross_entropy import softmax_cross_entropy
from modal_aware_jax.models.classifier import (
    DenseLayers,
    NoInteraction,
    TokenClassifier,
    drop_modality,
)

S, M = 3, 4
HEAD = functools.partial(DenseLayers, features=16)


def either_or(count=128, seed=0):
    """Class 1 where exactly one modality is bright: of one alone nothing follows."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (2, count))
    text = rng.normal(0, 0.3, (count, S, 5)) + np.where(bits[0], 1, -1)[:, None, None]
    image = rng.normal(0, 0.3, (count, M, 6)) + np.where(bits[1], 1, -1)[:, None, None]
    text_mask = np.arange(S) < rng.integers(1, S + 1, (count, 1))
    text[~text_mask] = 9.0  # padding
    arrays = text.astype(np.float32), image.astype(np.float32), text_mask
    return *(jnp.asarray(x) for x in arrays), jnp.asarray(bits[0] ^ bits[1])


def classifier(**arguments):
    options = {"features": 8, "num_heads": 2, "head": HEAD, **arguments}
    return TokenClassifier(5, 6, 2, rngs=nnx.Rngs(0), **options)


@functools.partial(
    jax.jit,
    static_argnums=(0, 1),
    compiler_options={"xla_backend_optimization_level": 0},
)
def train(make, steps, data):
    """Adam from the module's own initial weights: (before, after, accuracy)."""
    graphdef, params = nnx.split(make())
    params = nnx.to_pure_dict(params)
    text, image, mask, classes = data
    tx = optax.adam(5e-3)

    def logits(params):
        return nnx.merge(graphdef, params)(text, image, text_mask=mask)

    def step(carry, _):
        params, opt_state = carry
        grads = jax.grad(lambda p: softmax_cross_entropy(logits(p), classes))(params)
        updates, opt_state = tx.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    right = logits(trained).argmax(axis=-1) == classes
    return params, trained, right.mean()


ONE = {"num_layers": 1}
METHODS = {
    "similarity": {"fusion": functools.partial(SimilarityFusion, **ONE)},
    "concat": {"fusion": PooledFusion},
    "bridges": {"fusion": functools.partial(CrossLayerBridges, **ONE)},
    "cnn": {"fusion": functools.partial(FeatureLevelFusion, widths=(2, 3))},
    "gmu": {
        "fusion": functools.partial(
            PooledFusion, fusion=functools.partial(GatedMultimodalUnit, features=8)
        )
    },
    "merge": {"fusion": functools.partial(MergeAttention, **ONE)},
    "co": {"fusion": functools.partial(CoAttention, **ONE)},
    "asymmetric": {"fusion": functools.partial(AsymmetricCoAttention, **ONE)},
}
QUICK = ("concat",)  # the others take seconds to compile


def make(name):
    interaction = {} if name == "similarity" else {"interaction": NoInteraction}
    return classifier(**METHODS[name], **interaction)


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS],
)
def test_learns_what_only_both_modalities_tell(name):
    before, after, accuracy = train(functools.partial(make, name), 150, either_or())
    assert accuracy > 0.95
    for (path, a), b in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert np.isfinite(b).all() and np.any(a != b), path


@pytest.mark.parametrize(
    "alone", [TextAlone, pytest.param(ImageAlone, marks=pytest.mark.slow)]
)
def test_one_modality_alone_does_not(alone):
    def make_one():
        return classifier(fusion=alone, interaction=NoInteraction)

    assert train(make_one, 60, either_or(count=512))[2] < 0.8


def test_one_modality_alone_reads_no_other():
    text, image, mask, _ = either_or(4)
    for alone, kept in ((TextAlone, text), (ImageAlone, image)):
        fuse = loops.randomised(lambda alone=alone: alone(5))
        own = kept[..., :5]
        arrays = (own, image[..., :5]) if alone is TextAlone else (text, own)
        found = fuse(*arrays)
        np.testing.assert_allclose(found, np.mean(own, axis=1), rtol=1e-5, atol=1e-6)


def test_every_row_gives_logits_whatever_it_lacks():
    model = loops.randomised(lambda: classifier(fusion=PooledFusion, unimodal=True))
    text, image, mask, _ = either_or(4)
    mask = mask.at[1].set(False).at[3].set(False)
    image_mask = jnp.ones((4, M)).at[2].set(0).at[3].set(0)

    @jax.jit
    def run(text, image):
        return model.outputs(text, image, text_mask=mask, image_mask=image_mask)

    made = run(text, image)
    assert {name: x.shape for name, x in made.items()} == {
        "logits": (4, 2),
        "fused": (4, 16),
        "text": (4, 8),
        "image": (4, 8),
        "text_logits": (4, 2),
        "image_logits": (4, 2),
        "has_text": (4,),
        "has_image": (4,),
    }
    assert all(np.isfinite(x).all() for x in made.values())
    assert made["has_text"].tolist() == [True, False, True, False]
    assert (made["fused"][3] == 0).all() and np.any(made["fused"][:3] != 0, 1).all()
    # What stands in the padding, NaN too, changes nothing.
    again = run(
        jnp.where(mask[..., None], text, jnp.nan),
        jnp.where(image_mask[..., None] != 0, image, jnp.nan),
    )
    for name, value in made.items():
        np.testing.assert_array_equal(again[name], value)


def test_five_dense_layers_by_loops():
    head = loops.randomised(lambda: DenseLayers(3, 2, features=4, rngs=nnx.Rngs(0)))
    assert len(head.layers) == 5
    x = np.array([0.3, -1.0, 2.0])
    row = x.tolist()
    for number, layer in enumerate(head.layers):
        row = [max(0.0, v) for v in row] if number else row
        row = loops.dense(row, layer)
    np.testing.assert_allclose(head(jnp.asarray(x)[None])[0], row, rtol=1e-5)
    with pytest.raises(ValueError, match="num_layers >= 1"):
        DenseLayers(3, 2, num_layers=0, rngs=nnx.Rngs(0))


def test_modality_dropout_takes_one_of_two_and_never_the_last():
    text_mask = jnp.ones((4000, 2)).at[:1000].set(0)
    image_mask = jnp.ones((4000, 3)).at[1000:2000].set(0)
    rngs = nnx.Rngs(dropout=0)
    text, image = drop_modality(rngs, text_mask, image_mask, 0.4)
    np.testing.assert_array_equal(text[:2000], text_mask[:2000])
    np.testing.assert_array_equal(image[:2000], image_mask[:2000])
    no_text, no_image = (text[2000:] == 0).all(1), (image[2000:] == 0).all(1)
    assert not (no_text & no_image).any()
    for lost in (no_text, no_image):
        assert abs(float(lost.mean()) - 0.2) < 0.03
    with pytest.raises(ValueError, match="drop_modality: training needs fresh"):
        drop_modality(None, text_mask, image_mask, 0.4)


def test_dropout_is_of_training():
    model = classifier(
        fusion=PooledFusion,
        interaction=NoInteraction,
        dropout_rate=0.5,
        modality_dropout=0.5,
    )
    text, image, mask, _ = either_or(4)
    rows = [
        model(text, image, text_mask=mask, train=train, rngs=nnx.Rngs(dropout=seed))
        for train, seed in ((True, 0), (True, 1), (False, 0), (False, 1))
    ]
    assert np.any(rows[0] != rows[1])
    np.testing.assert_array_equal(rows[2], rows[3])


def test_text_cnn_by_loops():
    cnn = loops.randomised(
        lambda: TextCNN(2, widths=(2, 3), features_per_width=2, rngs=nnx.Rngs(0))
    )
    tokens = np.random.default_rng(0).normal(size=(3, 4, 2))
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    found = loops.run(cnn, jnp.asarray(tokens, jnp.float32), jnp.asarray(mask))
    expected = np.zeros((3, 4))
    for row in range(3):
        kept = tokens[row] * mask[row][:, None]
        for c, convolve in enumerate(cnn.convolutions):
            kernel, bias = (
                np.asarray(x[...], float) for x in (convolve.kernel, convolve.bias)
            )
            width = kernel.shape[0]
            before = (width - 1) // 2
            for at in np.flatnonzero(mask[row]):
                for f in range(2):
                    total = bias[f]
                    for w in range(width):
                        s = at + w - before
                        if 0 <= s < 4:
                            total += sum(kept[s] * kernel[w, :, f])
                    best = max(expected[row, 2 * c + f], total)  # ReLU: at least 0
                    expected[row, 2 * c + f] = best
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"TextCNN expects tokens \[B, S, 2\]"):
        cnn(jnp.ones((1, 2)))


def test_bridges_let_no_padding_in_and_need_both_streams():
    fuse = loops.randomised(
        lambda: CrossLayerBridges(4, 2, num_layers=1, rngs=nnx.Rngs(0))
    )
    text, image = (jax.random.normal(jax.random.key(n), (2, n, 4)) for n in (3, 5))
    mask = jnp.array([[1, 1, 0], [0, 0, 0]])
    found = loops.run(fuse, text, image, text_mask=mask)
    bad = jnp.where(mask[..., None] == 0, jnp.nan, text)
    np.testing.assert_array_equal(loops.run(fuse, bad, image, text_mask=mask), found)
    assert found.shape == (2, 4) and np.all(found != 0)
    by_weight, by_token = loops.gradients(fuse, bad, image, text_mask=mask)
    for path, leaf in jax.tree.leaves_with_path((by_weight, by_token)):
        assert np.isfinite(leaf).all() and np.any(leaf), path
    assert (by_token[0][mask == 0] == 0).all()


def test_wrong_shapes_are_named():
    model = loops.randomised(lambda: classifier(fusion=PooledFusion))
    text, image, mask, _ = either_or(4)
    with pytest.raises(ValueError, match=r"text tokens \[B, S, 5\], got \(4, 4, 6\)"):
        model(image, text)
    with pytest.raises(ValueError, match=r"image tokens \[B, M, 6\], got \(4, 6\)"):
        model(text, image[:, 0])
    for wrong in (mask[:2], mask[:, 0]):
        with pytest.raises(ValueError, match=r"TokenClassifier expects text_mask \[B"):
            model(text, image, text_mask=wrong)
    with pytest.raises(ValueError, match="PooledFusion expects text tokens"):
        PooledFusion(3, rngs=nnx.Rngs(0))(text, image)
