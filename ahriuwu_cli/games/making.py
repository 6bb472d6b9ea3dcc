"""Making a Gymnasium environment: what is imported first, and what is said when it cannot be made."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium

from ahriuwu_cli.core.errors import ForeignError, InputError
from ahriuwu_cli.games.bricks import register_game
from ahriuwu_cli.games.foreign import HINT, Foreign

# Prefix of an environment id -> (module to import, extra that installs it).
EXTRAS: dict[str, tuple[str, str]] = {
    "ALE/": ("ale_py", "atari"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "MinAtar/": ("minatar.gym", "minatar"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
}
SHOWN_IDS = 6


def module_of(env_id: str) -> str | None:
    """The module that an id of the form `MODULE:ID` asks for; None for any other id."""
    module, colon, _ = env_id.rpartition(":")
    return module if colon else None


def import_environments(env_id: str) -> None:
    """Import what registers an environment: the one place where a name becomes an import.

    That is the built-in game, the package of a known prefix, or the module of `MODULE:ID`, which is looked for among
    what is installed and then in the current folder. Importing runs code: call this only for ids that the user's own
    run.toml or command line names, never for one that was only read from an artifact.

    Raises:
        InputError: the package or module is not there.
        ForeignError: the module fails.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets in the name of every game
    register_game()
    module = module_of(env_id)
    if module is not None:
        import_named(env_id, module)
        return
    known = next((extra for prefix, extra in EXTRAS.items() if env_id.startswith(prefix)), None)
    if known is not None:
        with Foreign(env_id, f"importing {known[0]}"):
            _import_package(env_id, *known)


def make(env_id: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """`gymnasium.make` of what `import_environments` has registered.

    Raises:
        InputError: unknown id, missing package, or refused options.
        ForeignError: the environment's own code fails.
    """
    hint = f"{HINT}; its options are data.env_options"
    try:
        with Foreign(env_id, "being made", hint):
            return gymnasium.make(env_id, disable_env_checker=True, **options)
    except ForeignError as error:
        refusal = _refusal(env_id, options, error)
        if refusal is None:
            raise
        raise refusal from error.__cause__


def _refusal(env_id: str, options: dict[str, Any], error: ForeignError) -> InputError | None:
    """What a failure to make an environment comes to where a name or an option is at fault, not the code."""
    cause = error.__cause__
    detail = " ".join(str(cause).split())
    if isinstance(cause, gymnasium.error.DependencyNotInstalled):
        return InputError(f"{env_id} needs a package: {detail}", hint="install it, or pick another environment")
    if isinstance(cause, gymnasium.error.UnregisteredEnv):
        return InputError(f"there is no environment {env_id!r}: {detail}{_registered(env_id)}", hint=_ids_hint())
    refused = isinstance(cause, TypeError | ValueError) and not error.place
    if refused or isinstance(cause, gymnasium.error.Error):
        return InputError(
            f"{env_id} cannot be made with options {options}: {detail}", hint="correct data.env or data.env_options"
        )
    return None


def _ids_hint() -> str:
    return (
        "see `python -c 'import gymnasium; gymnasium.pprint_registry()'`; "
        "an environment of your own is 'MODULE:ID' (README, Your own environment)"
    )


def _registered(env_id: str) -> str:
    """The ids that the module of `MODULE:ID` has registered, in words."""
    module = module_of(env_id)
    if module is None:
        return ""
    ids = [name for name, spec in gymnasium.registry.items() if _belongs(spec.entry_point, module)]
    return f"; {module} registers {', '.join(ids[:SHOWN_IDS]) or 'none'}"


def _belongs(entry_point: Any, module: str) -> bool:
    place = entry_point.partition(":")[0] if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    return place == module or str(place).startswith(f"{module}.")


def import_named(who: str, module: str) -> None:
    """Import a module that the user names, from what is installed or from the current folder.

    Args:
        who: what asks for it, for messages.
        module: its name.

    Raises:
        InputError: it is not there.
        ForeignError: it fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # behind what is installed: a file here hides no package
    importlib.invalidate_caches()
    try:
        with Foreign(who, f"importing {module}"):
            importlib.import_module(module)
    except ForeignError as error:
        missing = getattr(error.__cause__, "name", None)
        if isinstance(error.__cause__, ModuleNotFoundError) and missing and f"{module}.".startswith(f"{missing}."):
            raise InputError(
                f"{who}: there is no module {module!r}, neither installed nor in {here}",
                hint="start the command in the folder of the module's file, and name it without .py",
            ) from error.__cause__
        raise


def _import_package(env_id: str, module: str, extra: str) -> None:
    """Import and register a package that is known by its prefix."""
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{env_id} needs the package {module!r}, which is not installed",
            hint=f"pip install 'ahriuwu[{extra}]'",
        ) from error
    if module == "ale_py":
        package.ALEInterface.setLoggerMode(package.LoggerMode.Error)
    if env_id not in gymnasium.registry and hasattr(package, "register_envs"):
        package.register_envs()  # MinAtar's environments are known only after this
    gymnasium.register_envs(package)
