"""The figure of who beats whom: what is drawn where, and what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from ahriuwu_cli.evaluation import ladder
from ahriuwu_cli.evaluation.ladder import ORDER, Bracket, Panel, Rung, plot_ladder
from ahriuwu_cli.evaluation.plots import AGENT_COLOURS

MEANS = dict(zip((*ORDER, "expert"), (1.0, 0.5, 4.0, 4.5, 5.0, 7.5, 9.0), strict=True))


def panel(title: str = "Freeway", means: dict[str, float] = MEANS, p_value: float | None = 0.0123) -> Panel:
    rungs = {name: Rung(mean, mean - 0.3, mean + 0.3, (mean - 0.1, mean + 0.2)) for name, mean in means.items()}
    return Panel(title, rungs, Bracket(p_value, 8, "above") if p_value is not None else None, 0.95)


@pytest.fixture
def drawn(monkeypatch) -> list[Axes]:
    """The panels of the figure that was saved last."""
    axes: list[Axes] = []
    save = ladder.save_figure

    def keep(path, figure) -> None:
        save(path, figure)
        axes[:] = [place for place in figure.axes if place.get_visible()]

    monkeypatch.setattr(ladder, "save_figure", keep)
    return axes


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_bars_stand_in_order_with_their_numbers(drawn, tmp_path) -> None:
    shuffled = dict(reversed(MEANS.items()))
    plot_ladder(tmp_path / "a.png", [panel(means=shuffled)])
    [axes] = drawn
    assert axes.get_title() == "Freeway"
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "random", "repeat last", "dataset", "BC from scratch", "WM+BC", "imagination",
    ]  # fmt: skip
    assert [bar.get_height() for bar in axes.patches] == [MEANS[name] for name in ORDER]
    assert [to_rgb(bar.get_facecolor()) for bar in axes.patches] == [to_rgb(AGENT_COLOURS[name]) for name in ORDER]
    assert {f"{MEANS[name]:.1f}" for name in ORDER} | {"expert 9.0", "above\np = 0.012, 8 seeds"} == set(texts(axes))
    dots = [collection.get_offsets()[:, 1].tolist() for collection in axes.collections if len(collection.get_offsets())]
    assert [4.9, 5.2] in [pytest.approx(values) for values in dots]
    image = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert image.shape[1] == 900
    assert (image[0] == 255).all()  # white paper
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3), (7, 3, 3)])
def test_panels_fill_their_rows(drawn, tmp_path, count: int, rows: int, columns: int) -> None:
    plot_ladder(tmp_path / "ladder.png", [panel()] * count)
    assert len(drawn) == count
    assert drawn[0].get_gridspec().get_geometry() == (rows, columns)


def test_the_bracket_joins_the_two_it_compares(drawn, tmp_path) -> None:
    plot_ladder(tmp_path / "a.png", [panel(p_value=2e-5), panel("Pong", p_value=None)])
    with_p, without = drawn
    assert "above\np < 0.001, 8 seeds" in texts(with_p)
    assert not [text for text in texts(without) if "p " in text]
    brackets = [line.get_xydata() for line in with_p.lines if len(line.get_xydata()) == 4]
    [bracket] = [points for points in brackets if len(set(points[:, 0])) == 2]
    assert set(bracket[:, 0]) == {ORDER.index("bc"), ORDER.index("imagination")}
    assert bracket[:, 1].min() > 7.8  # above interval and dots
    assert bracket[:, 1].max() < with_p.get_ylim()[1]


def test_losses_do_not_hang_from_zero(drawn, tmp_path) -> None:
    """With returns below zero the best agent still has the longest bar."""
    means = {"random": -20.4, "bc": -12.0, "imagination": -6.0}
    plot_ladder(tmp_path / "a.png", [panel("Pong", means)])
    heights = [bar.get_height() for bar in drawn[0].patches]
    assert heights == sorted(heights) and heights[0] > 0


def test_a_lone_seed_of_one_episode_has_no_interval(drawn, tmp_path) -> None:
    rungs = {"random": Rung(0.0, None, None, (0.0,)), "bc": Rung(0.0, None, None, (0.0,))}
    plot_ladder(tmp_path / "a.png", [Panel("Empty", rungs, None, 0.9)])
    assert not drawn[0].containers[0].errorbar
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("panels", "message"), [([], "no panel"), ([Panel("Bricks", {"expert": Rung(1, 0, 2, (1,))}, None, 0.9)], "Bricks")]
)
def test_what_cannot_be_drawn(panels, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        plot_ladder(tmp_path / "a.png", panels)
    assert not list(tmp_path.iterdir())
