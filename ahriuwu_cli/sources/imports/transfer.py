"""`ahriuwu data import`: recordings become episodes, each on disk as soon as it is read; what is defective is left out.

An import is a transaction that can be gone on with: every episode says which recording's bytes it was made of, so that
importing again adds what is missing and nothing twice, whatever ended the import before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ahriuwu_cli.core.artifact import MANIFEST_NAME
from ahriuwu_cli.core.content import content_hash
from ahriuwu_cli.core.errors import AhriuwuError, ArtifactError, DataError, InputError, TrainingInterrupted
from ahriuwu_cli.core.lock import contents, exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.manifest import Origin, SplitRule
from ahriuwu_cli.episodes.recording import Recording
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.foreign import Foreign
from ahriuwu_cli.sources.game import differences
from ahriuwu_cli.sources.imports.clock import usual_interval
from ahriuwu_cli.sources.imports.episodes import WHOLE, Cutter, shares_of
from ahriuwu_cli.sources.imports.mapping import read_mapping
from ahriuwu_cli.sources.imports.outcome import Tally, outcome
from ahriuwu_cli.sources.imports.protocol import Found, Importer, Recorded, RecordingError, Source
from ahriuwu_cli.sources.imports.registry import AUTO, detected, importer
from ahriuwu_cli.sources.lag.applying import imported_lag
from ahriuwu_cli.sources.lookalikes import Lookalikes

NOT_KEPT: Any = {"num_envs": True, "source": {"path", "check_lag"}}
"""Of the settings, what does not go into the store: where somebody's recordings lie is nobody else's business."""
Progress = Callable[[int, str], None]  # (recordings done, what else)


def import_source(folder: Path, data: DataSection, seed: int, progress: Progress | None = None) -> Report:
    """Import the recordings that `data.source` names into the store at `folder`, making it if need be.

    Recordings that are there are passed over; defective ones are left out and counted in the report's `defects`.

    Args:
        folder: the store.
        data: size, fps, crop, task, split and storage of the episodes, and the source.
        seed: of the split of a new store.
        progress: called before every recording.

    Raises:
        BusyError: another process is writing to the store.
        InputError: the source cannot be used, or the store is of something else. Nothing on disk has changed then.
        DataError: not one recording could be imported.
        StorageError: an episode cannot be written; those before it are stored.
        TrainingInterrupted: Ctrl-C or SIGTERM; those before it are stored.
    """
    settings = data.source
    if not settings.path:
        raise InputError(
            "no source is named", hint="give it: `ahriuwu data import KIND SOURCE`, or set data.source.path"
        )
    path = Path(settings.path)
    if not path.exists():
        raise InputError(f"{path} is not there", hint="give the folder or file of the recordings")
    kind, seen = _kind(settings, path)
    named = settings.kind if ":" in settings.kind else kind.KIND
    settings = settings.model_copy(update={"kind": named, "mapping": read_mapping(settings.mapping)})
    data = data.model_copy(update={"source": settings})
    with Foreign(named, "open_source"):
        source = kind.open_source(path, settings.options | ({"mapping": settings.mapping} if settings.mapping else {}))
    if not source.recordings and not source.defects:
        raise InputError(f"{path} has no {kind.KIND} recording", hint=f"{kind.KIND}: {kind.SAYS}")
    data, remark = _with_game(data, source.action)
    with exclusive(folder):
        store = _opened(folder)
        work = _Import(folder, store, data, seed, source)
        tally = work.run(progress)
        assert work.store is not None
        notes = [f"{path}: {seen}", *remark, *source.notes, *tally.notes]
        report = outcome(work.store, notes, tally, source, work.lookalikes)
    return _with_lag(report, work.store, seed) if tally.episodes and settings.check_lag else report


@dataclass
class _There:
    """What the store has of one recording.

    Attributes:
        group: the number of the recording, or of the first of its groups.
        pieces: numbers of the pieces that are stored.
        count: of all pieces it was cut into; 0 where none is stored.
    """

    group: int
    pieces: set[int] = field(default_factory=set)
    count: int = 0


class _Import:
    """One run of the command.

    Attributes:
        store: the store, None until an episode was stored.
        tally: what was done.
        lookalikes: what the episodes that were stored look like.
    """

    def __init__(self, folder: Path, store: EpisodeStore | None, data: DataSection, seed: int, source: Source) -> None:
        self.store, self.tally, self.lookalikes = store, Tally(), Lookalikes()
        self._folder, self._data, self._seed, self._source = folder, data, seed, source
        self._kind = data.source.kind
        self._recording: Recording | None = None
        self._next_id = 0
        if store is not None:
            _require_fitting(store, data, source.action)
        self._there = {} if store is None else _present(store)
        self._free = 0 if store is None else 1 + max((record.number for record in store.episodes), default=-1)

    def run(self, progress: Progress | None) -> Tally:
        for defect in self._source.defects:
            self.tally.defect(defect.file, defect)
        found = self._source.recordings
        try:
            for number, each in enumerate(found):
                if progress is not None:
                    progress(number, f"{self.tally.episodes} episodes, {len(self.tally.defects)} defects")
                self._take(each)
            self._close()
        except KeyboardInterrupt:
            self._close()
            raise TrainingInterrupted(f"import stopped: {self._kept()}", hint="the same command goes on") from None
        except AhriuwuError as error:
            with suppress(OSError, AhriuwuError):  # the journal has it; the next command lists it
                self._close()
            error.message = f"{error.message}; {self._kept()}"
            raise
        if self.store is None:
            first = self.tally.defects[0]
            where = first["file"] if first["row"] is None else f"{first['file']}, row {first['row']}"
            raise DataError(
                f"none of {len(self.tally.defects)} recordings could be imported; {where}: {first['reason']}",
                hint="look at the kind, its options and the mapping; `--json` lists all",
            )
        return self.tally

    def _take(self, found: Found) -> None:
        """Import one recording, or note why not."""
        try:
            _require_text(found.name)
            content = _content(found)
            there = self._there.get(content)
            if there is not None and len(there.pieces) == there.count:
                self.tally.present += 1
                return
            with Foreign(self._kind, f"opening {found.name}"):
                recorded = found.open()
        except DataError as error:
            self.tally.defect(found.name, error)
            return
        try:
            with Foreign(self._kind, f"reading {found.name}"):
                self._store_pieces(found, content, recorded)
            self.tally.imported += 1
        except DataError as error:
            self.tally.defect(found.name, error)
        finally:
            recorded.frames.close()
        self.tally.notes |= dict.fromkeys(f"{found.name}: {note}" for note in recorded.notes)

    def _store_pieces(self, found: Found, content: str, recorded: Recorded) -> None:
        frame = self._frame_spec(recorded)
        alone = len(self._source.recordings) == 1 and self._there.keys() <= {content}
        shares = shares_of(SplitRule(fraction=self._data.heldout_fraction, seed=self._seed)) if alone else WHOLE
        cutter = Cutter(self._data, self._source.action, frame)
        pieces = cutter.pieces(found.name, recorded, shares)
        there = self._there.setdefault(content, _There(self._free))
        for number, piece in enumerate(pieces):
            if number in there.pieces:
                continue
            recording, episode_id = self._begun(frame)
            frames, group = cutter.frames(found.name, recorded, piece), there.group + piece.group
            origin = Origin(name=found.name, content=content, piece=number, pieces=len(pieces))
            frames = self.lookalikes.watch(episode_id, piece.tracks.num_frames, frames)
            recording.add(episode_id, piece.tracks, frames, group, origin)
            there.pieces.add(number)
            there.count = len(pieces)
            self._next_id += 1
            self._free = max(self._free, group + 1)
            self.tally.take(piece)

    def _frame_spec(self, recorded: Recorded) -> FrameSpec:
        if self.store is not None:
            return self.store.frame_spec
        fps = self._data.fps or self._source.fps or round(1 / (usual_interval(recorded.frames.times) or 1), 3)
        return FrameSpec(height=self._data.height, width=self._data.width, fps=fps)

    def _begun(self, frame: FrameSpec) -> tuple[Recording, str]:
        """The recording into the store, and the id of its next episode."""
        if self.store is None:
            data = self._data.model_copy(update={"fps": frame.fps})
            self.store = EpisodeStore.create(
                self._folder,
                self._source.action,
                frame,
                data.env,
                data.env_options,
                heldout_fraction=data.heldout_fraction,
                split_seed=self._seed,
                config={"data": data.model_dump(mode="json", exclude=NOT_KEPT), "seed": self._seed},
                storage=data.kept_as,
            )
        if self._recording is None:
            self._recording = Recording(self.store, self._data.source.played_by, {})
            self._next_id = self.store.next_number
        return self._recording, f"{self._next_id:06d}"

    def _close(self) -> None:
        if self._recording is not None:
            self._recording.close()

    def _kept(self) -> str:
        return f"{self.tally.episodes} episodes of {self.tally.imported} recordings are stored in {self._folder}"


def _kind(settings: SourceSection, path: Path) -> tuple[Importer, str]:
    """The importer, and in words what was seen."""
    if settings.kind == AUTO:
        return detected(path)
    kind = importer(settings.kind)
    with Foreign(settings.kind, "detect"):
        seen = kind.detect(path)
    return kind, seen or f"{kind.KIND}, as it was named"


def _with_game(data: DataSection, action: ActionSpec) -> tuple[DataSection, list[str]]:
    """The settings with an environment only where it takes the actions of the recordings; else why it does not."""
    if not data.env:
        return data, []
    try:
        env = make_env(data)
        taken = env.action_spec
        env.close()
    except AhriuwuError as error:
        reason = error.message
    else:
        parts = tuple(part.model_copy(update={"aggregate": None, "labels": ()}) for part in action.components)
        wanted = tuple(part.model_copy(update={"labels": ()}) for part in taken.components)
        if parts == wanted:
            return data, []
        reason = f"it takes other actions: {', '.join(part.name for part in taken.components)}"
    note = f"data.env {data.env} is not the game of these recordings: {reason}; they are stored without one"
    return data.model_copy(update={"env": "", "env_options": {}}), [note]


def _with_lag(report: Report, store: EpisodeStore, seed: int) -> Report:
    """The report with a short look at whether actions are noted when they are taken."""
    from ahriuwu_cli.sources.lag.measure import after_import

    notes, found = after_import(store, seed)
    return replace(report, notes=[*report.notes, *notes], data=report.data | {"lag": found})


def _opened(folder: Path) -> EpisodeStore | None:
    """The store at `folder`; None where a new one may be made."""
    if not (folder / MANIFEST_NAME).exists():
        if contents(folder):
            raise InputError(
                f"{folder} is not empty and holds no episode store", hint="give another folder, or empty this one"
            )
        return None
    store = EpisodeStore.open(folder)
    store.settle()
    return store


def _require_fitting(store: EpisodeStore, data: DataSection, action: ActionSpec) -> None:
    """Refuse to add to a store of other actions or frames.

    Decision: crop and masks are in pixels of a source's pictures, so that sources of other sizes may have others; not
    so in a store whose game is played, where they are the game's.
    """
    frame, fps = store.frame_spec, data.fps or store.frame_spec.fps
    wanted = FrameSpec(height=data.height, width=data.width, fps=fps)
    settled = ("fit", "crop", "masks") if store.env else ("fit",)
    pairs = [
        ("frames", frame.model_dump_json(), wanted.model_dump_json()),
        ("actions", store.action_spec.model_dump_json(), action.model_dump_json()),
        *((f"data.{key}", *pair) for key, pair in differences(store, data).items() if key in settled),
    ]
    for what, there, here in pairs:
        if there != here:
            raise InputError(
                f"{store.folder} has {what} {there}; this import has {here}",
                hint="import with the same settings and mapping, or into another run folder",
            )
    lag = imported_lag(store)
    if lag is not None and lag != data.source.lag:
        raise InputError(
            f"{store.folder} was imported with data.source.lag = {lag:g}; this import has {data.source.lag:g}",
            hint="import into another folder (--out), or remove that store first",
        )


def _present(store: EpisodeStore) -> dict[str, _There]:
    """By content, what of each recording is there."""
    found: dict[str, _There] = {}
    for record in store.episodes:
        if record.origin is not None:
            there = found.setdefault(record.origin.content, _There(record.number))
            there.group, there.count = min(there.group, record.number), record.origin.pieces
            there.pieces.add(record.origin.piece)
    return found


def _content(found: Found) -> str:
    """SHA-256 of a recording: of the bytes of its files and of which part of them it is."""
    digest = hashlib.sha256(found.part.encode("utf-8", "surrogateescape"))
    for path in found.files:
        try:
            digest.update(content_hash(path).encode())
        except ArtifactError as error:
            raise RecordingError(found.name, f"{path.name} cannot be read: {error.message}") from error
    return digest.hexdigest()


def _require_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise RecordingError(name.encode("utf-8", "replace").decode(), "its name is no UTF-8") from error
