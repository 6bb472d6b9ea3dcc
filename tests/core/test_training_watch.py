"""Warnings during training: constant clipping, collapsed predictions, skipped steps."""

from __future__ import annotations

import pytest

from ahriuwu_cli.core.training.loop import train
from ahriuwu_cli.core.training.sinks import read_metrics
from ahriuwu_cli.core.training.watch import CLIP_WINDOW, Watch


def said(texts) -> list[str]:
    return [text for text in texts if text is not None]


def test_constant_clipping_is_reported_and_not_repeated_soon(settings):
    watch = Watch(settings(clip_norm=1.0))
    assert len(said(watch.gradient(2.0) for _ in range(CLIP_WINDOW))) == 1
    assert said(watch.gradient(2.0) for _ in range(10 * CLIP_WINDOW)) == []
    assert len(said(watch.gradient(2.0) for _ in range(CLIP_WINDOW))) == 1
    assert said(watch.gradient(2.0) for _ in range(20 * CLIP_WINDOW)) == []


def test_clipping_of_some_steps_is_no_news(settings):
    watch = Watch(settings(clip_norm=1.0))
    assert said(watch.gradient(2.0 if step % 10 else 0.5) for step in range(10 * CLIP_WINDOW)) == []


def test_clipping_names_the_number(settings):
    watch = Watch(settings(clip_norm=0.5))
    (text,) = said(watch.gradient(3.0) for _ in range(CLIP_WINDOW))
    assert "100% of the last 100 gradients were clipped at 0.5" in text
    assert "clip_norm" in text


def test_collapse_is_reported_after_warmup_only(settings):
    """Pitfall 30: the spread of the outputs against that of the truth is watched during training."""
    watch = Watch(settings(warmup_steps=50))
    flat, fine = {"spread": 0.01, "spread_reference": 0.3}, {"spread": 0.2, "spread_reference": 0.3}
    assert watch.metrics(20, flat) is None
    assert "collapsed" in (watch.metrics(60, flat) or "")
    assert watch.metrics(80, flat) is None
    assert watch.metrics(100, fine) is None
    assert "collapsed" in (watch.metrics(120, flat) or "")
    assert watch.metrics(120, {"loss": 1.0}) is None


def test_skipped_steps_are_reported_ever_more_rarely(settings):
    watch = Watch(settings(max_bad_steps=50))
    assert [n for n in range(1, 40) if watch.bad_step(n, n, "the loss is nan")] == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_warnings_reach_the_metrics_file_and_stderr(tmp_path, toy, settings, cpu, capsys, scale):
    """Pitfall 30: a stage that reports its spread is watched by the loop."""

    class Spread(toy):
        def loss(self, step, batch):
            return super().loss(step, batch)[0], {"spread": scale, "spread_reference": 1.0}

    changes = {"steps": CLIP_WINDOW, "clip_norm": 1e-6 if scale == 0 else 1e6, "log_every": 10, "checkpoint_every": 100}
    train(Spread(), settings(**changes), cpu, tmp_path, resume=False, seed=0)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "warning" in line]
    found = [(line["step"], "collapsed" in line["warning"], "clipped" in line["warning"]) for line in lines]
    assert found == ([(10, True, False), (100, False, True)] if scale == 0 else [])
    assert ("warning: dynamics: " in capsys.readouterr().err) == (scale == 0)
