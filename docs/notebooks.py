"""A notebook as a page: its text, its code and its saved outputs."""

import base64
import json


def page_of_notebook(path):
    """Returns the Markdown of a notebook, and its pictures by file name."""
    parts, pictures = [], {}
    for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = ""
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" not in data:
                printed += "".join(output["text"] if "text" in output else data["text/plain"])
                continue
            name = f"{path.stem}_{number}.png"
            pictures[name] = base64.b64decode("".join(data["image/png"]))
            parts += [*_block(printed), f"![Output of the cell above]({name})"]
            printed = ""
        parts += _block(printed)
    parts.insert(1, f"Download the notebook: {{download}}`{path.name}`.")
    return "\n\n".join(parts) + "\n", pictures


def _block(printed):
    return [f"{{.output}}\n```text\n{printed.rstrip()}\n```"] if printed else []
