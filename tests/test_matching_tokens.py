"""Networks of tokens in the task matching: rows, losses, one run, its second look."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from test_matching_task import Halves, photographs, tiny

from modal_aware_jax import build, compare, modes
from modal_aware_jax.backbones.text_vector import StandardText
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.token_table import TokenTable
from modal_aware_jax.experiment import assembly, matchers
from modal_aware_jax.experiment.backbones import BACKBONES, BackboneKind
from modal_aware_jax.losses.pair_groups import (
    binary_loss,
    choice_loss,
    draw_groups,
)
from modal_aware_jax.models.captioned import CaptionedTowers
from modal_aware_jax.models.captioned_tokens import CaptionedTokens
from modal_aware_jax.models.temperature import Temperature
from modal_aware_jax.models.two_tower import TwoTower
from modal_aware_jax.tasks import matching
from modal_aware_jax.tasks.pair_training import draw_tokens, follow, scores_in_groups

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Pieces:
    """Stands for an encoder of word pieces: each word by the letters it has."""

    features, digest = 26, "pieces"

    def __init__(self, place="", longest=0):
        del place, longest

    def pieces(self, texts):
        return [text.split() for text in texts]

    def __call__(self, texts, *, progress=lambda n: None):
        words = [text.split() for text in texts]
        rows = [[w.count(c) for c in LETTERS] for text in words for w in text]
        progress(len(texts))
        return np.array(rows, np.float16), np.array([len(text) for text in words])


OPTIONS = {
    **{"features": 4, "hidden_features": 8, "token_features": 8, "token_layers": 1},
    **{"image_dropout": 0.1, "text_dropout": 0.1, "hidden_dropout": 0.1},
    **{"token_heads": 2, "token_dropout": 0.1},
}


def network_of(name, **options):
    row = matchers.MATCHERS[name]
    tokens = row.tokens(6, 5, ConfigDict(OPTIONS | options), nnx.Rngs(0))
    return CaptionedTokens(Halves(), tokens, momentum=row.momentum)


def some_tokens():
    random = np.random.default_rng(0)
    tokens = random.normal(size=(3, 2, 4, 5)).astype(np.float32)
    mask = np.ones((3, 2, 4), bool)
    mask[0, 1], mask[1, :, 2:] = False, False
    return random.normal(size=(3, 2, 1, 6)), {"tokens": tokens, "mask": mask}


@pytest.mark.parametrize("name", ["cmfg", "align_before_fuse", "modal_aware"])
def test_no_embedding_sees_the_other_side_or_padding(name):
    model = network_of(name)
    maps, text = some_tokens()

    @jax.jit
    def embed(maps, text):
        image, rows, tokens = model.joint_from_last(maps, text, train=False)
        score = model.network.score_pairs(
            tokens, text["tokens"][:, 0], text_mask=text["mask"][:, 0]
        )
        return image, rows, score

    image, rows, score = embed(maps, text)
    assert image.shape == (3, 4) and rows.shape == (3, 2, 4) and score.shape == (3,)
    other = {**text, "tokens": np.where(text["mask"][..., None], text["tokens"], 9.0)}
    same = embed(maps, other)  # what stands in the padding
    for a, b in zip((image, rows, score), same, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    moved = embed(maps, {**text, "tokens": text["tokens"] + 1})
    np.testing.assert_array_equal(moved[0], image)
    assert np.abs(moved[1] - rows).max() > 1e-3
    assert np.abs(moved[2] - score).max() > 1e-6
    moved = embed(maps + 1, text)
    np.testing.assert_array_equal(moved[1], rows)
    assert np.abs(moved[0] - image).max() > 1e-3


@pytest.mark.parametrize(
    "name", ["cmfg", "towers_cmfg", "single_stream", "modal_aware", "align_before_fuse"]
)
def test_groups_are_scored_pair_by_pair(name):
    model = network_of(name, token_dropout=0.0)
    maps, text = some_tokens()
    tokens = jnp.asarray(maps.reshape(3, 2, 6), jnp.float32)
    text = {part: jnp.asarray(array[:, :1]) for part, array in text.items()}
    rows = jnp.array([[2, 0], [1, 2]])
    together = jax.jit(
        lambda: scores_in_groups(model, tokens, text, rows, jax.random.key(0))
    )()
    alone = jax.jit(model.network.score_pairs)
    for group, members in enumerate(rows):
        for a, image in enumerate(members):
            for b, sentence in enumerate(members):
                mask = text["mask"][sentence]
                words = text["tokens"][sentence]
                score = alone(tokens[image][None], words, text_mask=mask)
                assert together[group, a, b] == pytest.approx(float(score[0]), abs=1e-5)


def test_towers_read_the_mean_of_word_pieces():
    _, text = some_tokens()
    towers = TwoTower(6, 5, 4, hidden_features=8, rngs=nnx.Rngs(0))
    network = CaptionedTowers(Halves(), towers)
    means = [
        text["tokens"][i, j][text["mask"][i, j]].mean(axis=0)
        for i, j in ((0, 0), (1, 1), (2, 0))
    ]
    means = np.stack([mean / np.linalg.norm(mean) for mean in means])
    expected = towers.embed_text(jnp.asarray(means))
    _, rows = network.joint_from_means(jnp.ones((3, 1, 1, 6)), text, train=False)
    found = np.stack([rows[0, 0], rows[1, 1], rows[2, 0]])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_sentences_that_are_there_are_drawn_alike():
    _, text = some_tokens()
    many = jax.vmap(lambda key: draw_tokens(key, text))
    drawn = many(jax.random.split(jax.random.key(0), 400))
    assert drawn["tokens"].shape == (400, 3, 1, 4, 5)
    first = np.asarray(drawn["tokens"])[:, :, 0] == text["tokens"][:, 0]
    shares = first.all(axis=(2, 3)).mean(axis=0)
    assert shares[0] == 1 and np.abs(shares[1:] - 0.5).max() < 0.1


def test_groups_are_of_rows_that_are_alike_and_begin_with_their_own():
    logits = np.full((6, 6), -50.0, np.float32)
    logits[0, 3] = logits[1, 4] = logits[4, 5] = 80.0  # alike in one direction of two
    drawn = draw_groups(jax.random.key(0), jnp.asarray(logits), num_groups=2, size=2)
    assert drawn.rows.tolist() == [[0, 3], [1, 4]] and drawn.there.all()
    images = jnp.array([0, 1, 2, 0, 4, 5])  # row 3 is another sentence of image 0
    drawn = draw_groups(
        jax.random.key(0), jnp.asarray(logits), num_groups=2, size=2, groups=images
    )
    assert drawn.there.tolist() == [[[True, False], [False, True]], [[True] * 2] * 2]


def test_rows_join_a_group_as_often_as_the_softmax_says():
    logits = jnp.log(jnp.array([[1.0, 6.0, 3.0, 1.0]])) * jnp.ones((4, 1))
    logits = jnp.where(
        jnp.arange(4)[:, None] == 0, 2 * logits, 0
    )  # halved with logits.T
    draw = jax.vmap(lambda key: draw_groups(key, logits, num_groups=1, size=2).rows)
    second = np.asarray(draw(jax.random.split(jax.random.key(1), 3000)))[:, 0, 1]
    shares = np.bincount(second, minlength=4) / 3000
    np.testing.assert_allclose(shares, [0, 0.6, 0.3, 0.1], atol=0.04)


@pytest.mark.parametrize(("num_groups", "size"), [(0, 2), (1, 5), (5, 2), (1, 1)])
def test_groups_that_do_not_fit_into_the_batch_are_refused(num_groups, size):
    options = {"num_groups": num_groups, "size": size}
    with pytest.raises(ValueError, match=f"{num_groups} groups of {size} do not fit"):
        draw_groups(jax.random.key(0), jnp.zeros((4, 4)), **options)


def test_losses_of_groups_by_a_double_loop():
    rng = np.random.default_rng(0)
    scores, there = rng.normal(size=(2, 3, 3)), np.ones((2, 3, 3), bool)
    there[1, 0, 2] = there[1, 2, 0] = False
    choices, judgements = {"image": [], "text": []}, []
    for group in range(2):
        for i in range(3):
            right = scores[group, i, i]
            rows = [scores[group, i, j] for j in range(3) if there[group, i, j]]
            columns = [scores[group, j, i] for j in range(3) if there[group, j, i]]
            choices["image"].append(np.log(np.exp(rows).sum()) - right)
            choices["text"].append(np.log(np.exp(columns).sum()) - right)
            for j in range(3):
                if there[group, i, j]:
                    sign = 1 if i == j else -1
                    judgements.append(np.log1p(np.exp(-sign * scores[group, i, j])))
    expected = np.mean(choices["image"]) + np.mean(choices["text"])
    found = choice_loss(jnp.asarray(scores, jnp.float32), jnp.asarray(there))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    found = binary_loss(jnp.asarray(scores, jnp.float32), jnp.asarray(there))
    assert float(found) == pytest.approx(np.mean(judgements), rel=1e-5)


def test_what_one_side_alone_says_brings_nothing_in_a_group():
    """A score of the text alone, such as how many images it is near to."""
    there = jnp.ones((1, 4, 4), bool)
    even = choice_loss(jnp.zeros((1, 4, 4)), there)
    assert float(even) == pytest.approx(2 * np.log(4))
    for side in (1, 2):
        bias = jnp.expand_dims(jnp.array([[0.5, -1.0, 2.0, 0.1]]), side)
        assert choice_loss(jnp.broadcast_to(bias, (1, 4, 4)), there) > even + 0.1


def test_a_slow_copy_follows_and_is_not_trained():
    model = network_of("align_before_fuse")
    weight = model.network.image_head.kernel
    before = np.asarray(weight[...])
    weight[...] = weight[...] + 1
    np.testing.assert_allclose(
        follow(model, 0.75).image_head.kernel[...], before + 0.25, rtol=1e-5
    )
    assert network_of("cmfg").slow is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cell of a network of tokens, in its folder."""
    workdir = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "WordPieceModel", Pieces)
        kind = BackboneKind(Halves, None, [0.0] * 3, [1 / 255] * 3, lambda path: 0)
        patch.setitem(BACKBONES, "halves", kind)
        folder = photographs(workdir / "photographs")
        config = tiny(folder, workdir / "prepared", "align_before_fuse")
        with config.unlocked():
            config.model.update(OPTIONS)
            config.loss.update(pair_rows=4, num_negatives=1)
            config.retrieval.rerank = 3
            config.training.num_epochs = 1
        cell = compare.Cell("align_before_fuse", 0, 0)
        yield config, workdir, compare.run_cells(config, [cell], workdir)[cell].result


@pytest.mark.slow
def test_a_run_of_tokens_is_ranked_again(run):
    config, workdir, result = run
    experiment = build.experiment(config)
    folder = workdir / "align_before_fuse-0-0"
    own = result["embeddings"]
    assert own["rsum"] == pytest.approx(np.mean(own["of_image"]))
    maps = modes.encoder.lower_maps(experiment)
    assert maps.shape == (64, 2, 16, 32, 6) and maps.dtype == np.float16
    modes.evaluate.load_run(experiment, folder)
    # Pairs by hand: the sentences of a test image, one score at a time.
    variables = modes.encoder.variables_of(experiment.model)
    positions = experiment.split.query
    scorer = functools.partial(modes.evaluate.PairScorer, experiment, variables, maps)
    score = scorer(positions)
    pairs, model = experiment.collection, experiment.model
    found = score(np.array([2, 2]), np.array([4, 9]))
    tokens = jnp.asarray(maps[positions[2], 0], jnp.float32).reshape(1, -1, 6)
    tokens = model.inputs(tokens, train=False)
    for value, (image, sentence) in zip(found, [(2, 0), (4, 1)], strict=True):
        text = pairs.text[positions[[image]]]
        expected = model.network.score_pairs(
            tokens,
            text["tokens"][:, sentence],
            text_mask=text["mask"][:, sentence],
        )
        assert value == pytest.approx(float(expected[0]), rel=1e-2, abs=3e-3)


@pytest.mark.slow
def test_the_graph_of_a_run_is_read(run):
    config, _, _ = run
    with config.unlocked():
        config = config.copy_and_resolve_references()
        config.model.method, config.retrieval.rerank = "cmfg", 0
    experiment = build.experiment(config.lock())
    maps = modes.encoder.lower_maps(experiment)
    variables = modes.encoder.variables_of(experiment.model)
    scorer = functools.partial(modes.evaluate.PairScorer, experiment, variables, maps)
    further = experiment.task.second(experiment, {}, scorer)
    assert further.keys() == {"graphs"}
    first, last = further["graphs"]
    assert first["words"] == ["red", "over", "red", "."] and first["grid"] == (16, 32)
    for layer in (*first["edges"], *last["edges"]):
        assert layer.shape == (516, 516)  # words of the sentence, no padding
        np.testing.assert_allclose(layer.sum(axis=1), 1, rtol=1e-4)


class Sums(nnx.Module):
    """A pair's score: the sum of its image and its words."""

    def __init__(self):
        self.temperature = Temperature()

    def encode(self, batch):
        numbers = batch["text"].reshape(len(batch["text"]), -1, 2)
        image = jnp.asarray(batch["image"]).reshape(len(numbers), 1, 1)
        return image, jnp.asarray(numbers)[..., None], numbers != 0

    def score(self, image, text, mask):
        return image[:, 0, 0] + (text[..., 0] * mask).sum(axis=1)


def test_a_sentence_without_a_word_keeps_its_place():
    captions = ["sea\ndog", "!!!\ncat", "sky"]
    numbers = [[1, 0, 2, 0], [0, 0, 3, 0], [4, 0, 0, 0]]
    none = np.zeros((3, 0))
    pairs = Collection("three", list("abc"), [b""] * 3, numbers, captions, none, (), ())
    experiment = SimpleNamespace(
        model=Sums(),
        collection=pairs,
        config={"model": {"features": 1}},
        pairs=matching.PairCalls(Sums.encode, Sums.score, None),
        batch_size=2,
    )
    maps = np.array([[10.0, 0], [20, 0], [30, 0]]).reshape(3, 2, 1, 1, 1)
    positions = np.array([1, 0, 2])
    variables = [nnx.to_pure_dict(nnx.state(experiment.model))]
    scorer = modes.evaluate.PairScorer(experiment, variables, maps, positions)
    _, texts, owners = matching.embeddings_of(experiment, positions, np.zeros((3, 3)))
    assert owners.tolist() == [0, 0, 1, 1, 2] and texts.shape == (5, 1)
    found = scorer(owners, np.arange(5))
    assert found.tolist() == [20, 23, 11, 12, 34]  # an image plus its own words


def test_tokens_are_asked_for(tmp_path):
    config = tiny(photographs(tmp_path / "photographs"), tmp_path / "prepared")
    pairs = build.collection(config.data)
    with config.unlocked():
        other = config.copy_and_resolve_references()
        other.data.text = "bag"
    with pytest.raises(ValueError, match="word_pieces_by_line .* got 'bag'"):
        build.experiment(other, pairs)
    with pytest.raises(ValueError, match="texts word by word: .* got 'bag'"):
        matchers.network(
            other, pairs, None, method=matchers.MATCHERS["cmfg"], num_outputs=4
        )
    assert not isinstance(pairs.text, TokenTable)
    with pytest.raises(ValueError, match="CaptionedTokens expects text as tokens"):
        network_of("cmfg").joint_from_last(
            jnp.ones((1, 2, 1, 6)), jnp.ones((1, 4)), train=False
        )


def test_standard_inputs_see_no_shift_or_scale():
    towers = TwoTower(
        6, 5, 4, hidden_features=8, image_inputs=StandardText, rngs=nnx.Rngs(0)
    )
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    moved = 3 * x + np.arange(6, dtype=np.float32)[None]
    one, other = (towers.embed_image(rows, train=True) for rows in (x, moved))
    np.testing.assert_allclose(one, other, atol=1e-3)
    row = towers.embed_image(x[:1])  # by running averages: alone as among others
    np.testing.assert_allclose(row, towers.embed_image(x)[:1], rtol=1e-5)
