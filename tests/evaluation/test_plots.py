"""Plots: what is drawn, that nothing is cut off, that references are there, and that pyplot stays out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from ahriuwu_cli.evaluation import plots
from ahriuwu_cli.evaluation.metrics import HorizonCurve
from ahriuwu_cli.evaluation.plots import agent_colours, plot_actions, plot_horizon, plot_returns
from ahriuwu_cli.evaluation.statistics import Interval, mean_interval


def _curve(level: float, steps: int = 8) -> HorizonCurve:
    psnr, ssim = np.linspace(level, level - 5, steps), np.linspace(0.9, 0.5, steps)
    return HorizonCurve(psnr, ssim, float(psnr.mean()), float(ssim.mean()))


def _curves(steps: int = 8) -> dict[str, HorizonCurve]:
    names = ("reconstruction", "dream", "persistence", "dream, shuffled actions")
    return {name: _curve(35 - 5 * place, steps) for place, name in enumerate(names)}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, in order."""
    seen: list[Figure] = []
    save = plots.save_figure

    def keep(path: Path, figure: Figure) -> None:
        seen.append(figure)
        save(path, figure)

    monkeypatch.setattr(plots, "save_figure", keep)
    return seen


def _texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: heading, legend, titles, axis labels and the tick labels in view."""
    texts = [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
    children = [child for axes in figure.axes for child in axes.child_axes]
    for axes in [*figure.axes, *children]:
        texts.append(axes.title)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [text for text in texts if text.get_text().strip() and text.get_visible()]


def _assert_texts_are_inside_and_apart(figure: Figure) -> None:
    figure.draw_without_rendering()  # the file had another resolution
    boxes = [(text.get_text(), text.get_window_extent(figure.canvas.get_renderer())) for text in _texts(figure)]
    for place, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 - 1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 < box.y1 <= figure.bbox.y1 + 1, text
        for other, other_box in boxes[place + 1 :]:
            across = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            along = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(across, along) < 1, (text, other)


@pytest.mark.parametrize("steps", [1, 8, 200])
def test_horizon_plot_draws_each_curve_in_both_panels(tmp_path: Path, figures: list[Figure], steps: int) -> None:
    curves = _curves(steps)
    plot_horizon(tmp_path / "a.png", curves, "Rollout on held-out episodes")
    assert iio.imread(tmp_path / "a.png").shape == (552, 1080, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    left, right = figures[0].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("PSNR (dB)", "SSIM")
    drawn = {line.get_label().split(" (mean")[0]: line for line in left.lines}
    assert set(drawn) == set(curves)
    assert len(right.lines) == len(curves)
    np.testing.assert_array_equal(drawn["dream"].get_ydata(), curves["dream"].psnr)
    np.testing.assert_array_equal(drawn["dream"].get_xdata(), np.arange(1, steps + 1))
    assert drawn["persistence"].get_linestyle() == "--"
    assert drawn["dream"].get_linestyle() == "-"
    assert (drawn["dream"].get_marker() == "") == (steps == 200)  # one step alone must still be seen
    assert len({line.get_color() for line in left.lines}) == len(curves)
    _assert_texts_are_inside_and_apart(figures[0])


@pytest.mark.parametrize("missing", ["persistence", "reconstruction"])
def test_horizon_plot_has_its_references(tmp_path: Path, missing: str) -> None:
    """Pitfall 10: no rollout plot without persistence and the tokenizer's ceiling beside it."""
    curves = _curves()
    del curves[missing]
    with pytest.raises(ValueError, match=missing):
        plot_horizon(tmp_path / "a.png", curves, "title")
    assert list(tmp_path.iterdir()) == []


def test_horizon_plot_refuses_curves_of_different_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one length"):
        plot_horizon(tmp_path / "a.png", _curves() | {"dream": _curve(20, 5)}, "title")
    with pytest.raises(ValueError, match="one length"):
        plot_horizon(
            tmp_path / "a.png", dict.fromkeys(_curves(), HorizonCurve(np.zeros(0), np.zeros(0), 0.0, 0.0)), "title"
        )


def test_returns_plot_draws_mean_interval_and_episodes(tmp_path: Path, figures: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    returns = {"random": rng.poisson(0.4, 30), "behaviour cloning of a noisy expert": rng.poisson(9, 30)}
    intervals = {name: mean_interval(values, 0.95, 0) for name, values in returns.items()}
    plot_returns(tmp_path / "a.png", returns, intervals)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    axes = figures[0].axes[0]
    for place, (name, values) in enumerate(returns.items()):
        dots = axes.collections[place].get_offsets()
        np.testing.assert_array_equal(dots[:, 0], values)
        assert np.abs(dots[:, 1] - place).max() < 0.5
        drawn = [tuple(line.get_xdata()) for line in axes.lines]
        assert (intervals[name].low, intervals[name].high) in drawn
        assert (intervals[name].mean,) in drawn
    assert "95 % interval" in axes.get_xlabel()
    _assert_texts_are_inside_and_apart(figures[0])


def test_returns_plot_of_one_episode_has_no_interval(tmp_path: Path, figures: list[Figure]) -> None:
    plot_returns(tmp_path / "a.png", {"only": [1.0]}, {"only": mean_interval([1.0], 0.9, 0)}, confidence=0.9)
    axes = figures[0].axes[0]
    assert len(axes.lines) == 1
    assert "90 % interval" in axes.get_xlabel()
    _assert_texts_are_inside_and_apart(figures[0])


PLAYERS = ["random", "repeat-last", "dataset", "expert", "scratch", "bc", "imagination"]


def test_returns_plot_of_all_players(tmp_path: Path, figures: list[Figure]) -> None:
    returns = {name: np.random.default_rng(place).poisson(3 + place, 20) for place, name in enumerate(PLAYERS)}
    plot_returns(
        tmp_path / "a.png", returns, {name: mean_interval(values, 0.95, 0) for name, values in returns.items()}
    )
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == PLAYERS
    colours = [tuple(dots.get_facecolor()[0][:3]) for dots in axes.collections]
    assert len(set(colours)) == len(PLAYERS)
    _assert_texts_are_inside_and_apart(figures[0])


def test_a_player_keeps_its_colour() -> None:
    every, few = agent_colours([*PLAYERS, "a", "b"]), agent_colours(["bc", "b"])
    assert len(set(every.values())) == len(every)
    assert few["bc"] == every["bc"]
    assert few["b"] == every["a"]


# ---------------------------------------------------------------- actions


def _tally(*, labels: int = 3, named: str = "move") -> dict[str, object]:
    shares = {f"choice {place}": place / (labels * (labels - 1) / 2) for place in range(labels)}
    return {"steps": 9, "repeated": 0.25, "components": {named: {"type": "categorical", "shares": shares}}}


def test_actions_plot_draws_a_panel_per_component(tmp_path: Path, figures: list[Figure]) -> None:
    facts = _tally()
    facts["components"] |= {
        "keys": {"type": "binary", "on": [0.5, 0.125]},
        "camera": {"type": "continuous", "edges": [-1, 0, 1], "histogram": [[0.25, 0.75]]},
    }
    plot_actions(tmp_path / "a.png", {"random": facts, "bc": facts})
    move, keys, camera, before = figures[0].axes
    assert [axes.get_title() for axes in figures[0].axes] == ["move", "keys on", "camera from", "as before"]
    np.testing.assert_allclose(move.images[0].get_array(), [[0, 1 / 3, 2 / 3]] * 2)
    np.testing.assert_allclose(keys.images[0].get_array(), [[0.5, 0.125]] * 2)
    np.testing.assert_allclose(camera.images[0].get_array(), [[0.25, 0.75]] * 2)
    assert [text.get_text() for text in before.texts] == ["25", "25"]
    assert [text.get_text() for text in move.texts] == ["0", "33", "67"] * 2
    _assert_texts_are_inside_and_apart(figures[0])


@pytest.mark.parametrize("labels", [2, 18, 40])
def test_actions_plot_of_few_and_many_choices(tmp_path: Path, figures: list[Figure], labels: int) -> None:
    plot_actions(tmp_path / "a.png", {name: _tally(labels=labels, named="a_long_name") for name in PLAYERS})
    assert len(figures[0].axes[0].texts) == (0 if labels == 40 else labels * len(PLAYERS))
    _assert_texts_are_inside_and_apart(figures[0])


def test_actions_plot_leaves_out_what_is_not_known(tmp_path: Path, figures: list[Figure]) -> None:
    plot_actions(tmp_path / "a.png", {"bc": _tally() | {"repeated": None}})
    assert len(figures[0].axes[-1].texts) == 0


def test_actions_plot_refuses_what_it_cannot_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        plot_actions(tmp_path / "a.png", {})
    with pytest.raises(ValueError, match="expected the same"):
        plot_actions(tmp_path / "a.png", {"a": _tally(), "b": _tally(named="other")})


def test_returns_plot_refuses_what_it_cannot_draw(tmp_path: Path) -> None:
    interval = Interval(1.0, 0.5, 1.5)
    with pytest.raises(ValueError, match="N >= 1"):
        plot_returns(tmp_path / "a.png", {"a": []}, {"a": interval})
    with pytest.raises(ValueError, match="intervals of"):
        plot_returns(tmp_path / "a.png", {"a": [1.0]}, {"b": interval})
    with pytest.raises(ValueError, match="intervals of"):
        plot_returns(tmp_path / "a.png", {}, {})


def test_matplotlib_is_not_imported_with_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it raises
    spec = importlib.util.spec_from_file_location("plots_once_more", plots.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ImportError):
        module.plot_horizon(Path("never.png"), _curves(), "title")


def test_pyplot_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot_horizon(tmp_path / "a.png", _curves(), "title")
    plot_returns(tmp_path / "b.png", {"a": [1.0]}, {"a": Interval(1.0, 0.0, 2.0)})
    assert len(list(tmp_path.iterdir())) == 2
