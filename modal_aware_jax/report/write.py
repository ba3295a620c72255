"""Everything a report folder holds, in one call."""

import pathlib

from modal_aware_jax.report.curves import draw_precision_at, draw_precision_recall
from modal_aware_jax.report.page import RELEVANT, write_page
from modal_aware_jax.report.tables import with_parts, write_tables


def write_report(
    directory,
    results: dict,
    examples=None,
    title: str = "Retrieval report",
    note: str = "",
    relevant: str = RELEVANT,
    apart=(),
) -> pathlib.Path:
    """Writes metrics.json, .csv, .md, two curves as PNG and index.html.

    Args:
        directory: made where it does not exist; files of an earlier report are
          replaced.
        results: evaluations by name, each what `retrieval.evaluate.evaluate` returns;
          or one evaluation.
        examples: list of
          dict(query=(image, caption, labels),
               results=[(image, caption, labels, distance, relevant), ...])
          with images as encoded bytes or arrays, labels as names, relevant a bool, or
          None where it is not known.
        title: heading of the page.
        note: a paragraph under it, and under the table in `metrics.md`.
        relevant: what makes an item relevant to a query.
        apart: parts of names whose scores are not compared with each other's.

    Returns:
        The path of the page.
    """
    if "map_expected" in results:
        results = {"model": results}
    if not results:
        raise ValueError("write_report: there are no results to report.")
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_tables(directory, results)
    if note:
        with open(directory / "metrics.md", "a", encoding="utf-8") as file:
            file.write(f"\n{note}\n")
    drawn = with_parts(results)
    draw_precision_recall(drawn, directory / "precision_recall.png")
    draw_precision_at(drawn, directory / "precision_at.png")
    curves = [
        (
            "Precision over recall, one point for each Hamming radius",
            directory / "precision_recall.png",
        ),
        ("Precision among the N nearest items", directory / "precision_at.png"),
    ]
    page = directory / "index.html"
    write_page(
        page,
        results,
        curves=curves,
        examples=examples or (),
        title=title,
        note=note,
        relevant=relevant,
        apart=apart,
    )
    return page
