"""Pitfalls 44 and 45: whatever a file holds, its reader answers with one house error or with what was written.

Every kind of file with bytes flipped, cut and added; every header with values of other types and sizes, sealed anew.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ahriuwu_cli.agent.checkpoint import load_agent
from ahriuwu_cli.core.artifact import METADATA_KEY, Kind, fingerprint_of, hash_tensors, read_header
from ahriuwu_cli.core.bounds import parse_object
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError
from ahriuwu_cli.core.tensorfile import metadata_of, read_tensors
from ahriuwu_cli.core.training.state import Session, load_state
from ahriuwu_cli.dynamics.checkpoint import load_world
from ahriuwu_cli.dynamics.train import DynamicsStage
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.imagination.model import load_imagination
from ahriuwu_cli.latents.pack import pack_latents
from ahriuwu_cli.latents.windows import LatentWindows
from ahriuwu_cli.pipeline.config import Run, load_run
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer

resource = pytest.importorskip("resource", reason="POSIX")
CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, "fp32")


@dataclass(frozen=True)
class Place:
    """A run to damage, and what reads each of its files."""

    run: Run

    def read(self, kind: str) -> None:
        run = self.run
        if kind == "tokenizer":
            load_tokenizer(run.tokenizer, CPU)
        elif kind == "dynamics":
            load_world(run.dynamics, CPU)
        elif kind == "agent":
            _ = load_agent(run.agent, CPU).tasks
        elif kind == "imagination":
            load_imagination(run.imagination, CPU)
            load_agent(run.imagination, CPU)
        elif kind == "state":
            section = run.config.dynamics
            stage = DynamicsStage(section, run.packed, RUNTIME, run.config.run.seed)
            load_state(self.path("state"), Session(stage, section.train, RUNTIME, run.config.run.seed))
        elif kind == "episodes":
            store = EpisodeStore.open(run.episodes)
            for record in store.episodes:
                store.read(record.id)
        elif kind == "latents":
            pack_latents(run.episodes, run.latents, run.folder / "packed_anew", run.config.latents)
        else:
            for split in ("train", "heldout"):
                windows = LatentWindows(run.packed, split)  # type: ignore[arg-type]
                for index, episode in enumerate(windows.episodes):
                    windows.read([(index, 0)], episode.num_latents)

    def path(self, kind: str) -> Path:
        if kind == "state":
            return self.run.dynamics.with_name("dynamics.state.safetensors")
        path: Path = getattr(self.run, kind)
        return path / "manifest.json" if path.is_dir() else path


KINDS = ("episodes", "tokenizer", "latents", "packed", "dynamics", "state", "agent", "imagination")


@pytest.fixture(scope="module")
def place(road, tmp_path_factory: pytest.TempPathFactory) -> Place:
    from minuscule_run import MINUSCULE

    folder = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(road.folder, folder)
    found = Place(load_run(folder / "run.toml", MINUSCULE))
    for kind in KINDS:
        found.read(kind)
    return found


def fuzz(examples: int) -> Any:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, suppress_health_check=checks, derandomize=True)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("kind", KINDS)
@fuzz(15)
@given(data=st.data())
def test_damaged_bytes_are_one_house_error(place: Place, kind: str, data: st.DataObject) -> None:
    path = place.path(kind)
    whole = path.read_bytes()
    length = len(whole)
    head = st.one_of(st.integers(0, min(length - 1, 400)), st.integers(0, length - 1))
    where = data.draw(head)
    how = data.draw(st.sampled_from(["flip", "cut", "add", "zeros", "length"]))
    bit = 1 << data.draw(st.integers(0, 7))
    damaged = {
        "flip": lambda: whole[:where] + bytes([whole[where] ^ bit]) + whole[where + 1 :],
        "cut": lambda: whole[:where],
        "add": lambda: whole[:where] + b"\x00\xff" + whole[where:],
        "zeros": lambda: whole[:where] + bytes(length - where),
        "length": lambda: (1 << data.draw(st.integers(0, 63))).to_bytes(8, "little") + whole[8:],
    }[how]()
    try:
        path.write_bytes(damaged)
        _read_or_refuse(place, kind)
    finally:
        path.write_bytes(whole)


# ---------------------------------------------------------------- headers, sealed anew

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**70), 10**400, 0.5, -1e308, 1e-320, 8192]),
    st.text(max_size=6),
    st.sampled_from(["../../x", "\ud800", "NaN", "a" * 2000]),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.text(max_size=4), SCALARS, max_size=3),
    st.builds(lambda depth: json.loads("[" * depth + "]" * depth), st.sampled_from([3, 40, 500])),
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a header below its top keys, at most three entries of a list."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:3] if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


def changed(fields: dict[str, Any], path: tuple[Any, ...], how: str, value: Any) -> dict[str, Any]:
    fields = copy.deepcopy(fields)
    holder: Any = fields
    for key in path[:-1]:
        holder = holder[key]
    if how == "remove":
        del holder[path[-1]]
    elif how == "add" and isinstance(holder, dict):
        holder["unheard_of"] = value
    else:
        holder[path[-1]] = value
    return fields


def seal(path: Path, fields: dict[str, Any]) -> None:
    """Write a header with the fingerprint of what it says, as far as it has one, past all checks of our writer."""
    parts = [fields.get(name) for name in ("kind", "config", "specs", "parents", "info")]
    if path.suffix == ".json":
        fields = {**fields, "fingerprint": _fingerprint(parts, "")}
        path.write_text(json.dumps(fields), encoding="utf-8")
        return
    tensors = read_tensors(path)
    fields = {**fields, "fingerprint": _fingerprint(parts, hash_tensors(tensors))}
    save_file(tensors, str(path), metadata={METADATA_KEY: json.dumps(fields)})


def _fingerprint(parts: list[Any], body: str) -> str:
    try:
        return fingerprint_of(*parts, body)
    except (AttributeError, RecursionError, TypeError):
        return "0" * 16


@pytest.mark.parametrize("kind", KINDS)
@fuzz(30)
@given(data=st.data())
def test_headers_that_make_no_sense_are_one_house_error(place: Place, kind: str, data: st.DataObject) -> None:
    path = place.path(kind)
    whole = path.read_bytes()
    text = path.read_text() if path.suffix == ".json" else metadata_of(path)[METADATA_KEY]
    fields = json.loads(text)
    where = data.draw(st.sampled_from(sorted(paths_of(fields), key=str)))
    how = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        seal(path, changed(fields, where, how, data.draw(VALUES)))
        _read_or_refuse(place, kind)
    finally:
        path.write_bytes(whole)
        shutil.rmtree(place.run.folder / "packed_anew", ignore_errors=True)
    if sys.platform == "linux":  # elsewhere in other units
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024, "little memory was taken"


def _read_or_refuse(place: Place, kind: str) -> None:
    try:
        place.read(kind)
    except AhriuwuError as error:
        assert error.message
        assert error.hint
        f"{error.message} {error.hint}".encode()  # can be printed


@pytest.mark.parametrize(
    "text", ['{"a":' + "[" * 100_000 + "]" * 100_000 + "}", '{"a":' * 40 + "1" + "}" * 40, '{"a": NaN}', '{"a": 1e999}',
             '{"a": ' + "9" * 5000 + "}", '{"a": 9223372036854775808}', "[1]", "", '{"a": "\\ud800"}']
)  # fmt: skip
def test_json_beyond_the_bounds_is_refused(text: str) -> None:
    if text == '{"a": 1e999}':  # infinite, as JSON has it: for the types to refuse
        assert parse_object(Path("x"), text) == {"a": float("inf")}
        return
    with pytest.raises(ArtifactError, match="x cannot be read: "):
        parse_object(Path("x"), text)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("dynamics", lambda config: config["model"].update(dim=8192, num_layers=256, num_heads=64)),
        ("agent", lambda config: config["dynamics"]["model"].update(dim=8192, num_layers=256, num_heads=64)),
        ("imagination", lambda config: config["agent"]["heads"].update(dim_hidden=8192, num_hidden=8)),
        ("tokenizer", lambda config: config["model"].update(base_channels=1024, blocks_per_stage=8)),
    ],
)
def test_a_config_larger_than_its_file_takes_no_memory(
    place: Place, kind: Kind, change: Callable[[dict[str, Any]], object]
) -> None:
    """256 layers of 8192 in a file of 200 KB took 9.4 GB before they were refused."""
    path = place.path(kind)
    whole = path.read_bytes()
    fields = json.loads(metadata_of(path)[METADATA_KEY])
    change(fields["config"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        seal(path, fields)
        read_header(path, kind)
        with pytest.raises(ArtifactError, match="does not fit the model its own config describes"):
            place.read(kind)
    finally:
        path.write_bytes(whole)
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_weights_that_are_no_numbers_are_refused_where_they_are_read(place: Place, ahriuwu: Any) -> None:
    """Pitfall 15: dynamics of NaN gave "PSNR 10.75" and exit code 0."""
    path = place.path("dynamics")
    whole = path.read_bytes()
    fields = json.loads(metadata_of(path)[METADATA_KEY])
    tensors = read_tensors(path)
    tensors["slot"][0, 0] = float("nan")
    save_file(tensors, str(path), metadata={METADATA_KEY: json.dumps(fields)})
    try:
        seal(path, fields)
        outcome = ahriuwu("eval", "rollout", "-c", place.run.folder / "run.toml")
    finally:
        path.write_bytes(whole)
    assert outcome.code == 3
    assert "holds numbers that are not finite in slot" in outcome.err
