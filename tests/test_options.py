"""Options are checked by name and kind before anything is built, and their meanings are read where they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from wsol._names import resolve
from wsol._options import check_options, meanings, options_of
from wsol.cams import METHODS
from wsol.data import SOURCES
from wsol.models import BACKBONES, HEADS
from wsol.training import STRATEGIES


class Base:
    """A base.

    Args:
        share: of what there is, in
            [0, 1].
        rate: as the base has it.
    """

    def __init__(self, *, share: float = 0.5, rate: float = 1.0) -> None:
        self.share, self.rate = share, rate


class Thing(Base):
    """A thing."""

    def __init__(
        self, channels: int, extra: int = 1, *, grid: int = 3, share: float = 0.5, rate: float = 2.0, names: Sequence[str] = ()
    ) -> None:
        """Args:
        channels: c.
        grid: side, px.
        share: as for `Base`.
        rate: its own.
        names: of

        Raises:
            ValueError: never.
        """


def prose(*, n: int = 1, level: float | None = None, kind: Literal["a", "b"] = "a", rest: Any = None) -> None:
    """`n` copies, see eq. (3); `level` of the noise. And `kind`.

    Raises: `rest` is not told here.
    """


def typed(
    i: int = 0, f: float = 0.0, b: bool = False, s: str = "", p: str | Path = "", o: float | None = None,
    q: Sequence[Sequence[float]] = (), m: Mapping[str, Sequence[int]] | None = None, w: Literal["x"] | None = None,
    t: Sequence[str] = (),
) -> None:  # fmt: skip
    """Nothing."""


def test_options_are_the_keywords_of_a_class_and_all_arguments_of_a_function():
    assert list(options_of(Thing)) == ["grid", "share", "rate", "names"]
    assert list(options_of(typed)) == list("ifbspoqmwt")
    assert list(options_of(resolve("", "resnet18", BACKBONES, "wsol.models"))) == ["output_stride", "freeze_bn"]


def test_meanings_are_read_from_the_entries_of_a_class_and_its_bases_or_from_prose():
    assert meanings(Thing) == {"grid": "side, px.", "share": "of what there is, in [0, 1].", "rate": "its own.", "names": "of"}
    assert meanings(prose) == {
        "n": "`n` copies, see eq. (3)",
        "level": "`level` of the noise.",
        "kind": "And `kind`.",
        "rest": "",
    }


@pytest.mark.parametrize(
    "given",
    [
        {"i": 3}, {"i": np.int64(3)}, {"f": 1}, {"f": np.float32(1)}, {"b": True}, {"p": Path("a")}, {"p": "a"}, {"o": None},
        {"q": [[1, 0.5]]}, {"q": ((1,), [2])}, {"m": {"a": [1]}}, {"m": None}, {"w": "y"}, {"w": None},
    ],
)  # fmt: skip
def test_what_fits_passes(given):
    check_options("thing", typed, given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"i": 2.5}, "thing: i must be an integer; got 2.5"),
        ({"i": True}, "i must be an integer; got True"),
        ({"f": "6"}, "f must be a number; got '6'"),
        ({"b": 1}, "b must be true or false; got 1"),
        ({"p": 3}, "p must be text or a path; got 3"),
        ({"o": "6"}, "o must be a number or None; got '6'"),
        ({"q": "ab"}, "q must be a list of lists of numbers; got 'ab'"),
        ({"q": [["a"]]}, "q must be a list of lists of numbers"),
        ({"m": [1]}, "m must be a mapping or None"),
        ({"w": ["x"]}, "w must be one of 'x' or None"),
        ({"t": "normal"}, "t must be a list of texts; got 'normal'"),
        ({"sp": 1}, r"unknown option 'sp' of thing"),
    ],
)
def test_what_does_not_fit_is_told(given, says):
    with pytest.raises(TypeError, match=says):
        check_options("thing", typed, given)


def test_nan_a_near_name_and_what_is_missing():
    with pytest.raises(ValueError, match="thing: f must be a number; got NaN"):
        check_options("thing", typed, {"f": float("nan")})
    with pytest.raises(TypeError, match=r"^unknown option 'gird' of strategy 'has'; did you mean 'grid'\? \(known: grid, prob"):
        check_options("strategy 'has'", resolve("", "has", STRATEGIES, "wsol.training"), {"gird": 3})
    with pytest.raises(TypeError, match=r"^source 'images' needs 'sheet'; options: sheet, classes"):
        check_options("source 'images'", resolve("", "images", SOURCES, "wsol.data").dataset, {"classes": ["a", "b"]})


@pytest.mark.parametrize(
    ("table", "room"), [(HEADS, "models"), (STRATEGIES, "training"), (METHODS, "cams"), (BACKBONES, "models")]
)
def test_every_default_of_the_tables_fits(table, room):
    for name in table:
        thing = resolve("", name, table, f"wsol.{room}")
        defaults = {n: p.default for n, p in options_of(thing).items() if p.default is not p.empty}
        check_options(name, thing, {"seeds": print, **defaults} if "seeds" in options_of(thing) else defaults)


def test_every_option_of_heads_strategies_sources_and_backbones_says_what_it_is():
    for table, room in ((HEADS, "models"), (STRATEGIES, "training"), (SOURCES, "data"), (BACKBONES, "models")):
        for name in table:
            thing = resolve("", name, table, f"wsol.{room}")
            said = meanings(getattr(thing, "dataset", thing))
            silent = [option for option, text in said.items() if not text or text.startswith(("see there", "as for", "the same"))]
            assert not silent, (name, silent)
