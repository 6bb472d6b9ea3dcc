"""Artifacts: round trips, and refusal of everything that is not what it says it is."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ahriuwu_cli.core import artifact, provenance
from ahriuwu_cli.core.artifact import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    METADATA_KEY,
    check_fingerprint,
    hash_tensors,
    read_header,
    read_weights,
    write_manifest,
    write_weights,
)
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError, InputError
from ahriuwu_cli.core.files import write_atomically, write_json
from ahriuwu_cli.core.lineage import require_parent
from ahriuwu_cli.core.loading import load_strictly
from ahriuwu_cli.core.tensorfile import read_arrays, read_tensors

FIELDS = {
    "config": {"model": {"dim": 8, "rates": [0.1, 1e-30, 1e22], "name": "größe"}},
    "specs": {"frame": {"height": 32, "width": 32, "fps": 10.0}},
    "parents": {"latents": "aaaaaaaaaaaaaaaa"},
}


def write(path, tensors=None, kind="dynamics", **changes):
    tensors = {"w": torch.arange(6.0).reshape(2, 3)} if tensors is None else tensors
    return write_weights(path, kind, tensors, **{**FIELDS, "info": {"steps": 3}, **changes})


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).tolist()


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    fill=st.sampled_from([None, float("nan"), float("inf"), -0.0]),
)
def test_round_trip_is_bit_equal(tmp_path_factory, shapes, dtype, seed, fill):
    """Pitfall 1: what is read is what was written, whatever shape, type or value."""
    path = tmp_path_factory.mktemp("trip") / "dynamics.safetensors"
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"t{i}": (4 * torch.randn(shape, generator=generator)).to(dtype) for i, shape in enumerate(shapes)}
    if fill is not None and dtype.is_floating_point:
        tensors = {name: torch.full_like(tensor, fill) for name, tensor in tensors.items()}
    written = write(path, tensors)
    header, found = read_header(path, "dynamics"), read_tensors(path)
    assert header == written
    check_fingerprint(path, header, hash_tensors(found))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (dtype, tensor.shape)
        assert bits(found[name]) == bits(tensor)


def test_model_outputs_are_bit_equal_after_a_round_trip(tmp_path):
    """Pitfall 1: save -> load gives bit-equal outputs."""

    def build():
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.GELU(), nn.Linear(7, 2))

    model, x = build(), torch.randn(9, 5)
    model(x)  # moves the running statistics
    path = tmp_path / "dynamics.safetensors"
    write(path, model.state_dict())
    again = build()
    load_strictly(again, read_weights(path, "dynamics")[1], path)
    assert torch.equal(model.eval()(x), again.eval()(x))


def test_shared_and_strided_tensors_are_stored_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": base, "b": base, "columns": base[:, 1:3], "turned": base.T}
    write(tmp_path / "x.safetensors", tensors)
    found = read_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert np.array_equal(read_arrays(tmp_path / "x.safetensors")["turned"], base.T.numpy())


def test_equal_content_has_an_equal_fingerprint_and_any_change_another(tmp_path):
    first = write(tmp_path / "a.safetensors").fingerprint
    assert write(tmp_path / "b.safetensors").fingerprint == first
    w = torch.arange(6.0).reshape(2, 3)
    others = [
        write(tmp_path / "c", {"w": w + torch.eye(2, 3) * 1e-6}),
        write(tmp_path / "c", {"v": w}),
        write(tmp_path / "c", {"w": w.reshape(3, 2)}),
        write(tmp_path / "c", {"w": w.view(torch.int32)}),
        write(tmp_path / "c", kind="agent"),
        write(tmp_path / "c", config={}),
        write(tmp_path / "c", specs={}),
        write(tmp_path / "c", parents={}),
        write(tmp_path / "c", info={"steps": 4}),
    ]
    assert len({header.fingerprint for header in others} | {first}) == 10


def test_the_date_is_not_part_of_the_fingerprint(tmp_path, monkeypatch):
    first = write(tmp_path / "a")
    monkeypatch.setattr(
        artifact, "provenance", lambda: first.provenance.model_copy(update={"date": "then", "torch": "2"})
    )
    second = write(tmp_path / "b")
    assert second.provenance != first.provenance
    assert second.fingerprint == first.fingerprint


def test_integer_keys_do_not_change_the_fingerprint_on_reading(tmp_path):
    write(tmp_path / "a", config={"heads": {9: 1, 10: 2}, "pair": (1, 2)})
    header, _ = read_weights(tmp_path / "a", "dynamics")
    assert header.config == {"heads": {"9": 1, "10": 2}, "pair": [1, 2]}


def test_a_header_that_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a", info={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_provenance_says_what_wrote_it(tmp_path):
    found = write(tmp_path / "a").provenance
    assert found.torch == torch.__version__ or torch.__version__.startswith(found.torch)
    assert found.version


def test_a_checkout_without_git_still_writes(tmp_path, monkeypatch):
    def absent(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", absent)
    assert write(tmp_path / "a").provenance.git_commit is None


# ---------------------------------------------------------------- refusals


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="does not exist; expected a dynamics artifact") as caught:
        read_header(tmp_path / "none.safetensors", "dynamics")
    assert "ahriuwu dynamics train" in caught.value.hint
    assert caught.value.exit_code == 2


def test_another_kind_is_refused(tmp_path):
    write(tmp_path / "a.safetensors", kind="agent")
    with pytest.raises(ArtifactError, match="is an agent artifact; expected a tokenizer artifact") as caught:
        read_weights(tmp_path / "a.safetensors", "tokenizer")
    assert "ahriuwu tokenizer train" in caught.value.hint
    assert caught.value.exit_code == 3
    assert read_header(tmp_path / "a.safetensors", ("imagination", "agent")).kind == "agent"


def test_every_truncation_is_refused(tmp_path):
    """Pitfall 21: a file cut short at any byte is one clear error."""
    path = tmp_path / "dynamics.safetensors"
    write(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_weights(path, "dynamics")


def test_every_changed_byte_is_refused(tmp_path):
    """Pitfalls 1 and 21: a flipped bit anywhere that matters is found; only provenance may differ unseen."""
    path = tmp_path / "dynamics.safetensors"
    written = write(path)
    whole = path.read_bytes()
    unseen = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            header, tensors = read_weights(path, "dynamics")
        except AhriuwuError as error:
            assert error.hint
            continue
        unseen += 1
        assert header.model_copy(update={"provenance": written.provenance}) == written
        assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3))
    provenance = len(written.provenance.model_dump_json())
    assert unseen < provenance


def test_an_exchanged_tensor_is_refused_with_both_fingerprints(tmp_path):
    path = tmp_path / "dynamics.safetensors"
    written = write(path)
    with safe_open(str(path), framework="pt") as handle:
        metadata = handle.metadata()
    save_file({"w": torch.zeros(2, 3)}, str(path), metadata=metadata)
    with pytest.raises(ArtifactError, match=f"says fingerprint {written.fingerprint} but its content has [0-9a-f]"):
        read_weights(path, "dynamics")


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "dynamics.safetensors"
    raw = json.loads(write(path).model_dump_json())
    raw |= {"format_version": FORMAT_VERSION + 1, "unheard_of": 1}
    save_file({"w": torch.zeros(1)}, str(path), metadata={METADATA_KEY: json.dumps(raw)})
    with pytest.raises(
        ArtifactError, match=f"was written by a later version: its format is {FORMAT_VERSION + 1}"
    ) as caught:
        read_header(path, "dynamics")
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "{}", "{", '{"format_version": 1}'])
def test_metadata_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "dynamics.safetensors"
    save_file({"w": torch.zeros(1)}, str(path), metadata={METADATA_KEY: text})
    with pytest.raises(ArtifactError):
        read_header(path, "dynamics")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "dynamics.safetensors"
    save_file({"w": torch.zeros(1)}, str(path))
    with pytest.raises(ArtifactError, match="without ahriuwu metadata"):
        read_header(path, "dynamics")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_load_strictly(tmp_path, change):
    """Pitfall 1: strict load only: a name too few, one too many or another shape is refused."""
    model = nn.Linear(2, 3)
    tensors = dict(model.state_dict())
    if change == "missing":
        del tensors["bias"]
    elif change == "extra":
        tensors["gain"] = torch.zeros(3)
    else:
        tensors["bias"] = torch.zeros(4)
    before = model.bias.detach().clone()
    with pytest.raises(ArtifactError, match="gain" if change == "extra" else "bias"):
        load_strictly(model, tensors, tmp_path / "x.safetensors")
    assert torch.equal(before, model.bias)


def test_another_parent_is_refused_naming_both_fingerprints(tmp_path):
    right = write(tmp_path / "latents", kind="latents")
    wrong = write(tmp_path / "others", kind="latents", info={"steps": 9})
    child = write(tmp_path / "dynamics.safetensors", parents={"latents": right.fingerprint})
    require_parent(tmp_path / "dynamics.safetensors", child, tmp_path / "latents", right)
    with pytest.raises(ArtifactError) as caught:
        require_parent(tmp_path / "dynamics.safetensors", child, tmp_path / "others", wrong)
    assert right.fingerprint in caught.value.message
    assert wrong.fingerprint in caught.value.message
    assert right.fingerprint in caught.value.hint


# ---------------------------------------------------------------- manifests and writing


def test_a_manifest_folder_reads_back(tmp_path):
    written = write_manifest(tmp_path / "episodes", "episodes", **FIELDS, info={"files": {"000000": "ab"}})
    assert read_header(tmp_path / "episodes", "episodes") == written
    with pytest.raises(ArtifactError, match=f"has no {MANIFEST_NAME}"):
        read_header(tmp_path, "episodes")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_header(tmp_path, "episodes")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """Pitfall 21: writes are atomic."""
    path = tmp_path / "sub" / "x.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_others_may_read_what_was_written(tmp_path):
    write_json(tmp_path / "x.json", [])
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644
