"""What was wrong with the input: collected while scanning, reported all at once."""

import collections
import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

SHOWN_OF_A_KIND = 5

ADVICE = {
    "missing archive": "put the file there, or point at the folder that has it",
    "unreadable archive": "download or copy it again",
    "missing image": "add the file, remove its row or tags, or keep such pairs with "
    "--config.data.options.keep_without_image=true",
    "unreadable image": "replace it by an intact copy, or remove the pair",
    "missing tags": "add the tag file (an empty one will do), or remove the image",
    "missing label file": "extract or download the annotations again",
    "unreadable file": "extract or download it again",
    "tiny image": "replace it by the real image, or remove the pair",
    "empty text": "write its tags, remove the pair, or allow pairs without text with "
    "--config.data.options.allow_empty_text=true",
    "no image": "add the file, or remove its sentences",
    "no sentence": "write one, or remove the image",
    "not UTF-8": "save the file as UTF-8, or name it in UTF-8",
    "malformed line": "correct the line",
    "unknown label": "correct the name, or the list of the known labels",
    "outside path": "keep what the table names inside the folder",
    "unknown split": "correct the name of the part, or the column",
    "duplicate id": "remove or rename all but one",
    "repeated image": "write its texts into one row, in columns caption_0, caption_1 "
    "and so on, or name every row in a column id; images and sentences that find each "
    "other are the task matching, configs/flickr8k.py reads such rows of captions.txt",
    "second member": "rename it: a name counts up to its first dot",
}


def shorten(text: str, length: int = 400) -> str:
    """A text's beginning and end on one line, where it is longer than any message.

    Example:
      >>> shorten("a" * 100, 7)
      'aaa…aaa'
    """
    text = " ".join(str(text).split())
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
      kind: one of the keys of `ADVICE`.
      where: the file, and the line where there is one.
      message: what is wrong there.
    """

    kind: str
    where: str
    message: str

    def __str__(self):
        return f"{shorten(self.where)}: {shorten(self.message)}"


class DataProblems(ValueError):
    """The input has problems; the message counts them, `problems` has them all.

    Attributes:
      problems: every problem found.
    """

    def __init__(
        self, name: str, problems: Sequence[Problem], *, listing=None, skippable=True
    ):
        self.problems = tuple(problems)
        lines = [f"{name}: {describe(self.problems)}"]
        if listing:
            lines.append(f"All of them, one a line: {listing}")
        if skippable:
            lines.append(
                "Correct the input, or leave the named pairs or entries out with "
                "--config.data.options.on_problem=skip."
            )
        super().__init__("\n".join(lines))


def describe(problems: Sequence[Problem]) -> str:
    """Counts problems by kind, shows the first few of each and says what to do.

    Example:
      >>> print(describe([Problem("tiny image", "a.csv line 2", "1x1 pixels")]))
      1 problem in the input.
      tiny image (1) - replace it by the real image, or remove the pair:
        a.csv line 2: 1x1 pixels
    """
    by_kind = collections.defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    plural = "" if len(problems) == 1 else "s"
    lines = [f"{len(problems)} problem{plural} in the input."]
    for kind, members in by_kind.items():
        lines.append(f"{kind} ({len(members)}) - {ADVICE[kind]}:")
        lines += [f"  {problem}" for problem in members[:SHOWN_OF_A_KIND]]
        if len(members) > SHOWN_OF_A_KIND:
            lines.append(f"  ... and {len(members) - SHOWN_OF_A_KIND} more")
    return "\n".join(lines)


def save_problems(path: str | os.PathLike, problems: Sequence[Problem]) -> None:
    """Writes one JSON object a line."""
    with open(path, "w", encoding="utf-8") as file:
        for problem in problems:
            # Undecodable names stay readable: they are written as \udcXX escapes.
            file.write(json.dumps(problem._asdict()) + "\n")


def load_problems(path: str | os.PathLike) -> list[Problem]:
    """Reads what `save_problems` wrote."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [Problem(**json.loads(line)) for line in lines]
