"""Tables of numbers become figures and one page: plain dicts (the content of score files) in, HTML, CSV, markdown out.

Fractions come in and go out in the CSV; the page and the markdown say percent. Importing the room imports neither matplotlib nor
jinja2.
"""

from __future__ import annotations

from wsol._names import lazy

_WHERE = {
    "Layers": "layers",
    "Row": "table",
    "Value": "table",
    "rows": "table",
    "lines": "export",
    "markdown": "export",
    "write_csv": "export",
    "sentences": "verdict",
    "write_report": "page",
}

__all__ = [*_WHERE]

__getattr__, __dir__ = lazy(__name__, _WHERE)
