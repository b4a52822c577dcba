"""The laws' pages tell the truth: their commands print what they show, their Python gives what it shows."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest

from equiscale.cli import main

ROOT = Path(__file__).parents[1]
PAGES = ("laws", "law-pitfalls")
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYCON = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TOLERANCE = 0.02
TINY = 1e-5  # slopes at an optimum and p-values: that they are small is all they say


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Each command of a page with the lines shown below it."""
    out: list[tuple[str, list[str]]] = []
    for block in CONSOLE.findall((ROOT / f"docs/{page}.md").read_text()):
        for line in block.replace(" \\\n   ", "").splitlines():  # a command on several lines is one
            if line.startswith("$ "):
                out.append((line[2:], []))
            else:
                out[-1][1].append(line)
    return out


SHOWN = [(page, *shown) for page in PAGES for shown in commands(page)]


def step(number: str) -> float:
    """One unit of the last digit that is printed."""
    mantissa, _, power = number.partition("e")
    return 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))


def agree(shown: list[str], printed: list[str]) -> bool:
    """The same words, numbers in them within 2 % or a unit of their last digit."""
    for ours, theirs in zip(shown, printed, strict=True):
        numbers, others = NUMBER.findall(ours), NUMBER.findall(theirs)
        if NUMBER.sub("#", ours) != NUMBER.sub("#", theirs):
            return False
        for a, b in zip(numbers, others, strict=True):
            largest = max(abs(float(a)), abs(float(b)))
            near = max(TOLERANCE * largest, 1.001 * max(step(a), step(b)))
            if abs(float(a) - float(b)) > near and largest > TINY:
                return False
    return True


def same(shown: str, printed: str) -> list[str] | None:
    """What is left of a line printed behind what is shown of it; None where they differ. Shown lines may be cut with
    an ellipsis at their end, and go on from an earlier one with an ellipsis at their start."""
    ours, theirs = shown.split(), printed.split()
    cut = ours[-1:] == ["…"]
    ours = [word for word in ours if word != "…"]
    if len(ours) > len(theirs) or not (cut or len(ours) == len(theirs)) or not agree(ours, theirs[: len(ours)]):
        return None
    return theirs[len(ours) :]


def missing(shown: list[str], printed: list[str]) -> str | None:
    """The first line shown that is not printed where it should be; a line of an ellipsis skips any number."""
    at, anywhere = 0, False
    rest: list[str] = []
    for line in shown:
        if line == "…":
            anywhere = True
        elif line.lstrip().startswith("… "):
            left = same(line, " ".join(rest))
            if left is None:
                return line
            rest = left
        else:
            left, behind = None, printed[at:] if anywhere else printed[at : at + 1]
            for offset, candidate in enumerate(behind):
                left = same(line, candidate)
                if left is not None:
                    at, rest, anywhere = at + offset + 1, left, False
                    break
            if left is None:
                return line
    return None if anywhere or at == len(printed) else f"(nothing below) {printed[at]}"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the records that the pages work on and the files that they write."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    titled = re.findall(r'^```\w+ title="(.*?)"\n(.*?)^```$', (ROOT / "docs/laws.md").read_text(), re.M | re.S)
    assert {name for name, _ in titled} == {"mine.py", "averages.csv"}
    for name, text in titled:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "command", "shown"), SHOWN, ids=[f"{p}: {c[10:]}" for p, c, _ in SHOWN])
def test_commands_print_what_is_shown(
    page: str, command: str, shown: list[str], clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    assert words[0] == "equiscale"
    assert main(words[1:]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out.rstrip("\n").splitlines()
    absent = missing(shown, printed)
    assert absent is None, "\n".join([f"{page}: not printed by {command}:", absent, "but:", *printed])


class Near(doctest.OutputChecker):
    """Outputs equal but for numbers within the tolerance."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        shown, printed = want.splitlines(), got.splitlines()
        return len(shown) == len(printed) and all(same(a, b) == [] for a, b in zip(shown, printed, strict=True))


def test_python_gives_what_is_shown(clone: Path) -> None:
    text = "\n".join(PYCON.findall((ROOT / "docs/laws.md").read_text()))
    test = doctest.DocTestParser().get_doctest(text, {}, "docs/laws.md", None, 0)
    assert len(test.examples) > 10
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        failed, _ = doctest.DocTestRunner(Near()).run(test, out=said.write)
    assert not failed, said.getvalue()


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("alpha 0.406 [0.33, 0.49]  [1]", "alpha 0.407 [0.331, 0.485]  [1]", True),
        ("alpha 0.406 [0.33, 0.49]  [1]", "alpha 0.43 [0.33, 0.49]  [1]", False),
        ("slope 3e-08, condition …", "slope 9e-09, condition 26", True),
        ("E ended at zero", "E ended at one", False),
        ("  N* grows as C^0.82 […", "  N* grows as C^0.95 [0.5, 0.9]", False),
    ],
)
def test_lines_are_compared(shown: str, printed: str, alike: bool) -> None:
    assert (same(shown, printed) is not None) == alike
