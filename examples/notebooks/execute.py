"""Execute the example notebooks and store their outputs: `python -m examples.notebooks.execute [NAME ...]`.

Each notebook runs in an empty temporary folder beside a copy of the data, so it finds nothing from an earlier run and
leaves nothing behind. The stored outputs reveal as little as possible about the machine: a progress bar is stored as
text, which every viewer can display, in its final state and without its times; a path of the machine is an error.
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
_BAR_TIMES = re.compile(r"(?<=\| )(\d\S*/\d\S*(?: documents)?) \[\d\d:\d\d.*\]$")
_ROOT = FOLDER.parents[1]


def main() -> None:
    """Execute the notebooks and write them back with their outputs."""
    options = argparse.ArgumentParser(description="Execute the example notebooks and store their outputs.")
    options.add_argument(
        "names", nargs="*", default=NOTEBOOKS, metavar="NAME", help=f"one or more of {', '.join(NOTEBOOKS)}"
    )
    options.add_argument("--seconds", type=float, default=1200, help="time limit per notebook")
    args = options.parse_args()
    for name in args.names:
        path = FOLDER / f"{name}.ipynb"
        notebook = portable(executed(path, seconds=args.seconds))
        if found := machine_paths(notebook):
            raise SystemExit(f"{path.name} contains machine paths: {', '.join(found)}; change the cells that show them")
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def executed(path: Path, *, seconds: float) -> Any:
    """Execute a notebook in a temporary folder, and return it with its outputs.

    Args:
        path: The notebook's file, which is not changed.
        seconds: Time limit for the whole notebook.

    Raises:
        CellExecutionError: If a cell fails.
        TimeoutError: If the notebook takes longer than `seconds`.
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
    """Return a copy whose outputs need no live widgets, and whose streams hold what a terminal would finally show."""
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
    """Return the paths of this machine that occur in the notebook's sources and outputs, except in images."""
    shown = []
    for cell in notebook.cells:
        shown.append(cell.source)
        for output in cell.get("outputs", []):
            shown.append(str(output.get("text", "")))
            shown += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return sorted({found for text in shown for found in MACHINE_PATH.findall(text)})


def _without_widgets(output: Any, states: dict[str, Any]) -> Any:
    """Replace a widget by what a terminal would show instead; return any other output as it is."""
    if _WIDGET not in output.get("data", {}):
        return output
    bar = _bar(output.data[_WIDGET]["model_id"], states)
    return nbformat.v4.new_output("stream", name="stderr", text=f"{bar}\n" if bar else "")


def _settled(output: Any) -> Any | None:
    """Return the output in its final state, or None if nothing of it is visible in the end."""
    if output.output_type != "stream":
        return output
    text = "\n".join(map(_overwritten, output.text.split("\n")))
    return nbformat.v4.new_output("stream", name=output.name, text=text) if text.strip() else None


def _overwritten(line: str) -> str:
    """Return what a terminal shows of a line after its carriage returns have overwritten it."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return _BAR_TIMES.sub(r"\1", shown.rstrip()) if "\r" in line else line


def _bar(model_id: str, states: dict[str, Any]) -> str:
    """Return the final state of a `tqdm` progress bar as text; empty if the bar was removed."""
    children = states.get(model_id, {}).get("state", {}).get("children", [])
    parts = [states[child.removeprefix("IPY_MODEL_")]["state"] for child in children]
    if len(parts) != 3:
        return ""
    before, bar, after = parts
    filled = round(10 * bar["value"] / bar["max"]) if bar["max"] else 0
    text = f"{before['value']}|{'█' * filled}{' ' * (10 - filled)}|{after['value']}"
    return _BAR_TIMES.sub(r"\1", html.unescape(text).replace("\u2007", " "))


def _joined(outputs: list[Any]) -> list[Any]:
    """Join consecutive pieces of the same stream."""
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
