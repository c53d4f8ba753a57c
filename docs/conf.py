"""How Sphinx builds the documentation: `python3 dev.py docs`."""

from importlib.metadata import version as installed_version

project = "meshlib"
author = "The meshlib authors"
copyright = "the meshlib authors"
release = version = installed_version("meshlib-http")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False  # signatures name types of httpx and OpenTelemetry, which are not documented here

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"meshlib {release}"
html_copy_source = False
