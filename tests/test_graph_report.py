"""The drawn graph: weights and table by hand, lines that end where they should."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.report.graph import (
    COLUMNS,
    draw_graph,
    edge_rows,
    words_and_patches,
    write_edges,
)
from modal_aware_jax.report.matches import write_matches
from modal_aware_jax.retrieval.evaluate_matching import evaluate_matching

# Two patches, then one word; two layers of one head, rows sum to 1.
FIRST = np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [0.2, 0.7, 0.1]])
SECOND = np.array([[0.0, 0.0, 1.0], [0.3, 0.3, 0.4], [0.6, 0.1, 0.3]])


def test_words_and_patches_by_hand():
    edges = [FIRST, SECOND]
    np.testing.assert_allclose(words_and_patches(edges, 2), [[0.4, 0.4]])
    np.testing.assert_allclose(words_and_patches(edges, 2, layer=0), [[0.2, 0.7]])
    seen = words_and_patches(edges, 2, layer=1, reader="patch")
    np.testing.assert_allclose(seen, [[1.0, 0.4]])
    heads = [np.stack([FIRST, SECOND])]  # one layer of two heads
    np.testing.assert_allclose(words_and_patches(heads, 2), [[0.4, 0.4]])
    np.testing.assert_allclose(words_and_patches(heads, 2, head=1), [[0.6, 0.1]])


def test_the_table_has_every_edge_and_reads_back(tmp_path):
    rows = edge_rows([FIRST, SECOND], (1, 2), ["sea"])
    assert len(rows) == 18 - 3  # three of the eighteen are 0
    told = {(r["layer"], r["reader"], r["source"]): r["weight"] for r in rows}
    assert told[0, "0:sea", "0,1"] == 0.7 and told[1, "0,0", "0:sea"] == 1.0
    assert (0, "0,1", "0,0") not in told
    write_edges(tmp_path / "edges.csv", [FIRST, SECOND], (1, 2), ["a, b\n"])
    with open(tmp_path / "edges.csv", newline="", encoding="utf-8") as file:
        back = list(csv.DictReader(file))
    assert tuple(back[0]) == COLUMNS and len(back) == len(rows)
    assert {row["reader_kind"] for row in back} == {"patch", "word"}
    sums = {}
    for row in back:
        key = row["layer"], row["reader"]
        sums[key] = sums.get(key, 0) + float(row["weight"])
    np.testing.assert_allclose(list(sums.values()), 1, atol=1e-5)
    assert ("0", "0:a, b\n") in sums


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A black photograph, one word that reads the patch at the right below."""
    path = tmp_path_factory.mktemp("graph") / "graph.png"
    black = np.zeros((40, 40, 3), np.uint8)
    weights = np.array([[0.0, 0.1, 0.0, 0.9]])
    draw_graph(
        black,
        (2, 2),
        ["$sea_"],
        weights,
        path,
        title="t $x$ " * 30,
        patches_of_a_word=1,
    )
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_line_ends_in_the_strongest_patch(drawn):
    above = drawn[: len(drawn) * 2 // 3]
    rows, columns = np.nonzero((above < 12).all(axis=-1))
    # The photograph is the widest run of black; letters are narrow.
    wide = np.bincount(rows, minlength=len(above)) > 60
    top, bottom = np.flatnonzero(wide)[[0, -1]]
    columns = columns[np.isin(rows, np.flatnonzero(wide))]
    left, right = columns.min(), columns.max()
    blue = np.abs(above - np.array([0, 114, 178])).max(axis=-1) < 30
    inside = blue[top : bottom + 1, left : right + 1]
    middle = inside.shape[0] // 2, inside.shape[1] // 2
    assert not inside[: middle[0] - 3, : middle[1] - 3].any()
    assert inside[middle[0] + 3 :, middle[1] + 3 :].sum() > 20
    assert blue[:, right + 3 :].sum() > 20  # the word, and the line to it


def test_the_page_of_matching_shows_graphs_and_links_their_tables(tmp_path):
    photo = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(photo, "PNG")
    graph = {"image": photo.getvalue(), "sentence": "a <sea>", "words": ["sea"]}
    graph |= {"grid": (1, 2), "edges": [FIRST, SECOND]}
    result = evaluate_matching(np.eye(2), np.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 1])
    write_matches(
        tmp_path,
        {"cmfg": result},
        title="graphs",
        examples=[("Which patches the words read", [graph, graph])],
        curves=[],
    )
    Image.open(tmp_path / "graph_2.png").verify()
    table = (tmp_path / "graph_1.csv").read_text().splitlines()
    assert len(table) == 16 and table[0] == ",".join(COLUMNS)
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png") == 2 and "<sea>" not in page
    assert 'href="graph_1.csv"' in page and "reads of each patch" in page


def test_what_does_not_fit_is_told(tmp_path):
    with pytest.raises(ValueError, match="layer 2 of 2: the first is 0"):
        words_and_patches([FIRST, SECOND], 2, layer=2)
    with pytest.raises(ValueError, match="head 1 of 1: .* None takes the mean"):
        words_and_patches([FIRST, SECOND], 2, head=1)
    with pytest.raises(ValueError, match="reader must be 'word' or 'patch', got 'x'"):
        words_and_patches([FIRST], 2, reader="x")
    with pytest.raises(ValueError, match="4 patches first, got .*Take one pair"):
        words_and_patches([FIRST], 4)
    with pytest.raises(ValueError, match="with 4 nodes, got"):
        edge_rows([FIRST], (1, 2), ["a", "b"])
    with pytest.raises(ValueError, match=r"weights \[1, 4\] of 1 words and 2 x 2"):
        weights = np.ones((1, 3))
        draw_graph(np.zeros((4, 4, 3), np.uint8), (2, 2), ["a"], weights, tmp_path)
