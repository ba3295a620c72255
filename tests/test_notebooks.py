"""The notebooks: their text runs on tiny settings, and what is shipped is its own."""

import base64
import io
import json
import pathlib
import re
import runpy

import numpy as np
import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")
pytest.importorskip("nbclient")

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
TOOLS = runpy.run_path(str(FOLDER / "execute.py"), run_name="execute")
NAMES = TOOLS["NAMES"]
# Folders of a machine, whoever's it was: a path of two parts at least.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|Users|tmp|usr|opt|private|var|content)/\w"
)

# What a notebook prints of its scores, where it is no MAP.
TOLD = {
    "use_in_your_model": "% right",
    "match_pictures_and_sentences": "R@1/5/10",
    "classify_posts": "accuracy",
}


def shipped(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def outputs_of(notebook):
    return [
        out
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]


def test_every_text_is_a_known_notebook():
    assert {path.stem for path in (FOLDER / "text").glob("*.py")} == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_its_text(name):
    notebook = shipped(name)
    text = TOOLS["read"](TOOLS["source"](name))
    assert (FOLDER / "text" / f"{name}.py").read_text() == TOOLS["source"](name)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [
        (c.cell_type, c.source) for c in text.cells
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_shipped_and_name_no_machine(name):
    path, notebook = FOLDER / f"{name}.ipynb", shipped(name)
    nbformat.validate(notebook)
    assert path.stat().st_size < TOOLS["MAX_BYTES"]
    outputs = outputs_of(notebook)
    assert outputs and all(cell.execution_count for cell in code_cells(notebook))
    assert not [out for out in outputs if out.output_type == "error"]
    for out in outputs:
        text = json.dumps({k: v for k, v in out.items() if k != "data"})
        text += str(out.get("data", {}).get("text/plain", ""))
        assert not MACHINE_PATH.search(text), text
        assert "\\u001b" not in text, "control codes of a terminal"
    assert not TOOLS["machine_names"](path.read_text())


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_in_colab_and_installs_itself(name):
    notebook, owner = shipped(name), TOOLS["repository"]()
    first = notebook.cells[0].source
    assert first.count("colab-badge.svg") == 1
    address = f"github/{owner}/blob/main/notebooks/{name}.ipynb"
    assert f"(https://colab.research.google.com/{address})" in first
    install = code_cells(notebook)[0].source
    assert '"pip", "install"' in install and f"github.com/{owner}" in install


def test_machine_names_are_found():
    home = str(pathlib.Path.home())
    assert TOOLS["machine_names"](f"saved in {home}/runs") or len(home) <= 3
    assert not TOOLS["machine_names"]("saved in runs")
    assert MACHINE_PATH.search("saved in /home/me") and MACHINE_PATH.search('"/tmp/x"')
    assert not MACHINE_PATH.search("https://github.com/root/x and and/or")


def test_large_pictures_are_made_small_and_little_ones_stay():
    def png(side):
        pixels = np.random.default_rng(0).integers(
            0, 256, (side // 4, side, 3), np.uint8
        )
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    def shown(side):
        data = {"image/png": png(side), "text/plain": "<picture>"}
        return nbformat.v4.new_output("display_data", data=data)

    cell = nbformat.v4.new_code_cell("", outputs=[shown(900), shown(16)])
    before = nbformat.v4.new_notebook(cells=[cell])
    written = TOOLS["write_small"](before)
    assert len(written) < TOOLS["MAX_BYTES"] < len(nbformat.writes(before))
    large, little = outputs_of(nbformat.reads(written, as_version=4))
    assert sorted(large.data) == ["image/jpeg", "text/plain"]
    picture = Image.open(io.BytesIO(base64.b64decode(large.data["image/jpeg"])))
    assert picture.format == "JPEG" and max(picture.size) == 800
    assert little.data["image/png"] == png(16)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name == "use_in_your_model" else pytest.mark.slow
        )
        for name in NAMES
    ],
)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_it_runs(name, tmp_path, monkeypatch, capsys):
    import matplotlib
    import matplotlib.pyplot as plt

    monkeypatch.setenv("MODAL_AWARE_TINY", "1")
    monkeypatch.delenv("MIRFLICKR", raising=False)
    monkeypatch.chdir(tmp_path)
    before = matplotlib.get_backend()
    plt.switch_backend("Agg")
    try:
        runpy.run_path(str(FOLDER / "text" / f"{name}.py"))
    finally:
        plt.close("all")
        plt.switch_backend(before)
    printed = capsys.readouterr().out
    assert TOLD.get(name, "MAP") in printed
