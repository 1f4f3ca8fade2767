"""The settings of Sphinx; ``make docs`` builds the site, and each warning is an error."""

import sys
from pathlib import Path

import composer

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Composer"
author = "the Composer authors"
release = version = composer.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_line",
    "mathematics",
    "outside",
    "public_names",
]
exclude_patterns = ["_build", "_ext"]
highlight_language = "text"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3
napoleon_use_ivar = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_inherit_docstrings = False  # a plugin's page has what it adds
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

linkcheck_ignore = ["http://127.0.0.1"]  # the page of `composer web`
linkcheck_timeout = 10
linkcheck_retries = 2
linkcheck_anchors = False
linkcheck_report_timeouts_as_broken = False  # a slow site is no broken link

html_theme = "furo"
html_title = f"Composer {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
