"""Figures and tables: numbers against loops and scikit-learn, pictures that open."""

import subprocess
import sys
import types

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from sklearn.decomposition import PCA

from modal_aware_jax.models.attention import BlockAttention
from modal_aware_jax.report import attention, code_space, convergence, latency
from modal_aware_jax.report.statistics import dataset_statistics, statistics_markdown


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_convergence_shows_the_mean_of_the_seeds_and_when_it_is_reached(tmp_path):
    epochs = np.arange(1, 5)
    curves = {
        "ours": [
            (epochs, np.array([0.5, 0.79, 0.8, 0.8])),
            (epochs, np.array([0.7, 0.8, 0.8, 0.79])),
        ],
        "theirs": [(epochs[:2], np.array([0.3, 0.2]))],
    }
    table = convergence.convergence_markdown(curves).splitlines()
    # Means .6, .795, .8, .795: 99 % of .8 is .792.
    assert table[2] == "| ours | 2 | 4 | 0.8000 | 3 | 2 |"
    assert table[3] == "| theirs | 1 | 2 | 0.3000 | 1 | 1 |"
    convergence.draw_convergence(curves, tmp_path / "c.png")
    picture = opened(tmp_path / "c.png")
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (abs(picture - colour).max(-1) < 8).sum() > 20


def test_latency_alternates_and_takes_the_median():
    order, seconds = [], {"a": iter([9, 1, 5, 2]), "b": iter([9, 3, 3, 30])}
    now = 0.0

    def call(name):
        nonlocal now
        order.append(name)
        now += next(seconds[name])

    medians = latency.alternating_medians(
        {name: lambda n=name: call(n) for name in "ab"}, rounds=3, clock=lambda: now
    )
    assert "".join(order) == "abababab"
    assert medians == {"a": 2, "b": 3}  # the first call, 9 s, does not count
    rows = latency.latency_rows({1: {"a": 0.002}, 100: {"a": 0.05}})
    text = latency.latency_markdown(rows, note="here")
    assert text.splitlines()[-1] == "| a | 2.0 | 50.0 | 500.0 | 2000.0 |"


def test_pca_equals_that_of_scikit_learn(rng):
    points = np.where(rng.random((60, 16)) < rng.random(16), 1, -1)
    ours, model = code_space.pca(points), PCA(2, svd_solver="full").fit(points)
    theirs = model.transform(points)
    for axis in (0, 1):
        sign = np.sign(ours[:, axis] @ theirs[:, axis])
        np.testing.assert_allclose(ours[:, axis], sign * theirs[:, axis], atol=1e-9)
    np.testing.assert_array_equal(ours, code_space.pca(points))


def test_tsne_keeps_two_clusters_apart_and_is_seeded(rng):
    centres = np.where(rng.random((2, 32)) < 0.5, 1, -1)
    which = np.repeat([0, 1], 30)
    flips = np.where(rng.random((60, 32)) < 0.05, -1, 1)
    plane = code_space.tsne(centres[which] * flips)
    middle = np.stack([plane[which == i].mean(0) for i in (0, 1)])
    nearest = ((plane[:, None] - middle[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest, which)
    np.testing.assert_array_equal(plane, code_space.tsne(centres[which] * flips))


def test_labels_are_those_with_most_pairs_of_one_label(rng, tmp_path):
    # "all" is on every pair: beside it no other label would stand alone.
    labels = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]])
    rows, label, taken = code_space.one_label_each(labels)
    assert taken == [0] and len(rows) == 4 and not label.any()
    rows, label, taken = code_space.one_label_each(labels[:, 1:], count=2)
    assert taken == [1, 0] and label.tolist() == [0, 1, 1, 1]
    spaces = {"ours": rng.normal(size=(4, 2)), "theirs": rng.normal(size=(4, 2))}
    code_space.draw_code_space(
        spaces, label, ["_sea", "$d_{$og" * 50], tmp_path / "codes.png", title="4 codes"
    )
    assert opened(tmp_path / "codes.png").shape[1] > 700


def test_many_classes_have_a_mark_of_their_own_which_the_legend_shows(
    tmp_path, monkeypatch
):
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    label = np.repeat(np.arange(10), 16)
    spaces = {"ours": np.stack([label, label], axis=1)}
    code_space.draw_code_space(spaces, label, "abcdefghij", tmp_path, title="ten")
    (figure,) = kept
    drawn = {}
    for points in figure.axes[0].collections:
        mark = *points.get_facecolor()[0, :3], *points.get_paths()[0].vertices.ravel()
        drawn.setdefault(mark, set()).update(points.get_offsets()[:, 0].tolist())
    assert len(drawn) == 10 and all(len(classes) == 1 for classes in drawn.values())
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list("abcdefghij")
    for handle, name in zip(legend.legend_handles, "abcdefghij", strict=True):
        (mark,) = [m for m in drawn if drawn[m] == {"abcdefghij".index(name)}]
        assert to_rgb(handle.get_color()) == mark[:3]


def test_what_needs_labels_says_so_and_titles_are_those_of_any_task():
    """In a process of its own: importing a command defines its flags."""
    program = """
import types
import numpy as np
from modal_aware_jax import build, figures, robustness
pairs = types.SimpleNamespace(name="mine", labels=np.zeros((3, 0)))
figures.draw_codes(None, None, {}, pairs, points=3)
print(figures.title("towers"))
build.collection = lambda data: pairs
try:
    settings = types.SimpleNamespace(data=None)
    robustness._measure_waiting(settings, None, {}, None, None)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    codes, title, robustness = done.stdout.splitlines()
    assert codes.startswith("codes: left out") and title == "two towers, InfoNCE"
    assert "mine has none" in robustness


def test_mistakes_on_the_command_lines_are_told(tmp_path):
    """In a process of its own: importing a command defines its flags."""
    program = """
import sys, types
from modal_aware_jax import build, figures, robustness
from modal_aware_jax.compare.cells import Cell

def told(call, *args, **values):
    try:
        values = types.SimpleNamespace(config={}, workdir=sys.argv[1], **values)
        call(*args or [values])
    except ValueError as error:
        print(error)

print(*figures.figures_of(build.TASKS["cross_modal"]))
told(figures.figures_of, build.TASKS["matching"])
cells = dict.fromkeys([Cell("text", 8, 1), Cell("gmu", 8, 0)])
figures.chosen_cells = lambda *_, **__: cells
asked = {"methods": [], "bits": None}
told(figures.run, figures=["latency"], seed=7, **asked)
told(robustness.run, levels=[], seeds=[], **asked)
told(robustness.run, levels=["1"], seeds=["x"], **asked)
names = ("points", "photographs", "rounds", "queries", "noise_seed")
print(*(figures.flags.FLAGS[name].parser.lower_bound for name in names))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    sides, matching, seed, levels, seeds, lowest = done.stdout.splitlines()
    assert sides == "convergence statistics"
    assert "matching has no figures but those of its report" in matching
    assert seed == "--seed=7: the finished cells have the seeds 0, 1."
    assert levels == "--levels are of 1 (mild), 2 and 3 (strong), not ''."
    assert seeds == "--seeds are whole numbers from 0, such as 0,1, not 'x'."
    assert lowest == "10 1 1 0 0"


def test_an_overlay_takes_both_ends_of_the_colours():
    import matplotlib

    photo = np.full((32, 48, 3), 100, np.uint8)
    colours = matplotlib.colormaps["viridis"]
    drawn = attention.overlay(photo, np.array([[2.0, 2.0], [2.0, 7.0]]), colours)
    assert drawn.shape == photo.shape and drawn.dtype == np.uint8
    for corner, end in (((0, 0), 0.0), ((-1, -1), 1.0)):
        expected = 45 + 0.55 * 255 * np.array(colours(end)[:3])
        np.testing.assert_allclose(drawn[corner], expected, atol=12)
    flat = attention.overlay(photo, np.ones((2, 2)), colours)
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_attention_is_drawn_for_every_half_a_network_has(rng, tmp_path):
    photos = rng.integers(0, 256, (2, 24, 24, 3), np.uint8)
    maps, gates = rng.random((2, 3, 3)), rng.random((2, 8))
    networks = {
        "full": BlockAttention(maps, gates, maps),
        "w/o kernel network": BlockAttention(None, gates, maps),
        "w/o attention": BlockAttention(maps, None, None),
    }
    captions = ["sea, sky, $5 and very many more words than fit", ""]
    path = tmp_path / "attention.png"
    attention.draw_attention(photos, captions, networks, path, title="Block 1")
    assert opened(path).shape[1] > opened(path).shape[0]
    attention.draw_attention(
        photos, captions, {"w/o attention": networks["w/o attention"]}, path, title=""
    )
    assert opened(path).shape[0] > 300


def test_statistics_equal_loops(rng):
    labels = (rng.random((50, 5)) < 0.2).astype(np.uint8)
    words = rng.integers(0, 4, 50)
    parts = types.SimpleNamespace(
        query=np.arange(10),
        database=np.arange(10, 50),
        train=np.arange(10, 30),
        validation=np.arange(30, 35),
    )
    facts = dataset_statistics(labels, words, 7, parts)
    relevant = [
        sum(
            any(a and b for a, b in zip(labels[q], labels[d], strict=True))
            for d in parts.database
        )
        for q in parts.query
    ]
    share = facts["share of the database relevant to a query, mean"]
    assert share == pytest.approx(sum(relevant) / 400)
    assert facts["queries without a relevant pair"] == relevant.count(0)
    assert facts["pairs"] == 50 and facts["labels"] == 5 and facts["vocabulary"] == 7
    assert facts["labels per pair, mean"] == pytest.approx(labels.sum() / 50)
    bare = [row for row in labels.tolist() if not any(row)]
    assert facts["pairs without label"] == len(bare)
    assert facts["pairs without word"] == words.tolist().count(0)
    sizes = [facts[name] for name in ("test queries", "database", "training pairs")]
    assert sizes == [10, 40, 20]
    assert "| pairs | 50 | 50 |" in statistics_markdown({"a": facts, "b": facts})
