"""The API reference, as HTML from the docstrings: `python docs/api.py [--out site/api]`.

Faces of rooms resolve their names late, so each name is looked up first. A public name without a docstring is an error, and so
is one that does not resolve.
"""

from __future__ import annotations

import argparse
import importlib
import os
import warnings
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pdoc

ROOMS = ("slides", "models", "evaluation", "tracking", "reporting", "data", "cams", "robustness", "training")


def resolved(room: str) -> str:
    """The full name of a room, all names of its face in place.

    Raises:
        ValueError: a function or class of the face has no docstring.
    """
    face = importlib.import_module(f"wsol.{room}")
    for name in face.__all__:
        value = getattr(face, name)
        setattr(face, name, value)
        if callable(value) and not (value.__doc__ or "").strip():
            raise ValueError(f"wsol.{room}.{name} has no docstring")
    return face.__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("site/api"), help="folder of the pages")
    out = parser.parse_args().out
    rooms = [resolved(room) for room in ROOMS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Error parsing type annotation")  # names that only a type checker imports
        warnings.filterwarnings("error", message="Found .* does not resolve")
        pdoc.render.configure(docformat="google", footer_text="wsol")
        pdoc.pdoc(*rooms, output_directory=out)
    print(f"{out / 'index.html'}: {len(rooms)} rooms")


if __name__ == "__main__":
    main()
