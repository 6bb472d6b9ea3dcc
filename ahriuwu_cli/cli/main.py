"""The `ahriuwu` command: the tree of its commands, and the one place where errors become messages."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import ahriuwu_cli
from ahriuwu_cli.cli import (
    ablate,
    agent,
    bench,
    data,
    demo,
    doctor,
    dynamics,
    eval,
    export,
    imagine,
    improve,
    init,
    latents,
    study,
    tokenizer,
    tune,
)
from ahriuwu_cli.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, AhriuwuError
from ahriuwu_cli.core.files import REFUSALS
from ahriuwu_cli.core.process import tune_process

ROAD = (
    "demo",
    "init",
    "data",
    "export",
    "tokenizer",
    "latents",
    "dynamics",
    "agent",
    "imagine",
    "eval",
    "improve",
    "ablate",
    "study",
    "tune",
    "bench",
    "doctor",
)


class RoadOrder(TyperGroup):
    """Lists the commands in the order they are used, not plain commands first."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: D102 (what the base class says)
        return sorted(super().list_commands(ctx), key=ROAD.index)


app = typer.Typer(
    name="ahriuwu",
    cls=RoadOrder,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    epilog="The road: init, data record, tokenizer train, latents build, latents pack, dynamics train, "
    "agent finetune, imagine train, eval rollout, eval agent (without a game: eval offline). "
    "`ahriuwu demo` walks it all.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ahriuwu {ahriuwu_cli.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train a game-playing agent inside its own dream."""
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command()(init.init)
app.add_typer(data.app, name="data")
app.command()(export.export)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(latents.app, name="latents")
app.add_typer(dynamics.app, name="dynamics")
app.add_typer(agent.app, name="agent")
app.add_typer(imagine.app, name="imagine")
app.add_typer(eval.app, name="eval")
app.command()(improve.improve)
app.command()(ablate.ablate)
app.add_typer(study.app, name="study")
app.command()(tune.tune)
app.add_typer(bench.app, name="bench")
app.command()(doctor.doctor)
app.command()(demo.demo)


def run(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 (one return for each way to end)
    """Run one command line (that of the process unless given) and return its exit code.

    What a user can mend is told as `error:` and `hint:` on stderr; a traceback is a mistake of ours.
    """
    try:
        code = app(args=arguments, prog_name="ahriuwu", standalone_mode=False)
        sys.stdout.flush()
    except AhriuwuError as error:
        word = "stopped" if error.exit_code == EXIT_INTERRUPTED else "error"
        return _tell(error.message, error.hint, error.exit_code, word)
    except typer.TyperException as error:
        return _tell(_usage_message(error), _usage_hint(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in REFUSALS:
            return _admit()
        return _tell(f"{error.filename or 'a file'}: {error.strerror}", REFUSALS[error.errno])
    except MemoryError:
        return _tell(
            "this machine ran out of memory", "close other programs, or lower batch_size, data.num_envs or data.height"
        )
    except Exception:
        return _admit()
    if code == EXIT_INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        return _stopped()
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the console command; it ends on SIGTERM as on Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    tune_process()
    sys.exit(run())


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(message: str, hint: str, code: int = EXIT_FAILED, word: str = "error") -> int:
    """One line that says what is wrong, one that says what to do."""
    for label, text in ((word, message), ("hint", hint)):
        print(f"{label}: {' '.join(text.split())}", file=sys.stderr)
    return code


def _stopped() -> int:
    return _tell(
        "on request; files are whole or not there",
        "run the same command again; `data record` goes on with --append, a training with --resume",
        EXIT_INTERRUPTED,
        "stopped",
    )


def _usage_message(error: typer.TyperException) -> str:
    return error.format_message().removesuffix(".")


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context else 'ahriuwu'} --help`"


def _admit() -> int:
    """A fault of the program: everything that helps to find it."""
    traceback.print_exc()
    return _tell(
        f"this is a fault in ahriuwu {ahriuwu_cli.__version__}, not in what you asked for",
        "please report it with the command and the lines above",
    )


def _forget_stdout() -> None:
    """Whoever read stdout is gone: let the rest, and Python's flush at exit, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
