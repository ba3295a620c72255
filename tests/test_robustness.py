"""Perturbed pairs reach the networks as stated; drops and claims by hand."""

import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from test_end_to_end import tiny_config

from modal_aware_jax import build
from modal_aware_jax.compare.cells import Cell
from modal_aware_jax.compare.perturbed import (
    Condition,
    Perturbed,
    Reader,
    conditions,
    measure,
)
from modal_aware_jax.data import pipeline, shapes
from modal_aware_jax.data.perturbations import LEVELS, perturb_image, perturb_words
from modal_aware_jax.data.protocol import split
from modal_aware_jax.data.text_vectors import BagOfWords
from modal_aware_jax.hashing.codes import pack
from modal_aware_jax.report import robustness as report

OURS, THEIRS = Cell("modal_aware", 32, 0), Cell("text", 32, 0)


class Seen:
    """Stands for a network: keeps what it is given; the code is the first words."""

    lower = share = None

    def __init__(self, needs_image=True):
        self.needs_image, self.images, self.texts = needs_image, [], []

    def codes(self, images, text):
        self.images.append(images)
        self.texts.append(text)
        return np.asarray(pack(np.where(text[:, :32] > 0, 1, -1)))


class Halved(Seen):
    """A network that reads maps: the sum of the images' colours."""

    share = "one"
    runs = 0

    def lower(self, images):
        Halved.runs += 1
        return images.sum(axis=-1)


@pytest.fixture(scope="module")
def small():
    pairs = shapes.load(num_pairs=40, image_size=32)
    return types.SimpleNamespace(
        collection=pairs,
        text=BagOfWords(pairs),
        split=split(40, num_queries=7, num_train=20, num_validation=0, seed=0),
        image_size=32,
    )


def test_conditions_are_each_alone_and_both_at_once():
    wanted = conditions([1, 3])
    assert wanted[0] == Condition("", "", 0)
    names = {(c.image, c.text) for c in wanted[1:]}
    alone = {(n, "") if r.modality == "image" else ("", n) for n, r in LEVELS.items()}
    assert alone < names and len(names) == 7 + 6
    both = names - alone
    assert all(image and text for image, text in both)
    assert {image for image, _ in both} | {text for _, text in both} == set(LEVELS)
    assert len(wanted) == 1 + 2 * 13 == len(set(wanted))


def test_networks_see_the_perturbed_pairs_once_each(small):
    Halved.runs = 0
    cells = [Cell("a", 32, 0), Cell("b", 32, 0), THEIRS, OURS]
    readers = dict(zip(cells, (Halved(), Halved(), Seen(False), Seen()), strict=True))
    perturbed = Perturbed(small, readers, batch_size=5, seed=3)
    told, texts = [], [("", 0), ("drop", 3)]
    positions = small.split.query
    found = perturbed.codes(positions, ("noise", 2), texts, told.append)
    assert told == [5, 2] and Halved.runs == 2  # once a batch for both networks
    pairs = small.collection
    image = np.concatenate(readers[OURS].images[::2])[:7]
    words = np.concatenate(readers[OURS].texts[1::2])[:7]
    for row, position in enumerate(positions):
        clean = pipeline.resize(pipeline.decode(pairs.images[int(position)]), 32)
        noisy = perturb_image(clean, "noise", 20, seed=3, position=int(position))
        np.testing.assert_array_equal(image[row], noisy)
        own = small.text.words(pairs, position)
        kept = perturb_words(own, "drop", 50, [], seed=3, position=int(position))
        np.testing.assert_array_equal(words[row], small.text.encode([kept])[0])
    np.testing.assert_array_equal(
        readers[cells[0]].images[0], readers[OURS].images[0].sum(axis=-1)
    )
    assert readers[THEIRS].images[0].size == 5  # no picture is made for the text alone
    np.testing.assert_array_equal(
        found[OURS, ("", 0)],
        pack(np.where(pairs.text[positions][:, :32] > 0, 1, -1)),
    )


@pytest.mark.parametrize("database_too", [False, True])
def test_every_cell_and_condition_is_measured(small, database_too):
    readers = {OURS: Seen(), THEIRS: Seen(False)}
    perturbed = Perturbed(small, readers, batch_size=8, seed=0)
    parts = small.split
    bits = np.where(small.collection.text[parts.database][:, :32] > 0, 1, -1)
    clean = dict.fromkeys(readers, np.asarray(pack(bits)))
    wanted = [Condition(), Condition("blur", "", 1), Condition("", "empty", 3)]
    rows = list(
        measure(
            perturbed,
            wanted,
            queries=parts.query,
            clean_database=None if database_too else clean,
        )
    )
    score = {(r["method"], r["image"], r["text"], r["level"]): r["map"] for r in rows}
    assert len(score) == len(rows) == 6
    for method in ("modal_aware", "text"):
        before = score[method, "", "", 0]
        assert 0 < before <= 1
        assert score[method, "blur", "", 1] == before  # the code is the words'
        assert score[method, "", "empty", 3] != before


def test_what_was_measured_is_kept_for_the_same_run_and_settings(tmp_path):
    """In a process of its own: importing a command defines its flags."""
    program = """
import pathlib, sys
import modal_aware_jax.figures  # two commands in one process: no flag is defined twice
from modal_aware_jax.compare.cells import Cell
from modal_aware_jax.compare.perturbed import Condition
from modal_aware_jax.robustness import Kept
path, cell = pathlib.Path(sys.argv[1]), Cell("text", 32, 0)
row = {**cell._asdict(), **Condition("blur", "", 2)._asdict(), "map": 0.4}
Kept(path, {"queries": 7}, {cell: "a"}).add(row)  # without unseen pairs: not taken
Kept(path, {"queries": 7}, {cell: "a"}).add({**row, "map": 0.5, "map_unseen": 0.3})
path.write_text(path.read_text() + '{"method": "te')  # cut short by a crash
for what, run in ((7, "a"), (8, "a"), (7, "b")):
    print(*[r["map"] for r in Kept(path, {"queries": what}, {cell: run}).rows.values()])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "measured.jsonl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["0.5", "", ""]


def row(method, seed, image, text, level, score):
    return dict(
        method=method, seed=seed, image=image, text=text, level=level, map=score
    )


@pytest.fixture
def rows():
    return [
        row("ours", 0, "", "", 0, 0.8),
        row("ours", 1, "", "", 0, 0.5),
        row("ours", 0, "noise", "", 1, 0.76),  # -5 %
        row("ours", 1, "noise", "", 1, 0.495),  # -1 %
        row("ours", 0, "", "drop", 1, 0.8),  # 0 %
        row("ours", 1, "", "drop", 1, 0.49),  # -2 %
        row("ours", 0, "noise", "drop", 1, 0.72),  # -10 %
        row("ours", 1, "noise", "drop", 1, 0.49),  # -2 %
        row("theirs", 0, "", "", 0, 0.4),
        row("theirs", 0, "noise", "", 1, 0.3),  # -25 %
    ]


def test_drops_by_hand(rows):
    table = report.drops(rows)
    noise, drop, both, theirs = table
    assert noise["clean"] == pytest.approx(0.65)
    assert noise["map"] == pytest.approx((0.76 + 0.495) / 2)
    assert noise["drop"] == pytest.approx((0.04 + 0.005) / 2)
    percents = [r["percent"] for r in (noise, drop, both, theirs)]
    np.testing.assert_allclose(percents, [3, 1, 6, 25])
    mean = report.mean_percent(table, method="ours", kind="one")
    assert mean == pytest.approx(2)
    one, both = report.claims(table, "ours")[::2][::-1]
    assert one["percent"] == pytest.approx(2) and one["limit"] == 4 and one["holds"]
    assert both["percent"] == pytest.approx(6) and not both["holds"]


def test_the_report_shows_doses_drops_and_claims(rows, tmp_path):
    doses = {"noise": ("grey levels", (10, 20, 40)), "drop": ("% of words", (1, 2, 3))}
    text = report.write_robustness(
        tmp_path, rows, method="ours", doses=doses, note="Perturbed: queries."
    )
    assert "| noise | grey levels | 10 | 20 | 40 |" in text
    assert "| ours | 0.6500 | 3.00 | 1.00 | 6.00 | 2.00 | 6.00 |" in text
    assert "| theirs | 0.4000 | 25.00 | – | – | 25.00 | – |" in text
    assert "| image and text | mean of all | < 5 % | 6.00 % | no |" in text
    assert "| one of them | mild | < 4 % | 2.00 % | yes |" in text
    assert (tmp_path / "robustness.md").read_text() == text
    assert len((tmp_path / "robustness.csv").read_text().splitlines()) == 5
    with Image.open(tmp_path / "robustness.png") as image:
        assert image.width > 600


def test_a_network_on_cached_maps_runs_its_lower_half_again():
    config = tiny_config("concat")
    with config.unlocked():
        config.backbone.frozen_blocks = 7
        config.training.cached_maps = True
    experiment = build.experiment(config)
    reader = Reader(experiment)
    pairs = experiment.collection
    images = np.stack(
        [pipeline.resize(pipeline.decode(pairs.images[i]), 32) for i in range(8)]
    )
    text = pairs.text[:8].astype(np.float32)
    graphdef, state = nnx.split(experiment.model)
    whole = jax.jit(lambda s, *x: nnx.merge(graphdef, s)(*x, train=False))(
        state, experiment.normalize(images), text
    )
    expected = np.asarray(whole) >= 0
    maps = reader.lower(images)
    assert maps.dtype == np.float16 and maps.shape[0] == 8
    ours = reader.codes(maps, text).view(np.uint8)
    bits = np.unpackbits(ours, axis=1, bitorder="little")[:, :16]
    # float16 maps turn a bit only where its relaxed value is all but zero.
    scale = np.abs(np.asarray(whole)).mean()
    sure = np.abs(np.asarray(whole)) > 0.02 * scale
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(bits[sure], expected[sure])

    head = experiment.model.head.dense
    head.kernel[...] = -head.kernel[...]  # as another seed's cell: other weights,
    head.bias[...] = -head.bias[...]  # the same program
    other = Reader(experiment, like=reader)
    assert other.share == reader.share
    turned = other.codes(maps, text).view(np.uint8)
    turned = np.unpackbits(turned, axis=1, bitorder="little")[:, :16]
    np.testing.assert_array_equal(turned[sure], 1 - bits[sure])
