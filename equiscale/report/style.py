"""How numbers and colours look: one hue per architecture, a shade per size, three significant digits.

The hues keep apart under protanopia, deuteranopia and tritanopia (tested by simulation); every architecture also has
a marker of its own, so that nothing is told by colour alone. Shades run from light (small) to dark (large) in OKLab.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

NO_VALUE = "—"
SPACE = "\u202f"  # narrow no-break space, between digits and before units
INK, QUIET, GRID, PAPER = "#22262b", "#6b727b", "#e7e8ea", "#ffffff"
DROPPED = "#b4b8bd"  # data that is shown but not used in a fit

NAMES = {
    "mpnn": "MPNN", "egnn": "EGNN", "gemnet_oc": "GemNet-OC", "esen": "eSEN", "escaip": "EScAIP",
    "transformer": "Transformer",
}  # fmt: skip
HUES = {
    "mpnn": "#c8591a", "egnn": "#2367b3", "gemnet_oc": "#149274", "esen": "#93307f", "escaip": "#b28a00",
    "transformer": "#4d5661",
}  # fmt: skip
SYMBOLS = {
    "mpnn": "circle", "egnn": "diamond", "gemnet_oc": "square", "esen": "triangle-up", "escaip": "cross",
    "transformer": "triangle-down",
}  # fmt: skip
SPARE_HUES = ("#6f7d2a", "#a8433f", "#357f8c", "#7a5a3a")  # for architectures that are not ours
FALLBACK_SYMBOLS = ("star", "hexagon", "pentagon", "x")
SPARE_SYMBOLS = ("triangle-left", "triangle-right", *SYMBOLS.values())  # where several share one of those
REMEDIES = ("8 frames", "symmetry loss", "canonical frame", "", "augmented", "", "consistency loss", "4 frames", "",
            "lie loss")  # fmt: skip  # a hue's place for each of ours: they are meant to be compared


def name_of(architecture: str) -> str:
    """How an architecture is written in print."""
    kind, _, variant = str(architecture).partition(" ")
    return f"{NAMES.get(kind, kind)} {variant}".strip()


def hue(architecture: str) -> str:
    """An architecture's colour, the same in every figure of every report."""
    kind, _, variant = str(architecture).partition(" ")
    base = HUES.get(kind) or SPARE_HUES[_place(kind) % len(SPARE_HUES)]
    return _relative(base, _variant_place(variant)) if variant else base


def _variant_place(variant: str) -> int:
    return REMEDIES.index(variant) if variant in REMEDIES else _place(variant) % 12


@lru_cache(maxsize=256)
def _relative(colour: str, place: int) -> str:
    """A hue near a family's own, for a variant of an architecture: turned in OKLab, and lighter or darker."""
    lightness, a, b = _oklab(colour)
    angle = math.radians((-45, -20, 20, 45)[place % 4])
    turn = (a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle))
    return _hex(np.array([lightness + (-0.09, 0.02, 0.12)[place // 4], *turn]))


def symbol(architecture: str) -> str:
    """An architecture's marker (plotly's name)."""
    return SYMBOLS.get(architecture) or FALLBACK_SYMBOLS[_place(architecture) % len(FALLBACK_SYMBOLS)]


@dataclass(frozen=True)
class Look:
    hue: str
    symbol: str


def apart(names: Iterable[str], markers: bool = False) -> dict[str, Look]:
    """Hue and marker of each name as ever, but for variants of one architecture that would share a hue: the later ones
    of the order of tables move on to the next that is free. `markers`: no two variants share a marker either."""
    names = sorted(set(names), key=rank)
    kinds = {n.partition(" ")[0] for n in names}
    taken: dict[str, set[object]] = {}
    out = {}
    for name in names:
        kind, _, variant = name.partition(" ")
        used = taken.setdefault(kind, {SYMBOLS.get(k, "") for k in kinds})
        look = Look(hue(name), symbol(name))
        if variant:
            place = _variant_place(variant)
            place = next((p for i in range(12) if (p := (place + 5 * i) % 12) not in used), place)
            choices = [look.symbol, *FALLBACK_SYMBOLS, *SPARE_SYMBOLS]
            mark = next((c for c in choices if c not in used), look.symbol) if markers else look.symbol
            used |= {place, mark}
            base = HUES.get(kind) or SPARE_HUES[_place(kind) % len(SPARE_HUES)]
            look = Look(_relative(base, place), mark)
        out[name] = look
    return out


def _place(architecture: str) -> int:
    return zlib.crc32(str(architecture).encode())  # hash() differs between processes


# --- shades ----------------------------------------------------------------------------------------------------------

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _oklab(colour: str) -> np.ndarray:
    """#rrggbb -> OKLab (Ottosson 2020)."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return _TO_LAB @ np.cbrt(_TO_LMS @ linear)


def _hex(lab: np.ndarray) -> str:
    linear = np.clip(np.linalg.solve(_TO_LMS, np.linalg.solve(_TO_LAB, lab) ** 3), 0, 1)
    channels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * c):02x}" for c in np.clip(channels, 0, 1))


@lru_cache(maxsize=4096)
def mix(first: str, second: str, part: float) -> str:
    """The colour `part` of the way from `first` to `second`, in OKLab."""
    return _hex((1 - part) * _oklab(first) + part * _oklab(second))


def shade(architecture: str, place: float) -> str:
    """An architecture's hue for a size at `place` in 0 (smallest, light) … 1 (largest, dark)."""
    return shade_of(hue(architecture), place)


def shade_of(base: str, place: float) -> str:
    """The same of any hue."""
    place = min(max(place if math.isfinite(place) else 0.5, 0.0), 1.0)
    light, dark = mix(base, "#ffffff", 0.6), mix(base, "#0c0f14", 0.45)
    return mix(light, base, 2 * place) if place < 0.5 else mix(base, dark, 2 * place - 1)


SCALE = ("#86c95a", "#24a58a", "#2b758e", "#3e4a86", "#3a1652")  # sequential, its lightness falls evenly
SERIES = ("#2367b3", "#c8591a", "#149274", "#93307f", "#b28a00", "#4d5661")  # things without an order
SERIES_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")


def scaled(place: float) -> str:
    """The colour at `place` in 0 (least, light green) … 1 (greatest, dark violet) of a quantity's scale."""
    at = min(max(place if math.isfinite(place) else 0.5, 0.0), 1.0) * (len(SCALE) - 1)
    left = min(int(at), len(SCALE) - 2)
    return mix(SCALE[left], SCALE[left + 1], at - left)


def places(values: object) -> dict[float, float]:
    """Where each distinct value lies between the least (0) and the greatest (1), on a log scale; .5 where alone."""
    distinct = sorted({float(v) for v in np.asarray(values, float).ravel() if v > 0 and math.isfinite(v)})
    if len(distinct) < 2:
        return {v: 0.5 for v in distinct}
    low, span = math.log(distinct[0]), math.log(distinct[-1] / distinct[0])
    return {v: (math.log(v) - low) / span for v in distinct}


# --- numbers ---------------------------------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def finite(value: object) -> float | None:
    """A finite float, or None for whatever is not one (None, nan, inf, text)."""
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def power(exponent: int) -> str:
    """10⁻³"""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def number(value: object, digits: int = 3) -> str:
    """Significant digits: .0123 -> 0.0123, 12345 -> 12 300, 1.2e-7 -> 1.20 × 10⁻⁷; a dash where there is none."""
    x = finite(value)
    if x is None:
        return NO_VALUE
    if x == 0:
        return "0"
    mantissa, exponent = f"{abs(x):.{digits - 1}e}".split("e")
    sign, order = "−" if x < 0 else "", int(exponent)
    if -4 < order < 5:
        text = f"{float(f'{abs(x):.{digits - 1}e}'):,.{max(digits - 1 - order, 0)}f}"
        return sign + (text.replace(",", SPACE) if order >= 4 else text.replace(",", ""))
    return f"{sign}{mantissa}{SPACE}×{SPACE}{power(order)}"


def count(value: object) -> str:
    """A whole number, digits grouped: 156358 -> 156 358."""
    x = finite(value)
    return NO_VALUE if x is None else f"{round(x):,}".replace(",", SPACE if abs(x) >= 1e4 else "")


def short(value: object) -> str:
    """A size as it is spoken: 156358 -> 156 k, 2422704 -> 2.42 M."""
    x = finite(value)
    if x is None:
        return NO_VALUE
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= limit * 0.9995:
            return f"{number(x / limit)}{SPACE}{letter}"
    return number(x) if x != round(x) else count(x)


def interval(low: object, high: object, digits: int = 3) -> str:
    """[low, high]; a dash where either is missing."""
    if finite(low) is None or finite(high) is None:
        return NO_VALUE
    return f"[{number(low, digits)}, {number(high, digits)}]"


def percent(value: object, digits: int = 2) -> str:
    """A fraction in per cent: .0234 -> 2.3 %."""
    x = finite(value)
    return NO_VALUE if x is None else f"{number(100 * x, digits)}{SPACE}%"


def difference(value: object, decimals: int = 3) -> str:
    """A difference of exponents, to a fixed place so that noise looks like noise: +0.004."""
    x = finite(value)
    if x is None:
        return NO_VALUE
    return f"{x:.{decimals}f}".lstrip("-") if round(x, decimals) == 0 else f"{x:+.{decimals}f}".replace("-", "−")


def signed(value: object, digits: int = 3) -> str:
    """A number with its sign, for differences."""
    x = finite(value)
    return NO_VALUE if x is None else ("+" if x > 0 else "") + number(x, digits)


# --- ticks of a log axis ---------------------------------------------------------------------------------------------


STEPS = (
    tuple(round(1 + 0.05 * i, 2) for i in range(180)), tuple(round(1 + 0.1 * i, 1) for i in range(90)),
    tuple(round(1 + 0.2 * i, 1) for i in range(45)), (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9), 
    (1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3),
)  # fmt: skip


def log_ticks(low: float, high: float, most: int = 7) -> list[tuple[float, str]]:
    """At most `most` values and labels between `low` and `high`: the finest of a few habits that fits.

    Labels are plain within 10⁻³ … 10⁴ ("0.05"), spoken for sizes up to 10⁹ ("20k", "1M"), else powers of ten, where
    decades alone are labelled as soon as there are two. The page's script does the same when a reader zooms."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1

    def inside(steps: tuple[float, ...], stride: int = 1) -> list[tuple[float, int]]:
        pairs = [(m, e) for e in range(first, last + 1) if e % stride == 0 for m in steps]
        return [(m, e) for m, e in pairs if low * 0.9999 <= m * 10.0**e <= high * 1.0001]

    decades = inside((1,))
    style = _label_style([math.floor(math.log10(low) + 1e-9), math.floor(math.log10(high) + 1e-9)])
    if len(decades) < (2 if style == "power" else 4):
        for steps in STEPS:
            fine = inside(steps)
            if 2 <= len(fine) <= most:
                return [(m * 10.0**e, _tick(m, e, style)) for m, e in fine]
    stride = 1
    while len(inside((1,), stride)) > most:
        stride += 1
    return [(m * 10.0**e, _tick(m, e, style)) for m, e in inside((1,), stride)]


def _label_style(exponents: list[int]) -> str:
    low, high = min(exponents), max(exponents)
    return "plain" if low >= -3 and high <= 3 else "spoken" if low >= 0 and high <= 8 else "power"


def _tick(mantissa: float, exponent: int, style: str) -> str:
    value = mantissa * 10.0**exponent
    if style == "plain":
        return f"{value:.10g}"
    if style == "spoken":
        size, letter = next(((s, t) for s, t in ((1e6, "M"), (1e3, "k")) if value >= 0.9999 * s), (1.0, ""))
        return f"{value / size:.10g}{letter}"
    return power(exponent) if mantissa == 1 else f"{mantissa:g}×{power(exponent)}"


def share(value: float) -> str:
    """A round share of a whole: .03 -> 3 %."""
    return f"{100 * value:g}{SPACE}%"


def rank(architecture: str) -> tuple[int, str]:
    """Sorts architectures as the paper's tables do, others behind by name."""
    known = list(NAMES)
    kind = str(architecture).partition(" ")[0]
    return (known.index(kind) if kind in known else len(known), architecture)
