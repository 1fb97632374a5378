"""Sphinx settings: furo, Markdown by MyST, the reference from docstrings and from the commands themselves."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import phalanx

project = "Phalanx"
author = "The Phalanx authors"
copyright = "2026, The Phalanx authors"
version = release = phalanx.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "plain_docstrings", "rooms", "verbs"]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

html_theme = "furo"
html_title = f"Phalanx {release}"
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
add_module_names = False
python_maximum_signature_line_length = 100
