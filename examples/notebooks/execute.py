"""Executes the example notebooks and keeps their outputs: `python -m examples.notebooks.execute [NAME ...]`.

A notebook runs in a copy of its folder beside a copy of the data, so that it finds nothing of an earlier run and leaves
nothing behind. What is kept tells as little as can be of the machine: a progress bar is kept as it stood in the end, as
text, which every viewer shows, without its times; a path of this machine in an output is an error.
"""

import argparse
import asyncio
import html
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NOTEBOOKS = ("tour", "triggers_and_traces", "parametric_knowledge")
MACHINE_PATH = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|opt|usr|var|mnt|Users|private)/|[A-Z]:\\)\S*")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_BAR_TIMES = re.compile(r"(?<=\| )(\S+/\S+) \[\d\d:\d\d.*\]$")
_ROOT = FOLDER.parents[1]


def main() -> None:
    """Execute, and write the notebooks back."""
    options = argparse.ArgumentParser(description="Execute the example notebooks anew.")
    options.add_argument("names", nargs="*", default=NOTEBOOKS, metavar="NAME", help=f"of {', '.join(NOTEBOOKS)}")
    options.add_argument("--seconds", type=float, default=1200, help="the most that one may take")
    args = options.parse_args()
    for name in args.names:
        path = FOLDER / f"{name}.ipynb"
        notebook = portable(executed(path, seconds=args.seconds))
        if found := machine_paths(notebook):
            raise SystemExit(f"{path.name} shows {', '.join(found)}; print what says the same on every machine")
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def executed(path: Path, *, seconds: float) -> Any:
    """The notebook with its outputs.

    Raises:
        CellExecutionError: If a cell fails.
        TimeoutError: If it takes longer.
    """
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary) / FOLDER.name
        here.mkdir()
        shutil.copytree(FOLDER.parent / "data", here.parent / "data")
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook, timeout=None, record_timing=False, resources={"metadata": {"path": str(here)}}
        )
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        asyncio.run(asyncio.wait_for(client.async_execute(env=environment), seconds))
    return notebook


def portable(notebook: Any) -> Any:
    """A copy whose outputs need no running widgets, and whose streams hold what a terminal would show in the end."""
    kept = nbformat.from_dict(notebook)
    widgets = kept.metadata.pop("widgets", {})
    states = next(iter(widgets.values()), {}).get("state", {})
    kept.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in kept.cells:
        if cell.cell_type == "code":
            cell.metadata = nbformat.from_dict({})
            outputs = [_without_widgets(output, states) for output in cell.outputs]
            cell.outputs = [output for output in map(_settled, _joined(outputs)) if output is not None]
    return kept


def machine_paths(notebook: Any) -> list[str]:
    """Paths of the machine that it was executed on, in anything that it shows; pictures aside."""
    shown = []
    for cell in notebook.cells:
        shown.append(cell.source)
        for output in cell.get("outputs", []):
            shown.append(str(output.get("text", "")))
            shown += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return sorted({found for text in shown for found in MACHINE_PATH.findall(text)})


def _without_widgets(output: Any, states: dict[str, Any]) -> Any:
    """A widget as what a terminal would show in its place."""
    if _WIDGET not in output.get("data", {}):
        return output
    bar = _bar(output.data[_WIDGET]["model_id"], states)
    return nbformat.v4.new_output("stream", name="stderr", text=f"{bar}\n" if bar else "")


def _settled(output: Any) -> Any | None:
    """The output as it stood in the end; None if nothing of it is seen then."""
    if output.output_type != "stream":
        return output
    text = "\n".join(map(_overwritten, output.text.split("\n")))
    return nbformat.v4.new_output("stream", name=output.name, text=text) if text.strip() else None


def _overwritten(line: str) -> str:
    """What is left of a line that was written over after carriage returns."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return _BAR_TIMES.sub(r"\1", shown.rstrip()) if "\r" in line else line


def _bar(model_id: str, states: dict[str, Any]) -> str:
    """A progress bar of `tqdm` as it stood in the end; empty if it was taken away."""
    children = states.get(model_id, {}).get("state", {}).get("children", [])
    parts = [states[child.removeprefix("IPY_MODEL_")]["state"] for child in children]
    if len(parts) != 3:
        return ""
    before, bar, after = parts
    filled = round(10 * bar["value"] / bar["max"]) if bar["max"] else 0
    text = f"{before['value']}|{'█' * filled}{' ' * (10 - filled)}|{after['value']}"
    return _BAR_TIMES.sub(r"\1", html.unescape(text).replace("\u2007", " "))


def _joined(outputs: list[Any]) -> list[Any]:
    """Pieces of one stream that follow each other, as one."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


if __name__ == "__main__":
    main()
