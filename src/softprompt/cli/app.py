"""The command line: one place that parses, runs and reports. The commands themselves are thin (parse, call, print).

A command is a function that returns an `Answer`; `command` registers it and gives it ``--json`` and ``--debug``.
Nothing heavy is imported here or at the top of any command module, so that ``softprompt --help`` answers at once.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from softprompt.cli.flags import Command, Flags, HelpAll, parameters_of
from softprompt.cli.output import Answer, asked, put
from softprompt.cli.progress import waiting
from softprompt.errors import SoftpromptError, printable

# Where each group of commands lives, in the order of `softprompt --help`.
GROUPS = (
    "quickstart", "training", "predicting", "searching", "transferring", "sharpt", "skills", "study", "baselines", "counts",
    "library", "exchange", "retrain", "tasks", "submission", "serve", "convert", "doctor",
)  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

app = typer.Typer(
    name="softprompt",
    help="Soft prompts on one frozen language model: tune, keep, search, transfer, serve.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        import softprompt

        print(softprompt.__version__)
        raise typer.Exit


@app.callback()
def _softprompt(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def group(name: str, help: str) -> typer.Typer:
    """A new group of commands under ``softprompt NAME``."""
    made = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(made, name=name)
    return made


def command(where: typer.Typer, name: str, *examples: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register a function that returns an `Answer` as command ``name`` of an app or group.

    Args:
        where: the app or group.
        name: of the command.
        examples: command lines that its help ends with.
    """

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        where.command(name, cls=Command, epilog="\n".join(examples))(_with_common_flags(function))
        return function

    return register


def _with_common_flags(function: Callable[..., Answer]) -> Callable[..., None]:
    """The function as the parser takes it: groups of flags (`Flags`) one by one, and the flags that every command has."""
    own = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, tuple[type[Flags], list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if inspect.isclass(parameter.annotation) and issubclass(parameter.annotation, Flags):
            flags = parameters_of(parameter.annotation)
            groups[name] = parameter.annotation, [flag.name for flag in flags]
            parameters += flags
        else:
            parameters.append(parameter)
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("json", Json), ("debug", Debug), ("help_all", HelpAll))
    ]

    @functools.wraps(function)
    def run_command(**given: Any) -> None:
        as_json = given.pop("json")
        del given["debug"], given["help_all"]
        made = {name: kind.of({flag: given.pop(flag) for flag in flags}) for name, (kind, flags) in groups.items()}
        with waiting():
            answer = function(**given, **made)
        put(answer, as_json=as_json)

    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    run_command.__signature__ = inspect.Signature([*positional, *named])  # type: ignore[attr-defined]
    run_command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return run_command


@functools.cache
def parser() -> Any:
    """The parser of the whole command line, built once a process: a quarter of a second for all flags of all commands."""
    return typer.main.get_command(load_commands())


def load_commands() -> typer.Typer:
    """The app with every group registered."""
    for name in GROUPS:
        importlib.import_module(f"softprompt.cli.{name}")
    for where in (app, *(group.typer_instance for group in app.registered_groups)):
        if where is not None:  # whoever was imported first, the help lists commands in one order
            where.registered_commands.sort(key=_place)
    return app


def _place(registered: Any) -> int:
    """Where a command's module stands in `GROUPS`."""
    return GROUPS.index(registered.callback.__module__.rpartition(".")[2])


def run(arguments: Sequence[str]) -> int:
    """Run the command line and give its exit code; prints errors as one sentence on standard error.

    Exit codes: 0 done, 1 failure, 2 usage, 3 corrupt artifact, 4 incompatible backbone, 5 non-finite training,
    75 stopped but resumable, 130 stopped with nothing to resume.
    """
    _prepare_process()
    asked[:] = arguments
    debug = "--debug" in arguments
    try:
        code = parser().main(args=list(arguments), prog_name="softprompt", standalone_mode=False)
        if code == 130:
            _complain("stopped; nothing was left half-written.")
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        _mute_stdout()
        return 128 + signal.SIGPIPE
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            return 2
        if debug:
            traceback.print_exception(error)
        sentence, code = explain(error)
        _complain(sentence)
        return code


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence for the user and the exit code, for any error a command ended with."""
    if isinstance(error, SoftpromptError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return _usage(error), error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "stopped; nothing was left half-written.", 130
    if _is_out_of_memory(error):
        return (
            "out of memory: lower --batch-size or --set micro_batch_tokens=N, shorten --prompt-length or "
            "--max-input-tokens, load the backbone with --dtype bfloat16, or take a smaller backbone.",
            1,
        )
    if isinstance(error, OSError):
        return _os_error(error), 1
    return (
        f"unexpected {type(error).__name__}: {error} (this is a defect: run it again with --debug for the traceback, "
        "and please report it)",
        1,
    )


def _usage(error: typer.TyperException) -> str:
    """The parser's message, with the nearest names where it has them, and the command that lists all."""
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message.replace("Value error, ", "")
    end = "" if message.endswith("?") else "."
    context = getattr(error, "ctx", None)
    return f"{message}{end} See `{getattr(context, 'command_path', 'softprompt')} --help`."


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _os_error(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: free some space, then run the same command again; what was complete is kept."
    if isinstance(error, FileNotFoundError):
        return f"there is no file or folder {error.filename}: check the path."
    if isinstance(error, PermissionError):
        return f"no permission{where}: choose another folder or mend its rights."
    return f"{error.strerror or error}{where}."


def _complain(sentence: str) -> None:
    print(f"softprompt: {printable(sentence)}", file=sys.stderr, flush=True)


def _prepare_process() -> None:
    """Quiet, private and patient libraries; must happen before torch and transformers are imported."""
    defaults = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        # spinning OpenMP threads cost a factor of ten where another process wants the same cores
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _mute_stdout() -> None:
    """The reader of our output left (``| head``); keep the interpreter from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
