"""Published MAP of the methods, to stand beside what was measured.

`published.csv` has a line for each number: data source, method and text as a config
names them, bits, MAP, the paper's name of the method, the paper and its table. They
were made with ResNet-18 at 224 pixels and ImageNet weights, by other evaluation code:
a different experiment, and every table says so.
"""

import csv
import functools
import pathlib

NOTE = (
    "Published numbers are from Zeng et al. 2019 (arXiv:1911.08479): ResNet-18 at 224 "
    "pixels with ImageNet weights, another evaluator; not the experiment measured here."
)
# The paper's method is the literal form; its other forms stand beside the same number.
FORMS = {
    "modal_aware_paper": "modal_aware",
    "modal_aware_low_rank": "modal_aware",
    "modal_aware_squeezed": "modal_aware",
}


@functools.cache
def table() -> dict:
    """{(data source, method, text, bits): MAP}."""
    path = pathlib.Path(__file__).with_name("published.csv")
    with open(path, newline="", encoding="utf-8") as file:
        return {
            (row["source"], row["method"], row["text"], int(row["bits"])): float(
                row["map"]
            )
            for row in csv.DictReader(file)
        }


def published(source: str, method: str, bits: int, text: str = "bag") -> float | None:
    """The published MAP of a method on a data source, or None.

    Words that are read as vectors stand beside the papers' bags of words.

    >>> published("flickr25k", "gmu", 32), published("shapes", "gmu", 32)
    (0.8465, None)
    """
    text = "bag" if text == "words" else text
    return table().get((source, FORMS.get(method, method), text, bits))
