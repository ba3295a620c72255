"""The report's page: one HTML file that needs nothing beside it."""

import base64
import html
import io
import pathlib

from modal_aware_jax.report.health import NOTE, health_table, health_warnings
from modal_aware_jax.report.tables import cells, summary, with_parts
from modal_aware_jax.report.thumbnail import thumbnail
from modal_aware_jax.retrieval.evaluate import PARTS

SIDE = 132  # of a thumbnail, in pixels
MAX_CAPTION = 160  # characters shown; the rest is in the tooltip

STYLE = """
:root { color-scheme: light; --good: #1a7f37; --bad: #be1e2d; --line: #d5d9de; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2024; margin: 2rem auto;
  max-width: 96rem; padding: 0 1.2rem; }
h1, h2 { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .4rem; border-bottom: 1px solid var(--line);
  text-align: right; vertical-align: bottom; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere;
  min-width: 9rem; }
td.best { font-weight: 700; }
.warning { color: var(--bad); font-weight: 700; max-width: 62rem; }
.note { color: #57606a; max-width: 62rem; }
.curves { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
.curves img { width: 100%; max-width: 36rem; height: auto; }
.search { display: grid; grid-template-columns: 9.6rem 1fr; gap: 1.2rem;
  border-top: 1px solid var(--line); padding: 1.1rem 0; }
.results { display: grid; grid-template-columns: repeat(5, 9.6rem);
  gap: .9rem; list-style: none; margin: 0; padding: 0; }
figure { margin: 0; font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
.frame { display: flex; width: 132px; height: 132px; padding: 3px; align-items: center;
  justify-content: center; background: #f3f4f6; border: 4px solid #8b949e; }
.words { height: auto; min-height: 132px; }
.relevant .frame { border-color: var(--good); }
.other .frame { border: 4px dashed var(--bad); }
.mark { font-weight: 700; } .relevant .mark { color: var(--good); }
.other .mark { color: var(--bad); }
.labels { color: #57606a; } .labels b { color: #1c2024; }
@media (max-width: 66rem) {
  .results { grid-template-columns: repeat(auto-fill, 9.2rem); } }
@media (max-width: 71rem) { /* a row of the table becomes a card of named numbers */
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr));
    gap: .3rem .8rem; padding: .7rem 0; border-bottom: 1px solid var(--line); }
  td { padding: 0; border: 0; text-align: left; }
  td::before { content: attr(data-name); display: block; font-size: .75rem;
    font-weight: 400; color: #57606a; }
  td:first-child { grid-column: 1 / -1; font-weight: 600; }
  td:first-child::before { content: none; } }
@media (max-width: 40rem) { .search { grid-template-columns: 1fr; } }
"""

CONVENTIONS = (
    "MAP takes the expectation over random orders of items at equal Hamming distance, "
    "MAP (index) ranks them by their position in the database. P@N is the precision "
    "among the N nearest. A query for which nothing is relevant counts 0. Training "
    "pairs lie in the database: “trained pairs” searches them alone, “unseen pairs” "
    "all others, which is what new items meet."
)

RELEVANT = "shares a label with the query"


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def render_page(
    results: dict,
    *,
    curves=(),
    examples=(),
    title: str,
    note: str = "",
    relevant: str = RELEVANT,
    apart=(),
) -> str:
    """The page as HTML.

    Args:
        results: evaluations by name.
        curves: (description, path of a PNG) pairs, embedded.
        examples: see `write_report`.
        title: heading; all text is escaped here.
        note: a paragraph under it.
        relevant: what makes an item relevant to a query.
        apart: as for `render_table`.
    """
    parts = [
        *([f'<p class="note">{html.escape(note)}</p>'] if note else ()),
        render_table(results, apart),
        f'<p class="note">{html.escape(CONVENTIONS)}</p>',
        *render_health(results),
    ]
    if curves:
        parts += render_curves(curves, "<h2>Curves</h2>")
    if examples:
        parts.append("<h2>Example queries and their nearest items</h2>")
        parts.append(
            f'<p class="note">A relevant item {html.escape(relevant)}: green '
            "border and “✓ relevant”; any other: dashed red border and “✗ not "
            "relevant”. Shared labels are bold.</p>"
        )
        parts += [render_search(example) for example in examples]
    return document(title, parts)


def document(title: str, parts: list[str]) -> str:
    """A page of its own, of parts that are HTML under a title that is text."""
    name = html.escape(title)
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title><style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
    ]
    return "\n".join([*head, *parts, "</body></html>\n"])


def render_curves(curves, heading: str = "") -> list[str]:
    """Figures side by side, embedded, after a heading that is HTML.

    Args:
        curves: (description, path of a PNG) pairs.
        heading: such as `<h2>Curves</h2>`.
    """
    images = []
    for description, path in curves:
        uri = data_uri(pathlib.Path(path).read_bytes(), "png")
        images.append(f'<img src="{uri}" alt="{html.escape(description)}">')
    return [f'{heading}<div class="curves">', *images, "</div>"]


def render_table(results: dict, apart=()) -> str:
    """The summary as an HTML table, the best score of a column bold.

    Several methods are compared at one code length on the whole database, and on each
    part of it.

    Args:
        results: evaluations by name.
        apart: parts of names, such as directions, whose scores are not compared with
          each other's.
    """
    rows = summary(with_parts(results))
    header, *body = cells(rows)
    scores = [h for h in header if isinstance(rows[0][h], float)]
    titles = [f", {part.title}" for part in PARTS]
    groups = []
    for row in rows:
        part = next((t for t in titles if row["method"].endswith(t)), "")
        own = next((t for t in apart if f", {t}" in row["method"]), "")
        groups.append((part, own, row["bits"]))
    best = {}
    for row, group in zip(rows, groups, strict=True):
        for h in scores if groups.count(group) > 1 else ():
            best[group, h] = max(best.get((group, h), row[h]), row[h])
    return html_table(
        header,
        body,
        is_best=lambda i, column: best.get((groups[i], column)) == rows[i][column],
    )


def html_table(header, body, *, is_best=lambda i, column: False) -> str:
    """Rows of text as an HTML table; `is_best(i, column)` makes a cell bold."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in header)
    lines = [f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>']
    for i, texts in enumerate(body):
        line = []
        for column, text in zip(header, texts, strict=True):
            mark = ' class="best"' if is_best(i, column) else ""
            name = html.escape(column)
            line.append(f'<td{mark} data-name="{name}">{html.escape(text)}</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def render_health(results: dict) -> list[str]:
    """The section on code health; [] where no evaluation has it."""
    table = health_table(results)
    if not table:
        return []
    return [
        "<h2>Code health</h2>",
        *(f'<p class="warning">{html.escape(w)}</p>' for w in health_warnings(results)),
        html_table(table[0], table[1:]),
        f'<p class="note">{html.escape(NOTE)}</p>',
    ]


def render_search(example: dict) -> str:
    """One query with its results."""
    image, caption, labels = example["query"]
    query = render_item(image, caption, labels, "<b>query</b>", "")
    found = []
    for rank, item in enumerate(example["results"], 1):
        image, caption, names, distance, relevant = item
        kind, mark = "", ""
        if relevant is not None:
            kind = "relevant" if relevant else "other"
            mark = "✓ relevant" if relevant else "✗ not relevant"
        head = f"{rank}. distance {distance}"
        if mark:
            head += f'<br><span class="mark">{mark}</span>'
        shown = render_item(image, caption, names, head, kind, shared=set(labels))
        found.append(f"<li>{shown}</li>")
    return (
        f'<section class="search">{query}<ol class="results">{"".join(found)}</ol>'
        "</section>"
    )


def render_item(image, caption, labels, head, kind, shared=frozenset()) -> str:
    """A thumbnail with its caption and labels; `head` is HTML, the rest is text."""
    picture = thumbnail(image, SIDE)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    short = caption if len(caption) <= MAX_CAPTION else caption[:MAX_CAPTION] + "…"
    full, short = html.escape(caption), html.escape(short)
    names = ", ".join(
        f"<b>{html.escape(n)}</b>" if n in shared else html.escape(n) for n in labels
    )
    return (
        f'<figure class="{kind}"><div class="frame">'
        f'<img src="{data_uri(buffer.getvalue(), "jpeg")}" width="{picture.width}" '
        f'height="{picture.height}" alt="{full}" title="{full}"></div>'
        f'<figcaption>{head}<br>{short}<br><span class="labels">{names}</span>'
        "</figcaption></figure>"
    )


def write_page(
    path,
    results: dict,
    *,
    curves=(),
    examples=(),
    title: str,
    note: str = "",
    relevant: str = RELEVANT,
    apart=(),
) -> None:
    """Writes the page.

    Args:
        path: of the HTML file.
        results: evaluations by name.
        curves: (description, path of a PNG) pairs, embedded.
        examples: see `write_report`.
        title: heading.
        note, relevant, apart: as for `render_page`.
    """
    page = render_page(
        results,
        curves=curves,
        examples=examples,
        title=title,
        note=note,
        relevant=relevant,
        apart=apart,
    )
    pathlib.Path(path).write_text(page, encoding="utf-8")
