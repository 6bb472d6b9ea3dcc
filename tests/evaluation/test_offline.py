"""`eval offline`: likelihood of held-out actions, and returns in one dream, of agents and of guesses."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.agent.distribution import ActionChoices
from ahriuwu_cli.core.artifact import read_header, read_weights, write_weights
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.evaluation import likelihood as reading
from ahriuwu_cli.evaluation.acting import Guess, Look, Reader, load_reader
from ahriuwu_cli.evaluation.imagined import Scene, imagined_returns
from ahriuwu_cli.evaluation.likelihood import Likelihood, cut_episodes, likelihood
from ahriuwu_cli.evaluation.seal import seal_fault
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.pipeline.config import Run, load_run

RUNTIME = Runtime(torch.device("cpu"), "fp32")
SURE = 50.0
"""A logit beside which others have no chance."""


@pytest.fixture(scope="module")
def run(road) -> Run:
    overrides = ["eval.contexts=3", "eval.context_length=4", "eval.horizon=4", "dynamics.sampler.context_length=4"]
    return load_run(road.folder / "run.toml", [*overrides, "imagine.context_length=4"])


@pytest.fixture(scope="module")
def heldout(run) -> LatentWindows:
    return LatentWindows(run.packed, "heldout")


@pytest.fixture(scope="module")
def bc(run) -> Reader:
    return load_reader(run.agent, RUNTIME)


@pytest.fixture
def scene(bc, heldout, run) -> Scene:
    return Scene.draw(bc, heldout, run.config.eval, 0, uses_ends=True)


class Copies:
    """Is sure of the action that led to what it sees: never right where the action changes."""

    def __init__(self, choices: ActionChoices) -> None:
        self.choices, self.seen = choices, 0

    def begin(self, task: torch.Tensor, seed: int) -> Look:
        del seed

        def look(latents, action, action_valid):
            del action_valid
            self.seen += 1
            assert len(latents) == len(task)
            return SURE * torch.nn.functional.one_hot(action[..., 0].long(), self.choices.num_logits).float()

        return look


def judged(actor, heldout: LatentWindows, context_length: int = 4) -> Likelihood:
    return likelihood(actor, heldout, context_length, RUNTIME, seed=0, name="x")


def recorded(heldout: LatentWindows) -> list[np.ndarray]:
    """By episode, the actions (T,) taken on seeing its frames 0 to T - 1; all are known here."""
    lengths = [episode.num_latents for episode in heldout.episodes]
    rows = [heldout.read([(index, 0)], length) for index, length in enumerate(lengths)]
    return [row.action[0, 1:, 0].numpy() for row in rows]


# ---------------------------------------------------------------- likelihood


@given(
    lengths=st.lists(st.integers(1, 3 * reading.PIECE), min_size=1, max_size=4),
    context_length=st.integers(1, 2 * reading.PIECE),
)
def test_every_latent_is_judged_once_and_has_its_past(lengths: list[int], context_length: int) -> None:
    seen = [np.zeros(length, int) for length in lengths]
    for piece in cut_episodes(lengths, context_length):
        seen[piece.episode][piece.judged : piece.stop] += 1
        assert piece.judged - piece.start == min(context_length, piece.judged)
    assert all((counts == 1).all() for counts in seen)


def test_a_uniform_guess_finds_every_action_as_likely(bc, heldout) -> None:
    found = judged(Guess(bc.choices, torch.zeros(bc.choices.num_logits)), heldout)
    actions = recorded(heldout)
    assert found.steps.tolist() == [len(taken) for taken in actions]
    assert found.nats == pytest.approx(found.steps * math.log(3))
    assert found.changes.tolist() == [int((np.diff(taken) != 0).sum()) for taken in actions]


def test_who_repeats_is_right_but_where_the_action_changes(bc, heldout) -> None:
    """What is judged is the action taken on seeing a frame, not the one that led to it."""
    found, actions = judged(Copies(bc.choices), heldout), recorded(heldout)
    assert found.right_at_changes.tolist() == [0] * len(actions)
    led = [np.append(0, taken[:-1]) for taken in actions]  # nothing led to the first frame: all zero
    assert found.right.tolist() == [(a == b).sum() for a, b in zip(actions, led, strict=True)]
    wrong = found.steps - found.right
    assert found.nats == pytest.approx(SURE * wrong, abs=1e-3)


def test_pieces_change_nothing_for_who_looks_back_one_step(bc, heldout, monkeypatch) -> None:
    whole = judged(Copies(bc.choices), heldout)
    monkeypatch.setattr(reading, "PIECE", 5)
    monkeypatch.setattr(reading, "ROWS", 3)
    parts = judged(Copies(bc.choices), heldout, context_length=1)
    for name, sums in vars(whole).items():
        assert getattr(parts, name) == pytest.approx(sums), name


def test_an_agent_is_as_it_was_trained(bc, heldout) -> None:
    """Weights of a policy that is sure of one action are what is judged, in every step."""
    head = bc.agent.model.policy.net.out
    before = head.weight.clone(), head.bias.clone()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[1] = SURE  # distance 0, class 1
    try:
        found = judged(bc, heldout)
    finally:
        with torch.no_grad():
            head.weight.copy_(before[0])
            head.bias.copy_(before[1])
    assert found.right.tolist() == [(taken == 1).sum() for taken in recorded(heldout)]


# ---------------------------------------------------------------- dreams


def test_returns_depend_on_what_is_done_and_on_nothing_else(scene, bc) -> None:
    """Whoever does the same has the same dream to the bit, however much noise it draws for itself."""
    always = torch.tensor([SURE, 0.0, 0.0])

    class Restless(Guess):
        def begin(self, task, seed):
            torch.randn(7)
            return super().begin(task, seed + 1)

    guess = imagined_returns(scene, Guess(bc.choices, always), RUNTIME)
    assert (imagined_returns(scene, Restless(bc.choices, always), RUNTIME) == guess).all()
    other = imagined_returns(scene, Guess(bc.choices, always.flip(0)), RUNTIME)
    assert (other != guess).any()
    script = replace(scene, batch=replace(scene.batch, action=torch.zeros_like(scene.batch.action)))
    context = scene.settings.context_length
    script.batch.action[:, :context] = scene.batch.action[:, :context]
    assert (imagined_returns(script, None, RUNTIME) == guess).all()


def test_rewards_count_until_the_end(scene, bc, monkeypatch) -> None:
    monkeypatch.setattr(type(bc.agent.model), "reward_now", lambda self, agent: torch.ones(agent.shape[:-1]))
    for odds, expected in ((1.0, 4.0), (0.5, 1.875), (0.0, 1.0)):
        monkeypatch.setattr(
            type(bc.agent.model), "alive_now", lambda self, agent, odds=odds: torch.full(agent.shape[:-1], odds)
        )
        assert imagined_returns(scene, bc, RUNTIME) == pytest.approx([expected] * 3)
    assert imagined_returns(replace(scene, uses_ends=False), bc, RUNTIME) == pytest.approx([4.0] * 3)


def test_contexts_are_those_of_the_rollout(scene, heldout, run) -> None:
    wanted = heldout.sampler.draw_whole(np.random.default_rng(0), 3, 8)
    assert scene.episodes.tolist() == [place.episode for place in wanted]
    assert torch.equal(scene.batch.latents, heldout.read(wanted, 8).latents)
    assert scene.recorded_return == pytest.approx(float(scene.batch.reward[:, 4:].sum(dim=1).mean()))


# ---------------------------------------------------------------- the command


def test_the_table_is_what_the_file_says(ahriuwu, run_dir) -> None:
    scratch = run_dir / "scratch" / "agent.safetensors"
    assert ahriuwu("agent", "finetune", "--from-scratch", "-c", run_dir / "run.toml").code == 0
    outcome = ahriuwu("eval", "offline", "-c", run_dir / "run.toml", "--json")
    assert outcome.code == 0, outcome.err
    facts = json.loads((run_dir / "evaluation" / "offline" / "offline.json").read_text())
    assert facts == outcome.data
    assert seal_fault(facts) is None
    assert list(facts["agents"]) == ["uniform", "frequencies", "scratch", "bc", "imagination", "recorded play"]
    assert facts["agents"]["uniform"]["nats_per_step"]["mean"] == pytest.approx(math.log(3))
    assert facts["agents"]["uniform"]["right_at_changes"] == pytest.approx(1 / 3)
    assert facts["agents"]["bc"]["minus_cloned"] is None
    gained = facts["agents"]["imagination"]["minus_cloned"]["mean"]
    means = {name: agent["imagined_return"]["mean"] for name, agent in facts["agents"].items()}
    assert gained == pytest.approx(means["imagination"] - means["bc"])
    assert facts["fingerprints"]["scratch"] == read_header(scratch, "agent").fingerprint
    assert facts["dream"]["world"] == "bc"
    assert ahriuwu("eval", "offline", "-c", run_dir / "run.toml", "--json").data == facts


def test_an_untouched_policy_gains_nothing(ahriuwu, run_dir) -> None:
    """Pitfall 17 in the dream: imagination with the cloned agent's own policy comes to the same return exactly."""
    path, cloned = run_dir / "imagination" / "imagination.safetensors", run_dir / "agent" / "agent.safetensors"
    header, tensors = read_weights(path, "imagination")
    _, own = read_weights(cloned, "agent")
    tensors |= {f"agent.{name}": value for name, value in own.items() if name.startswith("policy.")}
    write_weights(path, "imagination", tensors, config=header.config, specs=header.specs, parents=header.parents)
    facts = ahriuwu("eval", "offline", "-c", run_dir / "run.toml", "--json").data
    assert facts["agents"]["imagination"]["minus_cloned"] == {"mean": 0, "low": None, "high": None}
    assert facts["agents"]["imagination"]["nats_per_step"] == facts["agents"]["bc"]["nats_per_step"]


def test_without_a_world_nothing_is_dreamed(ahriuwu, run_dir) -> None:
    assert ahriuwu("agent", "finetune", "--from-scratch", "-c", run_dir / "run.toml").code == 0
    for kind in ("agent", "imagination"):
        shutil.rmtree(run_dir / kind)
    outcome = ahriuwu("eval", "offline", "-c", run_dir / "run.toml")
    assert outcome.code == 0, outcome.err
    assert "no agent has a world model" in outcome.out
    assert [line.split()[0] for line in outcome.out.splitlines()[3:6]] == ["uniform", "frequencies", "scratch"]


def test_no_agent_is_an_error(ahriuwu, run_dir, refused) -> None:
    for kind in ("agent", "imagination"):
        shutil.rmtree(run_dir / kind)
    error, hint = refused(2, "eval", "offline", "-c", run_dir / "run.toml")
    assert "no agent is there" in error
    assert "agent finetune" in hint


def test_a_context_beyond_the_model_is_refused(run_dir, refused) -> None:
    more = ("-s", "eval.context_length=5", "-s", "dynamics.sampler.context_length=5")
    error, _ = refused(2, "eval", "offline", "-c", run_dir / "run.toml", *more)
    assert "attends to 4" in error
