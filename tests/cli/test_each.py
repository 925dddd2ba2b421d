"""One verb for several slides: what it runs, what it leaves, and when it stops."""

from __future__ import annotations

import json

import pytest
import typer

from wsol.cli.each import each
from wsol.cli.main import app
from wsol.cli.plan import JOBS, Plan, plan


@pytest.fixture
def line(tmp_path):
    """A command line whose one verb notes what it is asked for; slide `bad` is an error, slide `no` an exit code."""
    made = typer.Typer()

    @made.command("note")
    def note(slide: str = "", out: str = "") -> None:
        if slide == "bad":
            raise ValueError("slide 'bad' cannot be read")
        if slide == "no":
            raise typer.Exit(3)
        (tmp_path / out).write_text(slide)

    made.command("other")(lambda: None)
    return made


WORDS = ["note", "--slide", "@slide", "--out", "@slide.txt"]


def test_the_place_of_the_slide_is_filled_everywhere_and_the_stamp_comes_last(line, tmp_path):
    each(line, ["a b", "c,d"], WORDS, done=tmp_path / "done")
    assert {p.stem: p.read_text() for p in tmp_path.glob("*.txt")} == {"a b": "a b", "c,d": "c,d"}
    assert json.loads((tmp_path / "done").read_text()) == ["a b", "c,d"]


@pytest.mark.parametrize(("slide", "error"), [("bad", ValueError), ("no", typer.Exit)])
def test_what_ends_one_slide_ends_all_and_leaves_no_stamp_of_an_earlier_attempt(line, tmp_path, slide, error):
    (tmp_path / "done").write_text("[]")
    with pytest.raises(error) as found:
        each(line, ["a", slide, "z"], WORDS, done=tmp_path / "done")
    assert getattr(found.value, "exit_code", 3) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_words_that_name_no_slide_are_refused(line, tmp_path):
    with pytest.raises(ValueError, match=r"@slide stands nowhere in 'note --slide a'"):
        each(line, ["a"], ["note", "--slide", "a"], done=tmp_path / "done")


@pytest.mark.parametrize("names", ["s1,s2", "[]", '{"a": 1}', "[1]", '[""]'])
def test_names_are_a_list(tmp_path, names):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["each", "--slides", names, "--done", str(tmp_path / "d"), "--", "tile", "@slide"])
    assert "--slides: expected a JSON list of" in str(done.exception)


def of(count, size=0):
    from wsol.cli.config import load_config

    study = {
        "prepare": {"name": "d", "source": "images"},
        "models": {"gap": {}},
        "maps": {"fast": ["cam"]},
        "slides_per_job": size,
    }
    made = plan(load_config(study))
    return Plan(made.config, {}, {f"s{i}": "" for i in range(count)})


def test_few_slides_have_jobs_of_their_own_and_many_share_them():
    assert of(JOBS).slides_per_job == 1
    assert of(JOBS + 1).slides_per_job == 2
    assert (of(10_000).slides_per_job, of(10_000, 1).slides_per_job, of(8, 3).slides_per_job) == (20, 1, 3)
    names = [f"s{i}" for i in range(8)]
    assert of(8).lots(names) == {name: [name] for name in names}
    lots = of(8, 3).lots(names)
    assert list(lots) == ["00000", "00001", "00002"]
    assert [name for lot in lots.values() for name in lot] == names
    assert len(of(10_000).lots(list(of(10_000).paths))) == JOBS
