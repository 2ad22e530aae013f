"""The tutorial notebooks: executed, and as pages.

    python docs/gen/notebooks.py docs/tutorials/first-notebook.ipynb

executes a notebook in place; a widget's output becomes a picture of it, drawn by Chromium.
"""

import base64
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
LIVE = ROOT / "app" / "notebook"
_MIME = "application/vnd.jupyter.widget-view+json"
_PLACE = re.compile(r"\S*ipykernel_\d+/\d+\.py:\d+: ")
"""Where a warning came from: another place at each run."""
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>widget</title><style>{css}</style></head>
<body><div id="cell"></div><script type="module">
const source = {source};
const live = await import(URL.createObjectURL(new Blob([source], {{type: "text/javascript"}})));
const listeners = [];
window.model = {{
  view: {view},
  get: (name) => window.model[name],
  on: (name, listener) => listeners.push(listener),
  off: (name, listener) => listeners.splice(listeners.indexOf(listener), 1),
  set: (view) => {{ window.model.view = view; listeners.forEach((listener) => listener()); }},
}};
window.end = live.default.render({{ model: window.model, el: document.getElementById("cell") }});
window.listeners = listeners;
</script></body></html>
"""


def execute(path: Path) -> "NotebookNode":
    """Return a notebook with new outputs, without what differs from run to run.

    The kernel runs in a temporary folder. ``metadata["widgets"]`` has the last state of each widget.
    """
    from tempfile import TemporaryDirectory

    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        sockets = Config(KernelManager={"transport": "ipc", "ip": str(Path(folder) / "kernel")})
        places = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, config=sockets, timeout=300, resources=places, coalesce_streams=True)
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).clear()
            if "text" in output:
                output["text"] = _PLACE.sub("", output["text"])
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "widgets") if key in notebook.metadata}
    return notebook


def views(notebook: "NotebookNode") -> dict[str, dict[str, Any]]:
    """Return what each live widget of an executed notebook shows at the end, by the id of its model."""
    states = (
        notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    )
    return {id: state["state"]["view"] for id, state in states.items() if "view" in state["state"]}


def page_of(view: dict[str, Any]) -> str:
    """Return a page that shows a view with the widget's own script, and a model of few lines in Jupyter's place."""
    source, css = ((LIVE / name).read_text(encoding="utf-8") for name in ("live.js", "live.css"))
    return _PAGE.format(css=css, source=json.dumps(source), view=json.dumps(view))


def picture(view: dict[str, Any], width: int = 1000) -> bytes:
    """Return a view as Chromium shows it, PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 300})
        page.set_content(page_of(view))
        page.wait_for_function("window.listeners !== undefined")
        image = page.locator("#cell").screenshot()
        browser.close()
    return image


def save(notebook: "NotebookNode", path: Path) -> None:
    """Write an executed notebook, with a picture in the place of each widget."""
    import nbformat

    shown = views(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if (reference := output.get("data", {}).pop(_MIME, None)) is not None:
                image = base64.b64encode(picture(shown[reference["model_id"]])).decode()
                output["data"] = {"image/png": image, "text/plain": "the live widget"}
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


def page(path: Path) -> str:
    """Return an executed notebook as Markdown, with its figures in it."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [text for output in cell.get("outputs", ()) if (text := _output(output))]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        image = "".join("".join(data["image/png"]).split())
        return f'<img alt="Output of the cell above" src="data:image/png;base64,{image}">'
    text = "".join(data.get("text/plain", "")).rstrip()
    return f"```text\n{text}\n```" if text else ""


if __name__ == "__main__":
    for name in sys.argv[1:]:
        save(execute(Path(name)), Path(name))
