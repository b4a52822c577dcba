"""The page in a real browser: every plot is drawn and no script fails."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=20000",
)


@pytest.fixture(scope="module")
def opened(written, tmp_path_factory):
    """(the document after its scripts ran, what the browser's console said)"""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page is checked in a browser where there is one")
    profile = tmp_path_factory.mktemp("profile")
    done = subprocess.run(
        [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={profile}",
            "--window-size=1280,1000",
            "--dump-dom",
            f"file://{written / 'report.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_no_script_fails(opened):
    """Catches an exception, a plotly warning about data, or anything that the page's own policy had to block."""
    assert opened[1] == []


def test_every_plot_is_really_drawn(opened, written):
    document = opened[0]
    declared = re.findall(
        r'<div class="plot" id="(plot-[\w-]+)"', (written / "report.html").read_text(encoding="utf-8")
    )
    assert len(declared) >= 20
    for i, name in enumerate(declared):
        start = document.index(f'id="{name}"')
        end = document.index(f'id="data-{name}"')
        drawn = document[start:end]
        assert "main-svg" in drawn, (i, name)
        assert re.search(r'class="(point|js-line|js-fill)', drawn), name
        assert "NaN" not in "".join(re.findall(r' d="([^"]*)"', drawn)), name


def test_ticks_are_words_of_ours(opened):
    """Log axes carry 10ⁿ or plain numbers, not plotly's 1B or 100μ."""
    ticks = re.findall(r'class="[xy]tick".*?<text.*?>(.*?)</text>', opened[0])
    assert ticks
    assert not [t for t in ticks if re.fullmatch(r"[\d.]+[μnBGTP]", t)]
