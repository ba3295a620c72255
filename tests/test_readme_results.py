"""README's numbers are those of the committed results files, and each has a source.

A table that was measured stands below `<!-- numbers: FILE.md -->`, which names files of
`benchmarks/results/`; a paragraph may do the same, or name the files in its text.
"""

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKER = re.compile(r"<!-- numbers: (.+?) -->")
NAMED = re.compile(r"`(?:benchmarks/results/)?([a-z0-9_]+\.(?:md|json))`")
NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d[\d,]*)?\.?\d+(?:[eE][+-]?\d+)?")
# What a sentence measured: a score, or a number with a unit.
SCORE = r"(?<![\w.])[+-]?\.\d+"
UNITS = r"(?:%|ms|s|min|minutes|hours|times|MB|GB|(?:images|pairs|codes|queries)/s)"
MEASURED = re.compile(rf"{SCORE}|(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?= {UNITS}(?!\w))")
HOW_TO = (
    "Name the file of benchmarks/results/ that holds it, in the sentence or in a line "
    "<!-- numbers: FILE.md --> above: see CONTRIBUTING.md, 'A number in README'."
)


def plain(text):
    """One minus sign for all, no thousands' commas between digits, no emphasis."""
    text = text.replace("−", "-").replace("**", "")
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


def numbers(text):
    return NUMBER.findall(plain(text))


def shows(shown, found):
    """Whether a number, to the decimals it is shown with, is the one found."""
    mantissa = re.split("[eE]", shown)[0]
    decimals = len(mantissa.partition(".")[2])
    scale = float(f"1{shown[len(mantissa) :]}")
    return abs(float(shown) - float(found)) <= scale * (0.5 * 10**-decimals + 1e-9)


def missing(text, found, pattern=NUMBER):
    """The numbers in a text that are none of those found."""
    return [
        shown
        for shown in pattern.findall(plain(text))
        if not any(shows(shown, other) for other in found)
    ]


def rows_of(table):
    """The cells of each row of Markdown tables, headings and rules left out."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    rules = [i for i, row in enumerate(cells) if not "".join(row).strip("-: ")]
    return [row for i, row in enumerate(cells) if not {i, i + 1} & set(rules)]


def groups_of(text):
    """{name in the first cell: numbers of its rows} of a file of tables."""
    groups = {}
    for name, *cells in rows_of(text):
        groups.setdefault(plain(name), []).extend(numbers(" ".join(cells)))
    return groups


def all_numbers(path):
    """Every number in a results file."""
    if path.suffix == ".md":
        return numbers(path.read_text("utf-8"))

    def walk(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from walk(inner)
        elif isinstance(value, float | int):
            yield value

    return list(walk(json.loads(path.read_text("utf-8"))))


def blocks_of(text, folder):
    """(text, names of its sources) of each table, paragraph and item of a list."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    blocks = re.split(r"\n\s*\n|\n(?=- )|(?<=-->)\n", text)
    pending = []
    for block in blocks:
        marked = [n.strip() for m in MARKER.findall(block) for n in m.split(",")]
        block = MARKER.sub("", block).strip()
        if not block:
            pending += marked
            continue
        named = [n for n in NAMED.findall(block) if (folder / n).is_file()]
        yield block, [*pending, *marked, *named]
        pending = []


def faults_of(text, folder=RESULTS):
    """What README says that no results file does, a line each."""
    faults = []
    for block, names in blocks_of(text, folder):
        unknown = [name for name in names if not (folder / name).is_file()]
        if unknown:
            faults.append(f"No file {', '.join(unknown)} in benchmarks/results/.")
            continue
        paths = [folder / name for name in names]
        if block.startswith("|"):
            faults += _table_faults(block, paths)
            continue
        prose = re.sub(r"`[^`]*`", "", block)
        prose = re.sub(r"\b95 %", "", prose)  # of an interval
        found = [number for path in paths for number in all_numbers(path)]
        for shown in missing(prose, found, MEASURED):
            where = f"is not in {', '.join(names)}" if names else "has no source"
            faults.append(f"{shown} {where}: {' '.join(block.split())[:60]}… {HOW_TO}")
    return faults


def _table_faults(table, paths):
    rows = rows_of(table)
    if not any(numbers(" ".join(cells)) for _, *cells in rows):
        return []
    if not paths:
        return [f"A table without a source: {table.splitlines()[0]} {HOW_TO}"]
    groups = {}
    for path in paths:
        for name, found in groups_of(path.read_text("utf-8")).items():
            groups.setdefault(name, []).extend(found)
    faults, files = [], ", ".join(path.name for path in paths)
    for name, *cells in rows:
        named = [other for other in groups if other and other in plain(name)]
        if not named:
            faults.append(f"No row of {files} is named in {name!r}.")
            continue
        source = max(named, key=len)
        for shown in missing(" ".join(cells), groups[source]):
            faults.append(f"{shown} of {name!r} is not beside {source!r} in {files}.")
    return faults


def test_numbers_in_readme_are_those_of_the_results_files():
    assert faults_of((ROOT / "README.md").read_text("utf-8")) == []


def test_every_result_is_listed_with_its_command():
    """By the start of its name: shapes_demo stands for .md, .json and its pictures."""
    listed = {}
    for names, command, *_ in rows_of((RESULTS / "README.md").read_text("utf-8")):
        for name in re.findall(r"`([a-z0-9_]+)`", names):
            listed[name] = command
    files = [path.name for path in RESULTS.iterdir() if path.name != "README.md"]
    assert not [f for f in files if not f.split(".")[0].startswith(tuple(listed))]
    assert not [n for n in listed if not any(f.startswith(n) for f in files)]
    for name, command in listed.items():
        scripts = re.findall(r"benchmarks/\w+\.(?:py|sh)|configs/\w+\.py", command)
        assert scripts, f"{name}: a command of the repository makes it, not {command}"
        assert all((ROOT / script).is_file() for script in scripts), name
        assert "`" in command


TABLE = """
| method | bits | MAP |
|---|---|---|
| Concat | 64 | 0.8452 ± 0.0007 |
| MCB | 64 | 0.1234 |
"""


@pytest.mark.parametrize(
    ("readme", "fault"),
    [
        ("| Concat: no blocks | .8452 ± .0007 |", None),
        ("| Concat: no blocks | **.845** |", None),
        ("| Concat: no blocks | .8453 |", ".8453 of 'Concat: no blocks' is not beside"),
        ("| Concat | -.8452 |", "-.8452 of 'Concat' is not beside 'Concat'"),
        ("| MCB | .8452 |", ".8452 of 'MCB' is not beside 'MCB'"),  # of another row
        ("| GMU | .8452 |", "No row of a.md is named in 'GMU'"),
        ("It has .8452.", None),
        ("It has .8451.", ".8451 is not in a.md"),
        ("- It took 64 min.\n- It took 65 min.", "65 has no source"),
    ],
)
def test_what_is_noticed(readme, fault, tmp_path):
    (tmp_path / "a.md").write_text(TABLE)
    if readme.startswith("|"):
        readme = f"| method | MAP |\n|---|---|\n{readme}"
    faults = faults_of(f"# Title\n\n<!-- numbers: a.md -->\n{readme}\n", tmp_path)
    assert faults == [] if fault is None else len(faults) == 1 and fault in faults[0]


def test_numbers_without_a_source_are_noticed(tmp_path):
    table = "| a | b |\n|---|---|\n| x | 1 |"
    (without,) = faults_of(table, tmp_path)
    assert without.startswith("A table without a source: | a | b | Name the file")
    (no_file,) = faults_of("<!-- numbers: no.md -->\nSee .12.", tmp_path)
    assert no_file == "No file no.md in benchmarks/results/."
    assert faults_of("```\n.12\n```\nFor 95 % of 3 methods.", tmp_path) == []
    (tmp_path / "a.json").write_text(json.dumps({"rows": [{"map": 0.12346}]}))
    assert faults_of("As `a.json` has it, .1235.", tmp_path) == []
