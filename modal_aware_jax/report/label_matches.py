"""What a report of matching by labels shows: MAP, precision, curves, what is found."""

import html
import pathlib

from modal_aware_jax.report.matches import WAYS, draw_by_rank, render_searches
from modal_aware_jax.report.page import document, html_table, render_curves
from modal_aware_jax.report.tables import (
    aligned,
    cells,
    markdown_table,
    write_metrics,
)
from modal_aware_jax.retrieval.evaluate import PARTS

NOTE = (
    "Relevant is what shares a label with the query. P@N is the precision among the "
    "first N; MAP@R looks no further than as many ranks as there are relevant items. "
    "Images search the texts of the database and texts its images. Training pairs lie "
    "in the database: “trained pairs” searches them alone, “unseen pairs” all others, "
    "which is what new items meet. “Embeddings alone”: before the first were ranked "
    "again."
)
EXAMPLES_NOTE = (
    "Green border and “✓ right”: shares a label with the query; dashed red border and "
    "“✗ wrong”: does not. In brackets the value that they are ordered by: the cosine, "
    "or of what was ranked again the new score."
)


def summary(results: dict) -> list[dict]:
    """One flat row a method and part: {column: text or number}, the same in each.

    Args:
      results: by name, {way: of `retrieval.evaluate_embedding_parts`}.
    """
    rows = []
    for name, result in results.items():
        ways = {way: result[way] for way in WAYS}
        rows.append(_row(name, ways, ways))
        named = [(part.name, part.title) for part in PARTS]
        for part, title in (*named, ("embeddings", "embeddings alone")):
            if all(part in own for own in ways.values()):
                own = {way: own[part] for way, own in ways.items()}
                rows.append(_row(f"{name}, {title}", own, ways))
    return rows


def _row(name, ways, whole):
    row = {"method": name}
    for way, title in WAYS.items():
        row[f"MAP {title}"] = float(ways[way]["map"])
        row[f"MAP@R {title}"] = float(ways[way]["map_at_r"])
        for n, value in ways[way]["precision_at"].items():
            row[f"P@{n} {title}"] = float(value)
    first, counts = next(iter(ways.values())), next(iter(whole.values()))
    row["queries"] = int(counts["num_queries"])
    row["database"] = int(first.get("num_database", counts["num_database"]))
    return row


def format_label_matches(results: dict) -> str:
    """An aligned table for the terminal."""
    return aligned(cells(summary(results)))


def draw_label_matches(directory, results: dict) -> list[tuple[str, pathlib.Path]]:
    """Draws precision_recall_*.png of both ways -> (description, path) of each."""
    by_rank = {
        name: {way: result[way]["by_rank"] for way in WAYS}
        for name, result in results.items()
    }
    return draw_by_rank(directory, by_rank)


def write_label_matches(
    directory, results: dict, *, title: str, examples=(), curves=None
) -> None:
    """Writes metrics.json, .csv, .md, two figures and index.html.

    Args:
      directory: made where it does not exist.
      results: by name, {way: of `retrieval.evaluate_embedding_parts`}.
      title: heading of the page.
      examples: (heading, [{"query": (image or None, text), "results": [(image or None,
        text, value, whether it is right)]}]).
      curves: figures that are there already, as (description, path).
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows = summary(results)
    write_metrics(directory, results, rows)
    text = "\n".join([markdown_table(cells(rows)), NOTE + "\n"])
    (directory / "metrics.md").write_text(text, encoding="utf-8")
    curves = draw_label_matches(directory, results) if curves is None else curves
    header, *body = cells(rows)
    parts = [
        html_table(header, body),
        f'<p class="note">{html.escape(NOTE)}</p>',
        *render_curves(curves),
        *render_searches(examples, EXAMPLES_NOTE),
    ]
    page = document(title, parts)
    (directory / "index.html").write_text(page, encoding="utf-8")
