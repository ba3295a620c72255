"""Reports: the numbers arrive, text is escaped, pictures open, marks are right."""

import base64
import csv
import html.parser
import io
import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image

from modal_aware_jax.build import TASKS
from modal_aware_jax.classification import reliability_bins
from modal_aware_jax.report import format_results, result_picture, write_report
from modal_aware_jax.report.convergence import draw_convergence
from modal_aware_jax.report.curves import draw_precision_at
from modal_aware_jax.report.page import render_table
from modal_aware_jax.report.reliability import draw_reliability
from modal_aware_jax.report.styles import line_style
from modal_aware_jax.report.tables import summary
from modal_aware_jax.report.thumbnail import thumbnail


def result(score, **more):
    """What `evaluate` returns, made up."""
    return {
        "map_expected": score,
        "map_index": score + 0.01,
        "average_precision": np.array([score, np.nan]),
        "precision_at": {1: 0.75, 10: 0.5},
        "radius_precision": np.array([0.0, 1.0, 0.5]),
        "radius_recall": np.array([0.0, 0.25, 1.0]),
        "num_queries": 2,
        "num_database": 40,
        "num_bits": 2,
        "queries_without_relevant": 0,
    } | more


def encoded(mode="RGB", size=(30, 20), form="JPEG"):
    buffer = io.BytesIO()
    Image.new(mode, size, 128 if mode == "L" else None).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def examples():
    nasty = '<script>alert("1")</script> & co'
    return [
        {
            "query": (encoded(), nasty, ["sea", "<b>"]),
            "results": [
                (np.full((9, 9), 7, np.uint8), "grey array", ["sea"], 0, True),
                (encoded("CMYK"), "cmyk", ["dog"], 3, False),
                (encoded("L", form="PNG"), "größe 日本", ["<b>"], 3, np.bool_(True)),
                (b"no image at all", "", [], 4, None),
            ],
        }
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, examples):
    directory = tmp_path_factory.mktemp("run") / "new" / "report"
    results = {"ours": result(0.9), "them | us": result(0.8)}
    page = write_report(directory, results, examples, title="A & B")
    return page.parent


class Reader(html.parser.HTMLParser):
    """Collects tags with their attributes and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_json_holds_everything_and_is_strict(folder):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "metrics.json").read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=refuse)
    assert read["ours"]["map_expected"] == 0.9
    assert read["ours"]["average_precision"] == [0.9, None]
    assert read["them | us"]["precision_at"] == {"1": 0.75, "10": 0.5}
    assert read["ours"]["radius_recall"] == [0.0, 0.25, 1.0]


def test_csv_and_markdown_hold_the_summary(folder):
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        ours, theirs = csv.DictReader(file)
    assert ours["method"] == "ours" and theirs["method"] == "them | us"
    assert float(theirs["MAP"]) == 0.8 and float(ours["P@10"]) == 0.5
    assert (ours["bits"], ours["queries"], ours["database"]) == ("2", "2", "40")
    lines = (folder / "metrics.md").read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith("| ours | 2 | 0.9000 | 0.9100 | 0.7500 | 0.5000 |")
    assert lines[3].startswith("| them \\| us |")
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_format_results_is_aligned_and_marks_what_is_missing():
    text = format_results(
        {"a": result(0.5), "longer": result(0.25, precision_at={5: 1.0})}
    )
    header, rule, first, second = text.splitlines()
    assert len(header) == len(rule) == len(first) == len(second)
    assert header.split()[:3] == ["method", "bits", "MAP"]
    assert first.split()[:3] == ["a", "2", "0.5000"]
    assert second.split().count("–") == 2 and first.split().count("–") == 1


def test_summary_has_the_same_columns_in_every_row():
    rows = summary({"a": result(0.5), "b": result(0.25, precision_at={5: 1.0})})
    assert list(rows[0]) == list(rows[1])
    assert rows[1]["P@5"] == 1.0 and np.isnan(rows[0]["P@5"])


def test_page_is_well_formed_escaped_and_needs_no_other_file(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    read = Reader(text)
    assert not read.open
    assert "script" not in {tag for tag, _ in read.tags}
    assert '<script>alert("1")</script> & co' in read.words
    assert "A & B" in read.words and "größe 日本" in read.words
    sources = [a["src"] for tag, a in read.tags if tag == "img"]
    assert len(sources) == 2 + 5  # curves, query, results
    for source in sources:
        head, data = source.split(",")
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert head == f"data:image/{image.format.lower()};base64"
        image.load()
    assert "http" not in text.replace("http-equiv", "")


def test_page_marks_relevance_by_text_and_border_and_shared_labels(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    read = Reader(text)
    kinds = [a["class"] for tag, a in read.tags if tag == "figure"]
    assert kinds == ["", "relevant", "other", "relevant", ""]
    assert read.words.count("✓ relevant") == 2
    assert read.words.count("✗ not relevant") == 1
    assert text.count("<b>sea</b>") == 1 and text.count("<b>&lt;b&gt;</b>") == 1
    assert all(a.get("alt") is not None for tag, a in read.tags if tag == "img")


def test_best_scores_are_bold(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert '<td class="best" data-name="MAP">0.9000</td>' in text
    assert '<td data-name="MAP">0.8000</td>' in text


def test_scores_are_compared_at_one_length_and_of_one_direction():
    scores = {"a, there": 0.9, "a, back": 0.5, "b, there": 0.8, "b, back": 0.6}
    results = {name: result(score) for name, score in scores.items()}
    results["a, there, 8 bits"] = result(0.95) | {"num_bits": 8}
    table = render_table(results, apart=("there", "back"))
    assert re.findall(r'class="best" data-name="MAP">([\d.]+)', table) == [
        "0.9000",
        "0.6000",
    ]


def test_curves_show_the_numbers(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn, save = {}, Figure.savefig

    def keep(figure, path, **options):
        drawn[path.name] = figure.axes[0]
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    write_report(tmp_path, {"_a$": result(0.9), "b": result(0.8)})
    recall = drawn["precision_recall.png"]
    np.testing.assert_array_equal(
        recall.lines[0].get_xydata(), [(0.25, 1.0), (1.0, 0.5)]
    )
    at = drawn["precision_at.png"]
    np.testing.assert_array_equal(at.lines[1].get_xydata(), [(1, 0.75), (10, 0.5)])
    shown = [text.get_text().strip() for text in recall.get_legend().get_texts()]
    assert shown == [r"_a\$", "b"]
    for name in drawn:
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG" and image.width > 400


def test_every_method_of_a_task_has_a_line_of_its_own():
    count = max(len(task.methods) for task in TASKS.values())
    assert count > 24
    styles = [line_style(number, "") for number in range(count)]
    for a, b in itertools.combinations(styles, 2):
        same = [key for key in ("color", "linestyle", "marker") if a[key] == b[key]]
        assert len(same) < 2, (a, b)  # and of one colour neither dash nor marker


@pytest.mark.parametrize("count", [8, 31])
def test_many_names_are_all_beside_the_curves(count, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    names = [f"a method with a long name {i}" for i in range(count)]
    bins = reliability_bins([0.3, 0.9], [False, True])
    draw_precision_at(
        dict.fromkeys(names, {"precision_at": {1: 0.5, 9: 0.4}}), tmp_path
    )
    draw_convergence(dict.fromkeys(names, [([1, 2], [0.5, 0.6])]), tmp_path)
    draw_reliability(dict.fromkeys(names, bins), tmp_path)
    assert len(kept) == 3
    for figure in kept:
        figure.draw_without_rendering()
        own = figure.legends[0].get_window_extent()
        assert len(figure.legends[0].get_texts()) == count
        assert own.x0 >= figure.axes[0].get_window_extent().x1
        assert figure.bbox.x1 >= own.x1 and own.y0 >= 0


def test_one_evaluation_needs_no_name_and_none_is_an_error(tmp_path):
    write_report(tmp_path, result(0.5))
    assert (tmp_path / "metrics.md").read_text().splitlines()[2].startswith("| model |")
    with pytest.raises(ValueError, match="write_report: there are no results"):
        write_report(tmp_path, {})


def test_result_picture_has_a_coloured_border_for_every_result(tmp_path, examples):
    (example,) = examples
    path = result_picture(**example, path=tmp_path / "new" / "search.png")
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB")).astype(int)

    def borders(colour):
        """Separate pictures along the top edge with this colour."""
        row = (np.abs(sheet[13] - colour).max(-1) < 3).astype(int)
        return np.count_nonzero(np.diff(row) == 1)

    assert borders((26, 127, 55)) == 2  # relevant
    assert borders((190, 30, 45)) == 1  # not relevant
    assert borders((140, 140, 140)) >= 2  # query, unknown
    assert result_picture(example["query"], [], tmp_path / "none.png").exists()


def test_a_text_of_any_length_is_cut_to_its_cell(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    sheets = []
    for caption in ("a red boat " * 20, "a red boat " * 100_000):  # more than PIL takes
        path = result_picture((image, caption, []), [], tmp_path / "a.png")
        with Image.open(path) as sheet:
            sheets.append(np.asarray(sheet))
    np.testing.assert_array_equal(*sheets)


@pytest.mark.parametrize(
    "image, size",
    [
        (np.zeros((10, 40, 3), np.uint8), (80, 20)),
        (np.zeros((40, 10, 1)), (20, 80)),
        (np.zeros((1, 1), np.float32), (80, 80)),
        (np.zeros((1, 400, 4), np.uint8), (80, 1)),
        (b"", (80, 80)),
    ],
)
def test_thumbnails_keep_their_proportions(image, size):
    small = thumbnail(image, 80)
    assert (small.size, small.mode) == (size, "RGB")


def test_float_images_are_scaled_and_clipped():
    image = np.array([[0.0, 0.5], [1.0, 7.0]])
    np.testing.assert_array_equal(
        np.asarray(thumbnail(image, 2))[..., 0], [[0, 127], [255, 255]]
    )


def test_thumbnail_names_a_wrong_shape():
    with pytest.raises(ValueError, match=r"thumbnail: .*shape \(2, 3, 5\)"):
        thumbnail(np.zeros((2, 3, 5)), 10)
    with pytest.raises(ValueError, match="thumbnail: the image is empty"):
        thumbnail(np.zeros((0, 3)), 10)


def test_a_narrow_window_shows_each_number_under_its_name(folder):
    text = (folder / "index.html").read_text()
    columns = list(summary({"a": result(0.5)})[0])
    cards = re.search(r"@media \(max-width: \d+rem\) \{[^@]*attr\(data-name\)", text)
    assert cards and "min-width: 9rem" in text
    for column in columns:  # a row is a card there, without the table's header
        assert text.count(f'data-name="{column}"') == 2
