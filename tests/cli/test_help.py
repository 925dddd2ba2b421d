"""The command line explains itself: every verb has an example that parses, exit codes are said, and logs stay short."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wsol.cli import progress as module
from wsol.cli.main import app
from wsol.cli.progress import progress

ROOT = Path(__file__).parents[2]
GROUP = typer.main.get_command(app)


def examples(name):
    """The command lines that the help of a verb shows."""
    paragraphs = [" ".join(part.split()) for part in (GROUP.commands[name].help or "").split("\n\n")]
    return [shlex.split(part.partition(": wsol ")[2]) for part in paragraphs if re.match(r"Example[^:]*: wsol ", part)]


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_verb_has_an_example_that_parses(name):
    found = examples(name)
    assert found, f"wsol {name} --help shows no example"
    for words in found:
        assert words[0] == name
        context = GROUP.commands[name].make_context(name, words[1:], resilient_parsing=True)  # unknown options still fail
        assert not context.args, words


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_option_is_explained(name):
    for option in GROUP.commands[name].params:
        assert option.name == "help" or getattr(option, "help", None), option.name


def test_exit_codes_are_in_the_help():
    told = " ".join(CliRunner().invoke(app, ["--help"]).stdout.replace("│", " ").split())
    for words in ("0 done", "1 wrong input", "2 wrong command line", "3 MLflow does not answer", "130 interrupted"):
        assert words in told


def run(*words, **more):
    script = "import sys; from wsol.cli.main import main; sys.argv[0] = 'wsol'; main()"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", script, *words], capture_output=True, text=True, **more)


def test_exit_codes_are_what_the_help_says(tmp_path):
    assert run("--version").returncode == 0
    wrong = run("config", str(tmp_path / "none.yaml"))
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (1, False)
    assert run("prepare", "--no-such-option").returncode == 2
    interrupted = "import sys; import wsol.cli.catalog as c; from wsol.cli.main import main\n"
    interrupted += "def stop(_): raise KeyboardInterrupt\nc.catalog = stop; sys.argv = ['wsol', 'list', 'cams']; main()"
    assert subprocess.run([sys.executable, "-c", interrupted], capture_output=True).returncode == 130


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_now_and_then_and_a_terminal_a_bar(monkeypatch):
    clock = iter(range(0, 10**9, 10))  # every look at the clock is 10 s later
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    log = io.StringIO()
    assert list(progress(list(range(1000)), "work", stream=log)) == list(range(1000))
    lines = log.getvalue().splitlines()
    assert len(lines) == 1000 // 3 + 1  # one per 30 s, and the last
    assert lines[0] == "work: 2 of 1000, 30 s, about 14970 s left"
    assert lines[-1].startswith("work: 1000 of 1000, ")
    short = io.StringIO()
    assert list(progress([1, 2], "work", stream=short)) == [1, 2]
    assert short.getvalue() == ""  # what takes no time is not worth a line


def test_a_terminal_gets_a_bar():
    bar = Terminal()
    assert list(progress([1, 2, 3], "draw", stream=bar)) == [1, 2, 3]
    assert "draw" in bar.getvalue()
    assert "3 of 3" not in bar.getvalue()


def test_the_doors_load_nothing_heavy():
    script = "import sys, wsol.cli.main, wsol.cli.predict, wsol.cli.new, wsol.cli.doctor, wsol.cli.log\n"
    script += "print([m for m in ('torch', 'mlflow', 'pandas', 'openslide', 'scipy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def lines_of(page):
    """The command lines of the package in the shell blocks of a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found, open_line = [], ""
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        open_line += line
        try:
            words = shlex.split(open_line, comments=True)
        except ValueError:  # a quotation that goes on in the next line
            open_line += "\n"
            continue
        found += [words[1:]] if words[:1] == ["wsol"] and "$(" not in open_line else []
        open_line = ""
    assert not open_line, f"a quotation does not end: {open_line}"
    return found


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_what_the_pages_say_can_be_typed(page):
    for words in lines_of(page):
        context = GROUP.commands[words[0]].make_context(words[0], words[1:], resilient_parsing=True)
        assert not context.args, words
