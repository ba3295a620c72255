"""What a report of matching shows: recalls both ways, two curves, what was found."""

import html
import io
import pathlib

import numpy as np
from PIL import Image

from modal_aware_jax.report.curves import (
    draw_cumulative_match,
    draw_precision_recall_by_rank,
)
from modal_aware_jax.report.graph import draw_graph, words_and_patches, write_edges
from modal_aware_jax.report.page import (
    document,
    html_table,
    render_curves,
    render_item,
)
from modal_aware_jax.report.tables import aligned, markdown_table, write_metrics

NOTE = (
    "R@k is the share of the queries, in percent, that find a sentence of their image, "
    "or their image, among the first k; rsum adds up the six. Images ask all sentences "
    "of all test images, and sentences all test images."
)
BY_RANK = ("precision", "recall")
EXAMPLES_NOTE = (
    "Green border and “✓ right”: a sentence of the image, or the image of the "
    "sentence; dashed red border and “✗ wrong”: any other. An image that asks has its "
    "own sentences below, an image that was found its first; in brackets the cosine, "
    "or the new score where the first were ranked again, and are in that order."
)
GRAPH_NOTE = (
    "Edges of the graph of a picture and one of its sentences, the mean over its "
    "layers: how much each word reads of each patch. Lines go to the strongest "
    "patches; below, the weights of each word, in colours of its own range."
)
WAYS = {"image_to_text": "image → text", "text_to_image": "text → image"}


def summary(results: dict) -> list[dict]:
    """One flat row a method: {column: text or number}, the same columns in each.

    Args:
      results: by name, of `retrieval.evaluate_matching`.
    """
    rows = []
    for name, result in results.items():
        row = {"method": name, "rsum": float(result["rsum"])}
        if "rsum_low" in result:
            low, high = result["rsum_low"], result["rsum_high"]
            row["95 % interval"] = f"{low:.1f} to {high:.1f}"
        for key, way in WAYS.items():
            for k, value in zip((1, 5, 10), result[key]["recall"], strict=True):
                row[f"R@{k} {way}"] = 100 * float(value)
            row[f"median rank {way}"] = float(result[key]["median_rank"])
        fewest, most = result["texts_per_image"]
        row["images"] = int(result["num_images"])
        row["sentences an image"] = (
            f"{fewest} to {most}" if most > fewest else str(most)
        )
        rows.append(row)
    return rows


def _cells(rows):
    def text(value):
        return f"{value:.1f}" if isinstance(value, float) else str(value)

    return [list(rows[0]), *([text(v) for v in row.values()] for row in rows)]


def format_matches(results: dict) -> str:
    """An aligned table for the terminal."""
    return aligned(_cells(summary(results)))


def draw_matches(directory, results: dict) -> list[tuple[str, pathlib.Path]]:
    """Draws cumulative_match_*.png and precision_recall_*.png of both ways.

    Precision and recall are drawn where all results have them.

    Returns:
      (description, path) of each.
    """
    curves = []
    for key, way in WAYS.items():
        path = pathlib.Path(directory) / f"cumulative_match_{key}.png"
        some = {
            name: np.asarray(result[key]["cmc"]) for name, result in results.items()
        }
        draw_cumulative_match(some, path, f"Cumulative match, {way}")
        curves.append((f"Share found by rank k, {way}", path))
    if all("by_rank" in result for result in results.values()):
        by_rank = {name: result["by_rank"] for name, result in results.items()}
        curves += draw_by_rank(directory, by_rank)
    return curves


def draw_by_rank(directory, results: dict) -> list[tuple[str, pathlib.Path]]:
    """Draws precision_recall_*.png of both ways -> (description, path) of each.

    Args:
      results: by name, {way: dict of `precision` and `recall` by rank}.
    """
    curves = []
    for key, way in WAYS.items():
        path = pathlib.Path(directory) / f"precision_recall_{key}.png"
        both = {
            name: [np.asarray(result[key][x]) for x in BY_RANK]
            for name, result in results.items()
        }
        draw_precision_recall_by_rank(both, path, f"Precision–recall, {way}")
        curves.append((f"Precision and recall of the first k, {way}", path))
    return curves


def write_matches(
    directory, results: dict, *, title: str, examples=(), curves=None
) -> None:
    """Writes metrics.json, .csv, .md, two figures and index.html.

    Args:
      directory: made where it does not exist.
      results: by name, of `retrieval.evaluate_matching`.
      title: heading of the page.
      examples: (heading, [{"query": (image or None, text), "results": [(image or None,
        text, cosine, whether it is right)]}]); or, of a graph, (heading, [{"image":
        encoded, "sentence", "words", "grid", "edges"}]) as `report.graph` has them,
        drawn to graph_*.png, with all edges in graph_*.csv.
      curves: figures that are there already, as (description, path).
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows = summary(results)
    write_metrics(directory, results, rows)
    text = "\n".join([markdown_table(_cells(rows)), NOTE + "\n"])
    (directory / "metrics.md").write_text(text, encoding="utf-8")
    curves = draw_matches(directory, results) if curves is None else curves
    examples = [
        (heading, _draw_graphs(directory, some) if "edges" in some[0] else some)
        for heading, some in examples
    ]
    page = render_matches(results, curves=curves, examples=examples, title=title)
    (directory / "index.html").write_text(page, encoding="utf-8")


def render_matches(results: dict, *, curves, examples, title: str) -> str:
    """The page as HTML; see `write_matches`."""
    header, *body = _cells(summary(results))
    parts = [
        html_table(header, body),
        f'<p class="note">{html.escape(NOTE)}</p>',
        *render_curves(curves),
    ]
    return document(title, parts + render_searches(examples, EXAMPLES_NOTE))


def render_searches(examples, note: str) -> list[str]:
    """Searches under their headings, and graphs that are drawn; [] without any.

    Args:
      examples: as for `write_matches`, a graph as `sentence`, `drawn` and `table`.
      note: what the marks mean.
    """
    parts = [f'<p class="note">{html.escape(note)}</p>'] if examples else []
    for heading, some in examples:
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        if "drawn" in some[0]:
            parts.append(f'<p class="note">{html.escape(GRAPH_NOTE)}</p>')
            parts += render_curves([(x["sentence"], x["drawn"]) for x in some])
            parts += [_table_link(x["table"], x["sentence"]) for x in some]
        else:
            parts += [_search(**example) for example in some]
    return parts


def _draw_graphs(directory, graphs):
    """graph_*.png and .csv of pairs -> [{sentence, drawn, table}]."""
    made = []
    for number, graph in enumerate(graphs, 1):
        path = directory / f"graph_{number}.png"
        photo = np.asarray(Image.open(io.BytesIO(graph["image"])).convert("RGB"))
        grid, words, edges = graph["grid"], graph["words"], graph["edges"]
        weights = words_and_patches(edges, grid[0] * grid[1])
        draw_graph(photo, grid, words, weights, path, title=graph["sentence"])
        write_edges(path.with_suffix(".csv"), edges, grid, words)
        table = path.with_suffix(".csv").name
        made.append({"sentence": graph["sentence"], "drawn": path, "table": table})
    return made


def _table_link(table, sentence):
    name = html.escape(table)
    return f'<p><a href="{name}">{name}</a>: all edges of “{html.escape(sentence)}”</p>'


def _search(query, results):
    """One query with what it found, right items marked."""
    found = []
    for rank, (image, text, cosine, right) in enumerate(results, 1):
        mark = "✓ right" if right else "✗ wrong"
        head = f'{rank}. <span class="mark">{mark}</span> ({cosine:.3f})'
        kind = "relevant" if right else "other"
        found.append(f"<li>{_item(image, text, head, kind)}</li>")
    asked = _item(*query, "<b>query</b>", "")
    return (
        f'<section class="search">{asked}<ol class="results">{"".join(found)}</ol>'
        "</section>"
    )


def _item(image, text, head, kind):
    if image is not None:
        return render_item(image, text, [], head, kind)
    return (
        f'<figure class="{kind}"><div class="frame words">{html.escape(text)}</div>'
        f"<figcaption>{head}</figcaption></figure>"
    )
