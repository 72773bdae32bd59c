"""The example notebooks run, and their stored outputs are complete and independent of the machine."""

import ast
import re
import resource
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from examples.notebooks.execute import FOLDER, NOTEBOOKS, executed, machine_paths, portable

SECONDS = 300
PACKAGES = ("rag_backbone", "langgraph_dynrag", "llamaindex_prag")


@pytest.fixture(params=NOTEBOOKS)
def path(request):
    return FOLDER / f"{request.param}.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_listed():
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


def test_every_cell_parses_and_has_no_error_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        compile(cell.source, path.name, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert not [o for o in cell.outputs if o.output_type == "error"]


def test_a_notebook_is_stored_after_one_run_from_top_to_bottom(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_a_notebook_contains_no_machine_paths_and_is_small(path):
    notebook = nbformat.read(path, as_version=4)
    assert machine_paths(notebook) == []
    assert path.stat().st_size < 400_000


def test_the_links_of_a_notebook_are_valid(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#]+)", cell.source):
                assert target.startswith("https://") or (FOLDER / target).exists(), target


def test_the_objects_that_a_notebook_shows_are_of_classes_that_exist(path):
    sources = [p.read_text("utf-8") for package in PACKAGES for p in (FOLDER.parents[1] / package).rglob("*.py")]
    classes = {name for source in sources for name in re.findall(r"^class (\w+)", source, re.MULTILINE)}
    outputs = [output for cell in code_cells(nbformat.read(path, as_version=4)) for output in cell.outputs]
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    named = {name for text in shown for name in re.findall(r"^([A-Z]\w+)\(", text, re.MULTILINE)}
    assert named <= classes, f"run the notebook again: {named - classes}"


@pytest.mark.slow
def test_a_notebook_runs(path):
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    notebook = executed(path, seconds=4 * SECONDS)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    # CPU time includes busy-waiting workers, wall time includes other load on the machine: use the smaller one.
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert min(processor, seconds) < SECONDS
    assert machine_paths(portable(notebook)) == []


# ---------------------------------------------------------------------- stored outputs


def one_cell(*outputs, widgets=None):
    cell = new_code_cell("pass", outputs=list(outputs))
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": widgets}}} if widgets else {}
    return new_notebook(cells=[cell], metadata=metadata)


def test_an_overwritten_line_is_kept_in_its_final_form():
    written = [
        "reading: |  | 0/2 [00:00<?]",
        "\rreading: |# | 1/2 [00:01<00:01]",
        "\rreading: |##| 2/2 [00:02<00:00]\nread",
    ]
    streamed = [new_output("stream", name="stderr", text=text) for text in written]
    (output,) = portable(one_cell(*streamed)).cells[0].outputs
    assert output.text == "reading: |##| 2/2\nread"
    job = new_output("stream", name="stderr", text="\rtraining: 100%|##| 1/1 documents [02:02]\n")
    assert portable(one_cell(job)).cells[0].outputs[0].text == "training: 100%|##| 1/1 documents\n"
    gone = new_output("stream", name="stderr", text="reading: 2/2\r            \r")
    assert portable(one_cell(gone)).cells[0].outputs == []


def test_a_progress_bar_widget_is_converted_to_text():
    def part(**state):
        return {"state": state}

    widgets = {
        "box": part(children=["IPY_MODEL_a", "IPY_MODEL_b", "IPY_MODEL_c"]),
        "a": part(value="training:  50%"),
        "b": part(value=1.0, max=2.0),
        "c": part(value=" 1/2 [00:01&lt;00:01]"),
    }
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "box"}, "text/plain": "training:   0%|"}
    kept = portable(one_cell(new_output("display_data", data=view), widgets=widgets))
    assert kept.cells[0].outputs[0].text == "training:  50%|█████     | 1/2\n"
    assert "widgets" not in kept.metadata


def test_machine_paths_are_found():
    shown = new_output("stream", name="stdout", text="kept in /home/ada/notes, not in ../data/home/x or examples/tmp/y")
    assert machine_paths(one_cell(shown)) == ["/home/ada/notes,"]
