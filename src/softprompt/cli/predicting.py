"""``softprompt predict``: answer texts, or the rows of a file, with a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from softprompt.cli import opening, places
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.flags import Flags, flag, spelled
from softprompt.cli.output import AT_HAND, Answer, both, lines
from softprompt.cli.progress import say
from softprompt.errors import DataError, UsageError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.inference.predict import Predictions
    from softprompt.prompts.prompter import Prompter
    from softprompt.tasks.tuned import Kept

ANSWER_COLUMN = "prediction"


Texts = Annotated[
    list[str] | None, typer.Argument(help="Texts, as people write them: the prompt words them.", show_default=False)
]


@dataclass(frozen=True, kw_only=True)
class InputFlags(Flags):
    """What is to be answered, and where the answers go."""

    file: Annotated[
        Path | None,
        flag(
            "--file",
            "A csv, tsv, jsonl or parquet file with the prompt's columns, or texts, one a line; - is standard input.",
        ),
    ] = None
    out: Annotated[Path | None, flag("--out", "Write rows and answers here (.csv, .tsv, .jsonl or .parquet).")] = None
    text_column: o.TextColumns = None
    answer_column: Annotated[str, flag("--answer-column", "The column that answers are written to.", o.ROWS)] = (
        ANSWER_COLUMN
    )
    as_is: Annotated[bool, flag("--as-is", "The texts are worded already: leave them as they are.", o.ROWS)] = False
    max_new_tokens: o.MaxNewTokens = None

    def rows(self, texts: Sequence[str] | None, file: Path | None = None) -> GivenRows:
        """What was given; ``file`` where none was named."""
        if self.out is not None:
            opening.check_file(self.out, [] if self.file is None else [self.file])
        return given_rows(texts, self.file or file, self.text_column, self.answer_column)


@command(
    app, "predict", "softprompt predict runs/my 'Never again.'",
    "softprompt predict --library prompts --prompt cb@1 --file new.csv --out answers.csv",
)  # fmt: skip
def predict(
    text: Texts = None,
    *,
    inputs: InputFlags,
    prompt: Annotated[str | None, flag("--prompt", "Prompt of the library.")] = None,
    library: Annotated[str | None, flag("--library", "Where the prompt is.")] = None,
    executor: Annotated[
        Literal["serial", "ray"], flag("--executor", "Who answers: this process, or a Ray cluster.", o.WORKERS)
    ] = "serial",
    executor_option: o.ExecutorOptions = None,
    workers: o.Workers = None,
    model: o.PromptBackboneFlags,
) -> Answer:
    """Answer texts or a file of rows with a prompt.

    The first word may be the folder of a run, a library or a prompt: softprompt predict runs/my < texts.
    """
    from softprompt.cli.training import kept_of, stack_of

    place = text[0] if text and library is None and places.is_place(text[0]) else None
    if place is None and text and (library or prompt or model.backbone) is None:
        places.refuse_missing(text[0])
    text = text[1:] if text and place is not None else text
    library, names = places.prompts_asked(place, library, (prompt,) if prompt else (), one=True)
    given = inputs.rows(text, Path("-") if place is not None and not text else None)
    (kept,) = kept_of(library, names)
    facts = {"prompt": names[0] if names else None, "backbone": model.backbone or opening.backbone_of(library, names)}
    if executor == "serial" and not executor_option and workers is None:
        backbone = model.open(library, names)
        facts["backbone"] = backbone.name
        found = answered(backbone, stack_of(backbone, library, names), given, kept, inputs)
    else:
        from softprompt.study.executor_options import executor_options

        options = executor_options(executor, executor_option or (), workers)
        columns = _columns(kept, inputs.as_is)
        found = _on_ray(facts, library, model, inputs, given.inputs(columns), columns, options)
    answer = given.answer(found, inputs.out, facts)
    where, same = place if place is not None else library, model.words()
    if where is None:
        return changed(answer, next=[("train", AT_HAND, *same), ("prompt-design", "--task", AT_HAND, *same)])
    rows = ("predict", where, *spelled({"prompt": prompt}), "--file", "ROWS.csv", "--out", "answers.csv", *same)
    after = ("library", "show", where, names[0]) if inputs.out is not None else rows
    return changed(answer, next=[after, ("serve", where, *same)])


def _on_ray(
    facts: Mapping[str, str | None],
    library: str | None,
    model: o.PromptBackboneFlags,
    asked: InputFlags,
    rows: Sequence[Mapping[str, Any] | str],
    columns: Sequence[str],
    options: Mapping[str, Any],
) -> Predictions:
    from softprompt.inference.ray_predict import WorkerSettings, predict_on_ray

    place = None if library is None else _everywhere(opening.open_library(library).location)
    settings = WorkerSettings(
        backbone=_everywhere(str(facts["backbone"])), dtype=model.dtype, device=model.device, revision=model.revision,
        prompt=facts["prompt"], as_is=asked.as_is, max_new_tokens=asked.max_new_tokens, library=place,
    )  # fmt: skip
    return _told(predict_on_ray(settings, rows, **options), rows, columns, settings.backbone)


def _everywhere(place: str) -> str:
    """A local folder by its whole path, which other processes and nodes read too."""
    return str(Path(place).resolve()) if Path(place).is_dir() else place


class GivenRows:
    """What is to be answered: texts, or a file's rows.

    Attributes:
        rows: the file's rows as they are; None where texts were given.
        texts: the texts; None where rows were given.
        columns: the columns to read, where they were named; else those of the prompt's wording.
        kind: format of the file.
        answer_column: gets the answers.
    """

    def __init__(
        self,
        texts: list[str] | None,
        rows: list[dict[str, Any]] | None = None,
        columns: tuple[str, ...] = (),
        kind: str = "",
        answer_column: str = ANSWER_COLUMN,
    ) -> None:
        self.texts, self.rows, self.columns, self.kind = texts, rows, columns, kind
        self.answer_column = answer_column

    def inputs(self, wanted: Sequence[str]) -> list[Mapping[str, Any] | str]:
        """What the prompt's wording takes.

        Args:
            wanted: its columns; the named columns stand for them in order.

        Raises:
            UsageError: another number of columns was named, or a file was given to a prompt whose columns are unknown.
        """
        if self.rows is None:
            return [*(self.texts or ())]
        if not self.columns:
            if not wanted:
                raise UsageError(
                    "which column holds the text is not known for this prompt: name it with --text-column."
                )
            return [*self.rows]
        if wanted and len(wanted) != len(self.columns):
            raise UsageError(
                f"--text-column names {', '.join(self.columns)}, and the prompt reads {len(wanted)} columns, "
                f"{', '.join(wanted)}: name as many, in this order."
            )
        if not wanted:
            if len(self.columns) != 1:
                raise UsageError("this prompt reads one text: name one column with --text-column.")
            return [str(row[self.columns[0]]) for row in self.rows]
        return [{name: row[own] for name, own in zip(wanted, self.columns, strict=True)} for row in self.rows]

    def answer(self, found: Predictions, out: Path | None, facts: Mapping[str, Any]) -> Answer:
        """The answers as the command gives them; a file of rows goes to ``out`` or, as text, to standard output."""
        given = [one.label if one.label is not None else one.output for one in found.rows]
        if self.rows is None:
            pairs = [
                {"input": text, "output": one.output} | ({} if one.label is None else {"label": one.label})
                for text, one in zip(self.texts or (), found.rows, strict=True)
            ]
            data = {"predictions": pairs, "cut": found.cut, **facts}
            if out is not None:
                _write(
                    out, [{"input": pair["input"], self.answer_column: a} for pair, a in zip(pairs, given, strict=True)]
                )
                return Answer(data=data, show=lines(f"{len(pairs)} answers in {out}"))
            return Answer(data=data, show=lines(*(text.replace("\n", "\\n") for text in given)))
        rows = [{**row, self.answer_column: a} for row, a in zip(self.rows, given, strict=True)]
        data = {"predictions": rows, "cut": found.cut, **facts}
        if out is not None:
            _write(out, rows)
            return Answer(data=data, show=lines(f"{len(rows)} rows with their answers in {out}"))
        from softprompt.tasks.writers import table_text

        return Answer(data=data, show=both(lines(table_text(rows, self.kind).rstrip("\n"), wrap=False)))


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from softprompt.tasks.writers import write_rows

    write_rows(path, rows)


def given_rows(
    texts: Sequence[str] | None, file: Path | None, text_column: str | None, answer_column: str
) -> GivenRows:
    """What a command was asked to answer.

    Raises:
        UsageError: neither texts nor a file, or both; columns of what has none.
        DataError: the file cannot be read, lacks a column, or has the answer's column already.
    """
    from softprompt.tasks.readers import format_of, read_rows
    from softprompt.tasks.rows import BadRows

    columns = opening.words(text_column, "--text-column") if text_column is not None else ()
    if texts or file is None or format_of(file) is None:
        if columns:
            raise UsageError(
                "--text-column names columns of a file: give --file with a csv, tsv, jsonl or parquet file."
            )
        return GivenRows(opening.texts_of(texts, file))
    rows = [values for _, values in read_rows(file, BadRows())]
    if not rows:
        raise DataError(f"{file} has no rows: give it at least one.")
    for column in columns:
        if column not in rows[0]:
            raise DataError(f"{file} has no column {column!r}; it has {', '.join(rows[0])}.")
    if answer_column in rows[0]:
        raise DataError(f"{file} has a column {answer_column!r} already: name another one with --answer-column.")
    return GivenRows(None, rows, columns, str(format_of(file))[1:], answer_column)


def answered(
    backbone: Backbone, prompter: Prompter | None, given: GivenRows, kept: Kept | None, asked: InputFlags
) -> Predictions:
    """The answers; says how many texts were cut or empty."""
    from softprompt.inference.predict import predict as answer_rows

    columns = _columns(kept, asked.as_is)
    inputs = given.inputs(columns)
    found = answer_rows(backbone, prompter, inputs, kept, as_is=asked.as_is, max_new_tokens=asked.max_new_tokens)
    return _told(found, inputs, columns, backbone.name)


def _columns(kept: Kept | None, as_is: bool) -> Sequence[str]:
    """The columns a prompt's wording reads."""
    from softprompt.tasks.tuned import wording_of

    wording = wording_of(kept) if kept is not None and not as_is else None
    return wording.columns if wording is not None else ()


def _told(
    found: Predictions, inputs: Sequence[Mapping[str, Any] | str], columns: Sequence[str], backbone: str
) -> Predictions:
    """Says how many answers rest on a part of their text, or on none; ``columns`` are those that a row is read by."""
    if found.cut:
        say(f"{found.cut} of {len(found.rows)} texts were longer than backbone {backbone} holds and were cut")
    texts = ([one] if isinstance(one, str) else [one.get(name, "") for name in columns or one] for one in inputs)
    if empty := sum(not any(str(text).strip() for text in row) for row in texts):
        say(f"{empty} of {len(inputs)} texts are empty: what is answered there comes from the prompt alone")
    return found
