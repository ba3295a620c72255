"""One search as one PNG: the query, then what it found."""

import pathlib

from PIL import Image, ImageDraw, ImageFont

from modal_aware_jax.report.thumbnail import thumbnail

SIDE, GAP, LINES, LINE = 150, 12, 4, 15  # pixels; lines of text below a picture
COLUMNS = 5
GREEN, RED, GREY = (26, 127, 55), (190, 30, 45), (140, 140, 140)


def result_picture(query, results, path, *, measure="distance") -> pathlib.Path:
    """Draws a query and its results, nearest first, into a PNG.

    Relevant results have a green border and "relevant" below, others a red one and
    "not relevant"; where relevance is not known (None) the border is grey.

    Args:
        query: (image, caption, labels); the image as bytes or array.
        results: list of (image, caption, labels, distance, relevant).
        path: of the PNG; its directory is made.
        measure: what the distances are called.

    Returns:
        The path.
    """
    cell_width, cell_height = SIDE + GAP, SIDE + GAP + LINES * LINE
    rows = max(1, -(-len(results) // COLUMNS))
    width = GAP + cell_width * (1 + min(COLUMNS, max(1, len(results)))) + GAP
    sheet = Image.new("RGB", (width, GAP + rows * cell_height), "white")
    image, caption, labels = query
    _put(sheet, GAP, GAP, image, GREY, ["query", caption, ", ".join(labels)])
    left = GAP + cell_width + GAP
    ImageDraw.Draw(sheet).line(
        (left - GAP, GAP, left - GAP, sheet.height - GAP), fill=GREY
    )
    for i, (image, caption, labels, distance, relevant) in enumerate(results):
        row, column = divmod(i, COLUMNS)
        head = f"{i + 1}.  {measure} {distance}"
        mark = {None: "", True: "relevant", False: "not relevant"}[
            None if relevant is None else bool(relevant)
        ]
        colour = {"": GREY, "relevant": GREEN, "not relevant": RED}[mark]
        lines = [head, mark, caption, ", ".join(labels)]
        lines = [line for line in lines if line]
        x, y = left + column * cell_width, GAP + row * cell_height
        _put(sheet, x, y, image, colour, lines)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")
    return path


def _put(sheet, x, y, image, colour, lines):
    pen = ImageDraw.Draw(sheet)
    picture = thumbnail(image, SIDE - 8)
    pen.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=colour, width=3)
    corner = x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2
    sheet.paste(picture, corner)
    font = ImageFont.load_default(12)
    for i, line in enumerate(lines[:LINES]):
        fill = colour if line in ("relevant", "not relevant") else (40, 40, 40)
        text = _fit(" ".join(line.split()), font)
        pen.text((x, y + SIDE + 2 + i * LINE), text, font=font, fill=fill)


def _fit(text, font):
    """Cuts a line to the width of a cell."""
    whole, text = text, text[:SIDE]  # a letter takes a pixel or more
    if text == whole and font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(text + "…") > SIDE:
        text = text[:-1]
    return text + "…"
