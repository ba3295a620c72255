"""Words by their numbers: the encoder by hand, the reader's masks and the tower."""

import pathlib
import runpy
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modal_aware_jax import build, modes
from modal_aware_jax.backbones.word_reader import WordReader
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.text_vectors import represent, text_encoder
from modal_aware_jax.models.reading_tower import ReadingTower
from modal_aware_jax.models.two_tower import Tower
from modal_aware_jax.modes.reading import check_reading, keep_reading


def collection(captions):
    nothing = np.zeros((len(captions), 0))
    ids = [f"{i}" for i in range(len(captions))]
    return Collection(
        "lines", ids, [b""] * len(ids), nothing, captions, nothing, (), ()
    )


@pytest.fixture(scope="module")
def pairs():
    return collection(["A sea.\nThe sea, a sea", "a dog", "Red dog in the sea!"])


def test_numbers_by_hand(pairs):
    text = text_encoder("sequences", pairs, np.array([0, 1]))
    # 'a' and 'sea' are in two of the three lines, and sorted; then dog, the.
    assert text.known == ("a", "sea", "dog", "the")
    assert (text.length, text.num_words, text.vocabulary) == (4, 6, ())
    numbers = text.vectors(pairs)
    assert numbers.dtype == np.float32
    assert numbers.tolist() == [
        [2, 3, 0, 0, 5, 3, 2, 3],
        [2, 4, 0, 0, 0, 0, 0, 0],
        [1, 4, 1, 5, 0, 0, 0, 0],  # red, in: of no training pair; cut before sea
    ]
    assert text.encode([]).shape == (0, 4)
    assert text.split("Sea & sky") == (["sea", "sky"], ["sky"])
    assert text.words(pairs, 0) == ["a", "sea"]


@pytest.fixture(scope="module")
def tower():
    rngs = nnx.Rngs(0)
    reader = WordReader(9, 5, 8, num_layers=1, num_heads=2, rngs=rngs)
    return ReadingTower(reader, Tower(8, 3, hidden_features=4, rngs=rngs))


def test_a_tower_reads_the_order_and_no_padding(tower):
    numbers = jnp.array(
        [[2, 3, 4, 0, 0], [4, 3, 2, 0, 0], [2, 3, 4, 5, 0], [0, 0, 0, 0, 0]], float
    )
    graphdef, state = nnx.split(tower)
    read = jax.jit(lambda state: nnx.merge(graphdef, state)(numbers))
    rows = read(state)
    np.testing.assert_allclose(rows, tower(numbers), rtol=1e-4, atol=1e-5)
    assert rows.shape == (4, 3) and np.isfinite(rows).all()
    assert np.abs(rows[0] - rows[1]).max() > 1e-4  # the same words
    _, mask = tower.reader(numbers)
    assert mask.sum(axis=1).tolist() == [3, 3, 4, 1]
    # What the padding's row of the table holds is read in the empty text alone.
    table = tower.reader.transformer.words.embedding
    before = table[...]
    table[...] = before.at[0, 0].add(10.0)
    moved = read(nnx.state(tower))
    table[...] = before
    np.testing.assert_allclose(moved[:3], rows[:3], rtol=1e-4, atol=1e-5)
    assert np.abs(moved[3] - rows[3]).max() > 1e-4


def test_every_part_learns(tower):
    graphdef, params = nnx.split(tower)
    numbers = jnp.array([[2, 3, 4, 0, 0], [5, 6, 0, 0, 0]])

    def loss(params):
        return jnp.sum(nnx.merge(graphdef, params)(numbers) ** 2)

    gradient = nnx.to_flat_state(jax.jit(jax.grad(loss))(params))
    still = {"/".join(map(str, p)) for p, g in gradient if not np.any(g[...])}
    # A key's bias moves all scores of a query alike; tables: padding and such words.
    assert still <= {"reader/transformer/blocks/0/attention/key/bias"}


def test_what_it_cannot_read_is_told(tower):
    with pytest.raises(ValueError, match=r"numbers of words \[B, 5\].*got \(2, 4\)"):
        tower(jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match="expects no mask"):
        tower(jnp.zeros((2, 5)), jnp.ones((2, 5)))


def test_the_words_of_a_run_are_kept_with_it(pairs, tmp_path):
    def run(pairs):
        text = text_encoder("sequences", pairs, np.array([0, 1]))
        return types.SimpleNamespace(collection=represent(pairs, text), text=text)

    keep_reading(run(pairs), tmp_path)
    other = collection([text.replace("dog", "cat") for text in pairs.captions])
    with pytest.raises(ValueError, match="knows 4 words; .*'dog' and with 'cat'"):
        check_reading(run(other), tmp_path)


@pytest.mark.slow
def test_towers_and_a_graph_read_the_embedded_sentences(tmp_path):
    """One epoch of next to nothing, to the page with the drawn graph."""
    folder = pathlib.Path(__file__).parent.parent / "configs"
    get_config = runpy.run_path(str(folder / "captioned_shapes.py"))["get_config"]
    for method in ("towers", "cmfg"):
        config = get_config(f"method={method}")
        config.data.options.num_images, config.training.batch_size = 64, 16
        config.data.options.image_size, config.data.image_size = 32, 32
        config.backbone.options.width, config.training.num_epochs = 4, 1
        config.model.token_features = config.model.word_features = 8
        config.loss.pair_rows, config.retrieval.rerank = 4, 5
        experiment = build.experiment(config.lock())
        result = modes.train(experiment, tmp_path / method)
        assert result["num_images"] == 8 and result["num_texts"] == 40
        assert ("embeddings" in result) == (method == "cmfg")
    report = tmp_path / "cmfg" / "report"
    words = experiment.text.words(experiment.collection, experiment.split.query[0])
    table = (report / "graph_1.csv").read_text()
    assert all(f",{i}:{word},word," in table for i, word in enumerate(words))
    assert 'href="graph_2.csv"' in (report / "index.html").read_text()
