"""The noise floor comes from what can tell it, and the verdict of variants pairs the plain ladder with the best one."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import table

from equiscale.laws import Analysis, analyse, verdict
from equiscale.laws.noise_floor import difference_floor, noise_floors
from equiscale.laws.results import Architecture, Noise


@functools.cache
def variants() -> Analysis:
    """A plain ladder of eight runs, one of six that is 20 % better and one of three that is 10 % worse."""
    parts = []
    t, facts = table(("mpnn",), noise=0.01, widths=8)
    for i, (name, factor, runs) in enumerate((("mpnn", 1.0, 8), ("mpnn 4 frames", 0.8, 6), ("mpnn lie loss", 1.1, 3))):
        u, _ = table(("mpnn",), noise=0.01, widths=8, seed=i)
        kept = np.isin(u["width"], np.unique(u["width"])[:runs])
        u = {k: v[kept] for k, v in u.items()}
        u["architecture"] = np.full(kept.sum(), name)
        u["run"] = np.char.add(u["run"].astype(str), f"-{i}")
        for column in ("loss_molecules", "loss_conformers"):
            u[column] = factor * u[column]
        parts.append(u)
    return analyse({k: np.concatenate([p[k] for p in parts]) for k in t}, facts, resamples=20)


def ladder(name: str, runs: int, *, run: float = 0.01, fine: float = 0.0, seeds: float | None = None) -> Architecture:
    """An architecture whose fit found these noises, or whose seeds did."""
    a = variants().architectures["mpnn"]
    return replace(
        a,
        name=name,
        rungs=a.rungs[:runs],
        surface=replace(a.surface, run_noise=run, checkpoint_noise=fine),
        held_out_plateau=None,
        noise=Noise(seeds, 2 if seeds else 0, (), ""),
    )


def test_three_runs_tell_no_floor() -> None:
    """Catches a ladder whose fit says hardly anything setting the floor of a study."""
    found = noise_floors([ladder("a", 6, run=0.02), ladder("b", 4, run=0.05), ladder("c", 3, run=0.9)])
    assert [found[n].of for n in "abc"] == [("a",), ("b",), ("a", "b")]
    assert found["a"].std == pytest.approx(0.02)
    pooled = np.sqrt((3 * 0.02**2 + 1 * 0.05**2) / 4)  # three degrees of freedom of six runs, one of four
    assert found["c"].std == found["c"].run == pytest.approx(pooled)
    assert difference_floor(found["a"], found["c"]) == pytest.approx(np.hypot(0.02, pooled))


def test_seeds_come_before_fits() -> None:
    """Catches a pool that mixes what seeds say with what fits say, and a floor that is called the seeds' and is not."""
    found = noise_floors([ladder("a", 6, run=0.2, seeds=0.03), ladder("b", 5, run=0.05, fine=0.02), ladder("c", 3)])
    assert [found[n].seeds for n in "abc"] == [True, False, True]
    assert [found[n].std for n in "abc"] == pytest.approx([0.03, np.hypot(0.05, 0.02), 0.03])
    assert found["b"].run == pytest.approx(0.05)


def test_where_nothing_tells_there_is_no_floor() -> None:
    found = noise_floors([ladder("a", 3), replace(ladder("b", 6), surface=None)])
    assert found == {"a": None, "b": None}
    assert difference_floor(found["a"], None) is None


def test_a_verdict_without_a_floor_claims_nothing() -> None:
    made = variants()
    short = {n: replace(a, rungs=a.rungs[:3]) for n, a in made.architectures.items()}
    text = verdict(replace(made, architectures=short))[1]
    assert "no difference is claimed" in text
    assert "four runs" in text
    assert "noise floors of a difference" not in text


def test_variants_are_paired_with_the_plain_ladder() -> None:
    """Catches the pair that differs most, which may be two remedies, in place of plain against the best."""
    made = variants()
    best = verdict(made)
    assert "Of 2 variants mpnn 4 frames is the best beside mpnn at equal compute." in best[1]
    assert "mpnn 4 frames is lower here" in best[1]
    assert "mpnn and mpnn 4 frames" in best[3]
    assert made.pairs[2].noise_floors is not None  # the ladder of three runs has the floor of the others


def test_the_exponents_of_many_variants_are_one_short_sentence() -> None:
    """Catches a verdict that cannot be read: of many ladders one number each, and a count of those without an
    interval."""
    made = variants()
    many = {
        n: a for i in range(3) for n, a in ((f"{k} {i}".strip() if i else k, v) for k, v in made.architectures.items())
    }
    many = {n: replace(a, name=n) for n, a in many.items()}
    text = verdict(replace(made, architectures=many, pairs=()))[2]
    assert "3 ladders have none that can be told with an interval" in text
    assert "FLOP" in text
    assert len(text) < 100 * len(many)
    assert text.count("γ") == 1


def test_the_same_rows_are_asked_for_their_exponents_once(monkeypatch) -> None:
    """Catches a second validation set that pays for every specification again, and one number kept for other rows."""
    from equiscale.laws import pairs

    t, _ = table(("egnn",), widths=4)
    asked = []
    monkeypatch.setattr(pairs, "_surface_gammas", lambda *a: asked.append(a) or {})
    monkeypatch.setattr(pairs, "frontier", lambda *a, **k: SimpleNamespace(fit=None))
    d_max = 3.21e5  # of no other test
    pairs.gammas(t, "egnn", d_max)
    once = len(asked)
    assert once > 0
    pairs.gammas({**t}, "egnn", d_max)
    assert len(asked) == once
    pairs.gammas({**t, "loss_conformers": 1.01 * t["loss_conformers"]}, "egnn", d_max)
    assert len(asked) == 2 * once
