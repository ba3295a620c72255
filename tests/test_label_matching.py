"""Matching by labels: measures by double loops, one run of CCA, single batches."""

import dataclasses
import json
import pathlib
import runpy
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_matching_task import Halves

from modal_aware_jax import build, compare
from modal_aware_jax.data.collection import Collection
from modal_aware_jax.data.protocol import Split
from modal_aware_jax.experiment import matchers
from modal_aware_jax.experiment.backbones import BACKBONES, BackboneKind
from modal_aware_jax.experiment.matchers import LABEL_LOSSES, LABEL_MATCHERS
from modal_aware_jax.losses.info_nce import label_info_nce
from modal_aware_jax.models.captioned_tokens import CaptionedTokens
from modal_aware_jax.models.temperature import Temperature
from modal_aware_jax.report.label_matches import format_label_matches
from modal_aware_jax.retrieval.evaluate_embeddings import (
    evaluate_embedding_parts,
    evaluate_embeddings,
)
from modal_aware_jax.tasks import label_comparison, label_matching, matching

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "flickr_matching.py"


def by_loops(order, query_labels, labels):
    """AP, AP@R and precision at 1, 5 and 10 of rankings, one after the other."""
    found = []
    for row, own in zip(order, query_labels, strict=True):
        right = [bool((labels[i] & own).any()) for i in row]
        hits, total, sums, at_r = 0, sum(right), 0.0, 0.0
        for rank, hit in enumerate(right, 1):
            hits += hit
            sums += hit * hits / rank
            at_r += hit * hits / rank if rank <= total else 0.0
        at = [sum(right[:n]) / min(n, len(right)) for n in (1, 5, 10)]
        found.append((sums / max(total, 1), at_r / max(total, 1), *at))
    return np.mean(found, axis=0)


def scores_of(result):
    return [result["map"], result["map_at_r"], *result["precision_at"].values()]


def test_all_measures_are_those_of_a_loop_and_candidates_come_first():
    random = np.random.default_rng(0)
    query, database = random.normal(size=(6, 4)), random.normal(size=(15, 4))
    labels = random.integers(0, 2, (6, 3)), random.integers(0, 2, (15, 3))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, database)]
    order = np.argsort(-(unit[0] @ unit[1].T), axis=1)
    trained = np.arange(15) < 8
    result = evaluate_embedding_parts(query, database, *labels, trained=trained)
    np.testing.assert_allclose(scores_of(result), by_loops(order, *labels))
    rest = np.array([row[row >= 8] for row in order])
    np.testing.assert_allclose(scores_of(result["unseen"]), by_loops(rest, *labels))
    assert result["seen"]["num_database"] == 8 and result["num_queries"] == 6
    right = (labels[0][:, None] * labels[1][None]).any(axis=2)
    for name, of in (("precision", 6 * 3), ("recall", right.sum())):
        top = sum(right[q, order[q, :3]].sum() for q in range(6))
        assert result["by_rank"][name][2] == pytest.approx(top / of)
    # The first four the other way round, and all others behind them as they were.
    first, scores = order[:, :4], np.tile(np.arange(4.0), (6, 1))
    again = np.concatenate([first[:, ::-1], order[:, 4:]], axis=1)
    result = evaluate_embeddings(query, database, *labels, reranked=(first, scores))
    np.testing.assert_allclose(scores_of(result), by_loops(again, *labels))
    with pytest.raises(ValueError, match="no queries"):
        evaluate_embeddings(query[:0], database, labels[0][:0], labels[1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A cell that is solved, not trained, in the folder of a comparison."""
    workdir = tmp_path_factory.mktemp("cells")
    with pytest.MonkeyPatch.context() as patch:
        kind = BackboneKind(Halves, None, [0.0] * 3, [1 / 255] * 3, lambda path: 0)
        patch.setitem(BACKBONES, "halves", kind)
        config = runpy.run_path(str(CONFIG))["get_config"]("method=cca")
        with config.unlocked():
            config.data.source, config.data.options = "shapes", {"num_pairs": 60}
            config.data.update(
                image_size=32, num_queries=10, num_train=30, num_validation=5
            )
            config.backbone.update(name="halves", weights="")
            config.backbone.options = {}
            config.model.features = 6
            config.training.update(batch_size=30, cache_dir=str(workdir / "maps"))
        cell = compare.Cell("cca", 0, 0)
        found = compare.run_cells(config, [cell], workdir)[cell]
        yield config, workdir, cell, found.result


def test_tags_are_found_by_labels_both_ways(finished, tmp_path):
    config, workdir, cell, result = finished
    with np.load(workdir / cell.folder / "embeddings.npz") as kept:
        kept = dict(kept)
    unseen = ~kept["database_trained"]
    assert unseen.sum() == 20
    for way, own, other in (
        ("image_to_text", "images", "texts"),
        ("text_to_image", "texts", "images"),
    ):
        query, database = kept[f"query_{own}"], kept[f"database_{other}"][unseen]
        labels = kept["query_labels"], kept["database_labels"][unseen]
        found = evaluate_embeddings(query, database, *labels)
        assert result[way]["unseen"]["map"] == pytest.approx(found["map"])
        assert "embeddings" not in result[way]
    found, _ = compare.find_cells(config, workdir)
    compare.write_comparison(tmp_path, found, config, first=["cca"])
    row = json.loads((tmp_path / "comparison.json").read_text())["rows"][0]
    precision = result["text_to_image"]["unseen"]["precision_at"]
    assert row["p5_text_to_image_unseen"] == precision[5]
    assert row["p10_image_to_text_before"] is None
    page = (workdir / cell.folder / "report" / "index.html").read_text()
    assert page.count("<b>query</b>") == 12 and "Texts ask for images" in page


def test_the_first_are_ranked_again_and_shown_in_that_order():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (12, 2))
    names = [f"x{i}" for i in range(12)]
    pairs = Collection(
        "twelve", names, names, labels, names, labels, ("a", "b"), ("c", "d")
    )
    split = Split(*(np.array(x) for x in (range(2), range(2, 12), range(2, 6), [9])))
    outputs = random.normal(size=(12, 6)).astype(np.float32)
    run = SimpleNamespace(
        collection=pairs,
        split=split,
        config={
            "model": {"features": 3},
            "retrieval": {"rerank": 4, "rerank_weight": 1e6},
        },
    )
    asked = []

    def scorer(positions):
        assert positions.tolist() == list(range(12))

        def score(image, text):
            asked.extend(zip(image.tolist(), text.tolist(), strict=True))
            return image + 100.0 * text  # the last of the collection first

        score.scale = 7.0
        return score

    found = {"queries": outputs[:2], "database": outputs[2:]}
    found |= label_matching.second(run, found, scorer)
    assert len(asked) == len(set(asked))  # each pair once
    for image, text in asked:
        assert (image < 2) != (text < 2)
    result, _, examples = label_matching.evaluate(run, found)
    some = labels[:2], labels[2:]
    for place, way in enumerate(label_matching.DIRECTIONS):
        sides = outputs[:, :3], outputs[:, 3:]
        own, other = sides[:: 1 - 2 * place]
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (own, other)]
        order = np.argsort(-(unit[0][:2] @ unit[1][2:].T), axis=1)
        again = [[*sorted(row[:4], reverse=True), *row[4:]] for row in order]
        shown = [int(x[1][1:]) - 2 for x in examples[place][1][0]["results"]]
        assert shown == again[0][:4]
        expected = by_loops(np.array(again), *some)
        np.testing.assert_allclose(scores_of(result[way]), expected)
        before = scores_of(result[way]["embeddings"])
        np.testing.assert_allclose(before, by_loops(order, *some))
        rest = [[i for i in row if i >= 4] for row in order]
        rest = [[*sorted(row[:4], reverse=True), *row[4:]] for row in rest]
        expected = by_loops(np.array(rest), *some)
        np.testing.assert_allclose(scores_of(result[way]["unseen"]), expected)
    text = json.dumps(result, default=lambda x: x.tolist())
    mean = label_comparison.mean([label_comparison.read(json.loads(text)), result])
    one = result["image_to_text"]["unseen"]["map"]
    assert mean["image_to_text"]["unseen"]["map"] == pytest.approx(one)
    assert "average_precision" not in mean["image_to_text"]["unseen"]
    table = format_label_matches({"ours": mean})
    assert "ours, embeddings alone" in table and "P@10 text → image" in table


def test_losses_read_labels_and_drop_tags(finished):
    config, _, _, _ = finished
    random = np.random.default_rng(0)
    tokens = random.normal(size=(4, 500, 3)).astype(np.float32)
    batch = {
        "text": {"tokens": jnp.asarray(tokens), "mask": jnp.ones((4, 500), bool)},
        "labels": jnp.array([[1, 0], [1, 0], [0, 1], [0, 0]]),
        "index": jnp.arange(4),
    }
    towers = SimpleNamespace(text_features=3, temperature=Temperature())
    model, rows = SimpleNamespace(towers=towers), jnp.asarray(tokens[:, :1])

    def joint(model, batch, text, **_):
        assert text["tokens"].shape == (4, 1, 500, 3)  # a text is one sentence
        assert abs(text["mask"].mean() - 0.5) < 0.1
        return rows[:, 0], rows

    with config.unlocked():
        own = config.copy_and_resolve_references()
        own.loss.name = "label_info_nce"
    loss = matching.training_loss(
        LABEL_MATCHERS, LABEL_LOSSES, own, None, None, model, joint
    )(model, batch, jax.random.key(0))
    scale = towers.temperature.scale()
    expected = label_info_nce(rows[:, 0], rows[:, 0], batch["labels"], scale=scale)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    read = CaptionedTokens.read(None, batch["text"])
    assert read["mask"].shape == (4, 1, 500)
    width = SimpleNamespace(vectors_of_words=np.zeros((9, 5)))
    assert matchers.text_features(width) == 5


def test_what_is_refused(finished):
    config, _, _, _ = finished
    assert {row.loss for row in LABEL_MATCHERS.values()} <= LABEL_LOSSES.keys()
    pairs = build.collection(config.data)
    lines = dataclasses.replace(pairs, captions=["a\nb", *pairs.captions[1:]])
    with pytest.raises(ValueError, match="1 images of .* several, such as"):
        label_matching.check(config, lines)
    empty = dataclasses.replace(pairs, text=np.zeros_like(pairs.text))
    with pytest.raises(ValueError, match="needs words, but 60 images"):
        label_matching.check(config, empty)
    with config.unlocked():
        bag = config.copy_and_resolve_references()
        bag.data.text = "bag"
    with pytest.raises(ValueError, match="word_tokens .* got 'bag'"):
        label_matching.check(bag, pairs)
