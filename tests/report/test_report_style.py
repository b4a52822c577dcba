"""Colours that everybody can tell apart, and numbers that always look the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from equiscale.report import style

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colour: str, kind: str) -> np.ndarray:
    """OKLab of a colour as somebody sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1)
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return style._oklab("#" + "".join(f"{round(255 * c):02x}" for c in back))


@pytest.mark.parametrize("kind", BLINDNESS)
def test_architectures_stay_apart_for_every_eye(kind):
    """Catches a new hue that a colour-blind reader cannot tell from another: .03 in OKLab is a clear step."""
    for a, b in itertools.combinations(style.HUES, 2):
        assert np.linalg.norm(seen(style.HUES[a], kind) - seen(style.HUES[b], kind)) > 0.03, (a, b)
    assert len(set(style.SYMBOLS.values())) == len(style.SYMBOLS)


def test_larger_is_darker():
    for name in (*style.HUES, "somebody's"):
        lightness = [style._oklab(style.shade(name, p))[0] for p in np.linspace(0, 1, 9)]
        assert all(a > b for a, b in itertools.pairwise(lightness)), name


def test_mix_has_its_ends():
    assert style.mix("#2367b3", "#ffffff", 0.0) == "#2367b3"
    assert style.mix("#2367b3", "#ffffff", 1.0) == "#ffffff"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.15234, "0.152"),
        (0.1, "0.100"),
        (0.9999, "1.00"),
        (12345.0, "12\u202f300"),
        (1234.0, "1230"),
        (0, "0"),
        (-3.2, "−3.20"),
        (1.2e-7, "1.20\u202f×\u202f10⁻⁷"),
        (99999, "1.00\u202f×\u202f10⁵"),
        (None, "—"),
        (math.nan, "—"),
        (math.inf, "—"),
        ("text", "—"),
    ],
)
def test_three_significant_digits(value, text):
    assert style.number(value) == text


def test_other_formats():
    assert style.count(156358) == "156\u202f358"
    assert style.short(156358) == "156\u202fk"
    assert style.interval(0.1419, 0.1431) == "[0.142, 0.143]"
    assert style.interval(None, 1) == "—"
    assert style.percent(0.0234) == "2.3\u202f%"
    assert style.difference(-0.0004) == "0.000"
    assert style.difference(-0.0016) == "−0.002"


@pytest.mark.parametrize(
    ("low", "high"), [(0.2, 2.2), (1e9, 1e13), (0.91, 0.99), (1e-12, 1e9), (3e3, 8e4), (0.5, 0.501)]
)
def test_log_ticks_lie_inside_and_are_few(low, high):
    ticks = style.log_ticks(low, high)
    assert len(ticks) <= 7
    assert all(low * 0.999 <= v <= high * 1.001 for v, _ in ticks)
    assert len({t for _, t in ticks}) == len(ticks)
    if high / low > 1.05:
        assert len(ticks) >= 2


def test_powers_of_ten_are_written_as_such():
    assert [t for _, t in style.log_ticks(1e9, 1e12)] == ["10⁹", "10¹⁰", "10¹¹", "10¹²"]
    assert "50k" in [t for _, t in style.log_ticks(4e3, 8e4)]
