"""Writes one reference page a room, from what the room's `__init__` makes public."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

import phalanx

HEAD = "# {room}\n"
FACE = """
```{{eval-rst}}
.. automodule:: phalanx.{face}
```
"""
# Scripts import these of a room as well.
MORE_FACES = {"horovod": ("horovod.torch", "horovod.torch.elastic")}


def write_pages(app: Sphinx) -> None:
    source = Path(phalanx.__file__).parent
    pages = Path(app.srcdir) / "_generated"
    pages.mkdir(exist_ok=True)
    rooms = {path.parent.name for path in source.glob("*/__init__.py")} - {"cli"}
    for page in pages.glob("*.md"):
        if page.stem not in rooms:
            page.unlink()
    for room in rooms:
        page = pages / f"{room}.md"
        faces = (room, *MORE_FACES.get(room, ()))
        text = HEAD.format(room=room) + "".join(FACE.format(face=face) for face in faces)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
