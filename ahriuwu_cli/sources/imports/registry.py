"""Which kinds of recordings can be imported: a module for each, which is an Importer (protocol.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.registry import Registry
from ahriuwu_cli.games.foreign import Foreign
from ahriuwu_cli.games.making import import_named
from ahriuwu_cli.sources.imports.protocol import Importer

HERE = "ahriuwu_cli.sources.imports"
KINDS = Registry(
    "importers",
    {
        "frames": f"{HERE}.picture_folders:FramesImporter",
        "hdf5": f"{HERE}.hdf5:Hdf5Importer",
        "lerobot": f"{HERE}.lerobot:LeRobotImporter",
        "minari": f"{HERE}.minari:MinariImporter",
        "minerl": f"{HERE}.minerl:MinerlImporter",
        "npz": f"{HERE}.npz:NpzImporter",
        "owamcap": f"{HERE}.owamcap:OwamcapImporter",
        "owl": f"{HERE}.owl:OwlImporter",
        "prototype": f"{HERE}.prototype:PrototypeImporter",
        "prototype-checkpoint": f"{HERE}.prototype_checkpoint:PrototypeCheckpointImporter",
        "prototype-latents": f"{HERE}.prototype_latents:PrototypeLatentsImporter",
        "video": f"{HERE}.video:VideoImporter",
        "vpt": f"{HERE}.vpt:VptImporter",
    },
    what="kind of recordings",
)
"""By name. Other packages add to them by entry points of the group `ahriuwu.importers`."""
AUTO = "auto"
GENERAL = ("frames", "video")
"""Kinds that know pictures of any origin: they are asked where no kind that looks for more knows a source."""


def importer(kind: str) -> Importer:
    """The importer of a kind: one of the registry, or the class NAME of the user's own module for `MODULE:NAME`.

    A module runs when it is imported: call this only for kinds that the command line or the user's run.toml names.

    Raises:
        InputError: there is none of that name.
        ForeignError: the user's module fails.
    """
    module, colon, name = kind.partition(":")
    if colon:
        import_named(kind, module)
        own = getattr(sys.modules[module], name, None)
        if not callable(own):
            raise InputError(
                f"{kind}: {module} has no class {name!r}", hint="name the importer's class after the colon"
            )
        with Foreign(kind, name):
            return cast("Importer", own())
    try:
        found = KINDS.load(kind)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(str(error), hint="see `ahriuwu data import --help`, or give auto") from error
    return cast("Importer", found())


def detected(source: Path) -> tuple[Importer, str]:
    """The one importer that knows `source`, and what it saw; kinds of GENERAL stand back for others.

    Raises:
        InputError: none does, or several do.
    """
    found = [(kind, each, seen) for kind in KINDS.names() if (seen := (each := importer(kind)).detect(source))]
    found = [each for each in found if each[0] not in GENERAL] or found
    if len(found) == 1:
        return found[0][1], found[0][2]
    if not found:
        raise InputError(
            f"{source} is of no kind that is known: {', '.join(KINDS.names())}",
            hint="give the kind by name to be told what it misses, or write an importer (README, Importers)",
        )
    seen = "; ".join(f"{kind}: {what}" for kind, _, what in found)
    raise InputError(f"{source} may be of several kinds ({seen})", hint="give the kind by name")
