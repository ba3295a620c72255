"""The confusion matrix and the reliability diagram as files."""

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.classification import reliability_bins
from modal_aware_jax.report.confusion import confusion_markdown, draw_confusion
from modal_aware_jax.report.reliability import draw_reliability

RNG = np.random.default_rng(0)


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"), float)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_confusion_matrix_is_drawn(tmp_path, count):
    matrix = np.diag(np.arange(count) * 9) + RNG.integers(0, 5, (count, count))
    matrix[0] = 0  # a class without items
    names = [f"class $x_{{$ {i}" for i in range(count)]
    names[-1] *= 1000
    draw_confusion(matrix, names, tmp_path / "matrix.png")
    assert pixels(tmp_path / "matrix.png").std() > 5


def test_other_counts_give_another_picture(tmp_path):
    for path, matrix in (("a.png", [[5, 0], [0, 5]]), ("b.png", [[0, 5], [5, 0]])):
        draw_confusion(np.array(matrix), ["yes", "no"], tmp_path / path)
    difference = pixels(tmp_path / "a.png") - pixels(tmp_path / "b.png")
    assert np.abs(difference).mean() > 10


def test_a_class_without_items_has_no_recall_and_bars_are_escaped():
    table = confusion_markdown([[0, 0], [1, 3]], ["a|b", "c"])
    assert "| a\\|b | 0 | 0 | – |" in table and "| c | 1 | 3 | .7500 |" in table
    assert "| a b | 1 | 1.0000 |\n" in confusion_markdown([[1]], ["a\nb"])


def test_reliability_is_drawn_with_its_error(tmp_path):
    confidence = RNG.uniform(0.3, 1, 200)
    right = RNG.random(200) < confidence**2
    bins = reliability_bins(confidence, right, num_bins=10)
    draw_reliability({"_surer than right": bins}, tmp_path / "one.png")
    draw_reliability({"one": bins, "two": bins}, tmp_path / "two.png")
    assert np.abs(pixels(tmp_path / "one.png") - pixels(tmp_path / "two.png")).any()


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"draw_confusion.*\(2, 2\) and 1 names"):
        draw_confusion(np.eye(2), ["one"], tmp_path / "no.png")
    with pytest.raises(ValueError, match=r"confusion_markdown.*\(2, 3\)"):
        confusion_markdown(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="at least one result"):
        draw_reliability({}, tmp_path / "no.png")
