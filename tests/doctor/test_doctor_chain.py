"""What the doctor says of artifacts that do not belong together: parents, specs, counts, splits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.artifact import read_header
from ahriuwu_cli.core.content import hash_file
from ahriuwu_cli.core.tensorfile import read_arrays, write_tensors
from ahriuwu_cli.doctor.counts import count_faults
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run

RETRAIN = "make it again with `ahriuwu {} --overwrite`".format


# ---------------------------------------------------------------- the chain


def test_a_foreign_tokenizer(run: Run, doctor: Any, sign: Any) -> None:
    """Latents of another tokenizer: everything downstream names both fingerprints."""
    was = read_header(run.tokenizer, "tokenizer").fingerprint
    now = sign(run.tokenizer, tensors=lambda tensors: next(iter(tensors.values())).add_(0.1)).fingerprint
    problems = doctor(run).problems
    assert [problem.area for problem in problems] == ["latents", "packed", "dynamics", "agent", "imagination"]
    for problem in problems:
        path = getattr(run, problem.area)
        assert problem[1:] == (
            "made from",
            f"{path} was made with tokenizer {was}, but {run.tokenizer} is {now}",
            f"give the tokenizer with fingerprint {was}, or make {path.name} again",
        )


def test_a_parent_that_is_not_named(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "tokenizer")
    sign(run.tokenizer, header=lambda fields: fields["parents"].clear())
    found = f"{run.tokenizer} does not name the episodes it was made from"
    assert doctor(run).problems == [
        ("tokenizer", "made from", found, RETRAIN("tokenizer train")),
        ("tokenizer", "state", "its parents are not those of the weights", "start anew with --overwrite"),
    ]


def test_a_lost_link_in_the_middle_is_a_problem(run: Run, doctor: Any) -> None:
    """What lies before the gap and after it can no longer be shown to belong together."""
    shutil.rmtree(run.packed)
    answer = doctor(run)
    [problem] = answer.problems
    assert problem == (
        "packed",
        "header",
        f"{run.packed} is not here, though dynamics, agent, imagination were made from it: its content cannot be "
        "checked, nor that dynamics, agent, imagination were made from the episodes, tokenizer, latents here",
        "put it back, or make it and what follows again, beginning with `ahriuwu latents pack`",
    )
    assert answer.note("dynamics", "made from").startswith("cannot be compared, not readable here: packed ")


def test_a_lost_beginning_is_a_note(run: Run, doctor: Any) -> None:
    """Stages run where only what they read was copied to."""
    for path in (run.episodes, run.tokenizer.parent, run.latents):
        shutil.rmtree(path)
    answer = doctor(run)
    assert answer.problems == []
    for path in (run.episodes, run.tokenizer, run.latents):
        assert f"{path} is not here, though" in answer.note(path.stem, "header")


def test_other_actions_than_the_data(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 12: the action spec is compared along the road."""
    keep_until(run, "imagination")
    sign(run.imagination, header=lambda fields: fields["specs"]["action"]["components"][0].update(labels=["jump"] * 3))
    run.imagination.with_name("imagination.state.safetensors").unlink()
    [problem] = doctor(run).problems
    assert problem[:2] == ("imagination", "specs")
    assert problem.found.startswith('the action spec is not that of the episodes: {"components":[{"dim":1,')


def test_latents_folded_otherwise(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 11: latents carry their layout."""
    keep_until(run, "packed")
    sign(run.packed, header=lambda fields: fields["specs"]["latent"].update(layout="grid 1x4"))
    [problem] = doctor(run).problems
    assert problem[:2] == ("packed", "specs")
    assert "the latent spec is not that of the latents" in problem.found


# ---------------------------------------------------------------- counts and splits


def entries_of(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[dict[str, Any]], None]:
    return lambda fields: change(fields["info"]["episodes"]) and None


def test_latents_of_too_few_frames(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 13: counts are compared with the source."""
    keep_until(run, "latents")
    path = run.latents / "000003.safetensors"
    short = torch.from_numpy(read_arrays(path)["latents"][:-2].copy())
    write_tensors(path, {"latents": short}, {})
    change = {"num_frames": len(short), "num_latents": len(short), "sha256": hash_file(path)}
    sign(run.latents, header=entries_of(lambda entries: entries[3].update(change)))
    problems = {problem.check: problem.found for problem in doctor(run).problems}
    assert problems.keys() <= {"counts", "statistics"}  # the recorded mean is of two frames more
    assert problems["counts"] == f"episode 000003 has {len(short)} frames, {len(short) + 2} in episodes"


def test_latents_of_too_few_episodes(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "latents")
    heldout = [entry for entry in read_header(run.latents, "latents").info["episodes"] if entry["split"] == "heldout"]
    sign(run.latents, header=entries_of(lambda entries: entries.remove(heldout[0])))
    remedy = "make it again with `ahriuwu latents build`"
    assert doctor(run).problems == [
        ("latents", "counts", f"lacks 1 episode of episodes ({heldout[0]['id']})", remedy),
        ("latents", "split", f"held out in episodes but not here: {heldout[0]['id']}", remedy),
    ]


NUMBERS = st.dictionaries(st.sampled_from(["000000", "000001", "000002", "000003"]), st.integers(2, 4))


@given(NUMBERS, NUMBERS)
def test_counts_agree_only_when_equal(mine: dict[str, int], theirs: dict[str, int]) -> None:
    faults = count_faults(mine, theirs, "episodes")
    assert bool(faults) == (mine != theirs)
    assert all(name in " ".join(faults) for name in sorted(theirs.keys() - mine.keys())[:3])


def test_shards_with_a_gap(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "packed")
    sign(run.packed, header=entries_of(lambda entries: entries[1].update(start=entries[1]["start"] + 1)))
    problem, blocks = doctor(run).problems
    assert problem[:2] == ("packed", "shards") and blocks[:2] == ("packed", "blocks")
    assert "episode 000001 begins at row 22, the one before it ends at 21" in problem.found


def test_an_episode_on_both_sides_of_the_split(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 7: a training episode listed as held out too."""
    keep_until(run, "latents")
    entries = read_header(run.latents, "latents").info["episodes"]
    train = next(entry for entry in entries if entry["split"] == "train")
    sign(run.latents, header=entries_of(lambda listed: listed.append({**train, "split": "heldout"})))
    name = train["id"]
    assert doctor(run).problems == [
        (
            "latents",
            "split",
            f"both in train and heldout: {name}; held out here but not in episodes: {name}",
            "make it again with `ahriuwu latents build`",
        )
    ]


def test_nothing_held_out(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "episodes")
    sign(run.episodes, header=entries_of(lambda entries: [entry.update(split="train") for entry in entries]))
    [problem] = doctor(run).problems
    assert problem[:3] == ("episodes", "split", "no heldout episode")
    assert "ahriuwu data split" in problem.hint


def test_shards_with_nothing_held_out(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 7: the loader that training uses has the last word."""
    keep_until(run, "packed")
    sign(run.packed, header=entries_of(lambda entries: [entry.update(split="train") for entry in entries]))
    windows, split = doctor(run).problems
    assert windows[:3] == ("packed", "windows", f"{run.packed} has no heldout episode")
    assert split[:2] == ("packed", "split")
    assert split.found.startswith("no heldout episode; held out in episodes but not here: ")


def test_a_tokenizer_that_saw_the_held_out_episodes(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 7: held-out episodes sat in the tokenizer's training set."""
    keep_until(run, "tokenizer")
    first, *rest = read_header(run.tokenizer, "tokenizer").info["heldout_episodes"]
    sign(run.tokenizer, header=lambda fields: fields["info"].update(heldout_episodes=rest))
    assert doctor(run).problems == [
        ("tokenizer", "split", f"held out in episodes but not here: {first}", RETRAIN("tokenizer train"))
    ]


def test_a_split_that_was_changed_afterwards(run: Run, doctor: Any, with_settings: Any) -> None:
    """Pitfall 7: `data split` after training; every stage says so."""
    before = set(read_header(run.tokenizer, "tokenizer").info["heldout_episodes"])
    for seed in range(1, 20):
        run = with_settings(run, f"run.seed={seed}")
        stages.split(run)
        entries = read_header(run.episodes, "episodes").info["episodes"]
        if {entry["id"] for entry in entries if entry["split"] == "heldout"} != before:
            break
    answer = doctor(run)
    split = [problem.area for problem in answer.problems if problem.check == "split"]
    chain = [problem.area for problem in answer.problems if problem.check == "made from"]
    assert split == ["tokenizer", "latents", "packed"]
    assert chain == ["tokenizer", "latents", "packed", "dynamics", "agent", "imagination"]


def test_the_same_play_in_train_and_heldout(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    """Pitfall 7: a copy of a training episode is no held-out episode."""
    keep_until(run, "episodes")
    entries = read_header(run.episodes, "episodes").info["episodes"]
    train, held = (next(entry for entry in entries if entry["split"] == split) for split in ("train", "heldout"))
    shutil.copy(run.episodes / train["file"], run.episodes / held["file"])

    def copy(listed: list[dict[str, Any]]) -> None:
        [entry] = [entry for entry in listed if entry["id"] == held["id"]]
        entry |= {name: train[name] for name in ("num_steps", "total_reward", "sha256")}

    sign(run.episodes, header=entries_of(copy))
    [problem] = doctor(run).problems
    assert problem[:3] == ("episodes", "leaks", "1 play both in train and heldout, frame by frame")


def test_an_action_outside_its_range(run: Run, doctor: Any, sign: Any, keep_until: Any) -> None:
    keep_until(run, "episodes")
    path = run.episodes / "000000.safetensors"
    arrays = read_arrays(path)
    arrays["actions"][4] = 9
    write_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, {})
    sign(run.episodes, header=entries_of(lambda entries: entries[0].update(sha256=hash_file(path))))
    [problem] = doctor(run).problems
    assert problem[:2] == ("episodes", "files")
    assert problem.found.startswith("000000.safetensors: the episode with seed ")
    assert "9" in problem.found
