"""How a row becomes what the backbone reads: an inert record that a prompt keeps, so that it is used as it was tuned.

A prompt works on texts worded as those it was tuned on. `Wording` says how: a template over columns, or the name of a
task of the catalogue whose form is known here. It holds no code and runs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from softprompt.errors import CorruptArtifactError, UsageError
from softprompt.tasks.forms import worded_inputs
from softprompt.tasks.rows import Form, Row
from softprompt.tasks.template import column_of, parts, places, worded

FormName = Literal["t5", "natural", "template", "raw"]
_LONGEST = {
    "task": 300, "template": 100_000, "columns": 1_000, "labels": 10_000, "answers": 10_000, "metrics": 100,
    "instruction": 10_000,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How rows of a task are worded.

    Attributes:
        task: name of the task.
        form: ``t5`` (the papers' form of a task of the catalogue), ``natural`` (its natural-language form),
            ``template`` (a user's template), ``raw`` (a function of the user's: texts must come worded).
        template: text with columns in braces (`softprompt.tasks.template`); None where ``form`` alone says it.
        columns: input columns in order; empty for ``raw``.
        label_column: column of the answer; None where there is none.
        labels: names of the classes in index order; None for free text and numbers.
        answers: what the backbone writes for each label, in index order; the labels themselves where None.
        metrics: names in `softprompt.tasks.metrics.METRICS`.
        chat: the conversation inputs are put into (`softprompt.tasks.chat.Chat.record`); None for plain inputs.
        instruction: the task in one sentence; a prompt may start from its words. None where there is none.
        prefix: whether the ``t5`` form has the task's name in front.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic, which is imported only where records are)

    task: str
    form: FormName
    template: str | None = None
    columns: tuple[str, ...] = ()
    label_column: str | None = None
    labels: tuple[str, ...] | None = None
    answers: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()
    chat: Mapping[str, Any] | None = None
    instruction: str | None = None
    prefix: bool = True

    def __post_init__(self) -> None:
        for name, most in _LONGEST.items():
            if len(getattr(self, name) or ()) > most:
                raise ValueError(f"{name} is longer than {most}")
        if self.template is not None:
            try:
                named = places(self.template)
            except UsageError as error:
                raise ValueError(str(error)) from None
            strange = [p for p in named if p not in self.columns and column_of(p) not in self.columns]
            if strange and self.form == "template":  # the catalogue's forms make further columns of a row
                raise ValueError(f"the template names {', '.join(strange)}, which is none of its columns")
        elif self.form == "template":
            raise ValueError("form 'template' has no template")
        if self.answers is not None and len(self.answers) != len(self.labels or ()):
            raise ValueError(f"{len(self.answers)} answers for {len(self.labels or ())} labels")

    @property
    def label_words(self) -> tuple[str, ...] | None:
        """What the backbone writes for each label, in index order; None for free text and numbers."""
        return self.answers if self.answers is not None else self.labels

    @property
    def has_cue(self) -> bool:
        """Whether inputs end with a cue for the answer, as ``Sentiment:``."""
        return self.template is not None and parts(self.template)[-1][1] is None

    def inputs(self, row: Mapping[str, Any] | str) -> str:
        """What the backbone reads for a row, outer blanks removed; a conversation is put around it elsewhere.

        Args:
            row: its columns; further ones are ignored. A text alone stands for the column where there is only one, and
                for itself where the form is ``raw``.

        Raises:
            UsageError: a text where there are several columns, or columns where the task was a function of the user's.
            DataError: a column is missing or holds no text.
        """
        if self.form == "raw":
            if isinstance(row, str):
                return row.strip()
            raise UsageError(
                f"task {self.task!r} was worded by a Python function, which a prompt does not keep: give the texts as "
                "that function makes them."
            )
        if isinstance(row, str):
            if len(self.columns) != 1:
                raise UsageError(
                    f"task {self.task!r} reads {len(self.columns)} columns, {', '.join(self.columns)}, and one text was "
                    "given: give a row with these columns."
                )
            row = {self.columns[0]: row}
        return self._worded(Row(values=row, line=1, where=f"input for task {self.task!r}", labelled=False)).strip()

    def _worded(self, row: Row) -> str:
        if self.form in ("t5", "natural"):
            made = worded_inputs(
                self.task, self.form == "natural", row,
                template=self.template, label_column=self.label_column, prefix=self.prefix,
            )  # fmt: skip
            if made is not None:
                return made
        if self.template is None:
            raise UsageError(
                f"a prompt was tuned on task {self.task!r}, whose form this version does not know: update softprompt, or "
                "give texts as they were worded then."
            )
        return worded(self.template, row)

    def label_of(self, answer: str, canonical: Callable[[str], str] = str) -> str | None:
        """The label's name that an answer stands for; None where it is no answer of the task or there are no labels.

        Args:
            answer: what the backbone wrote.
            canonical: how its tokenizer gives a text back ("not _ entailment"), see `softprompt.inference.evaluate`.
        """
        words = [canonical(word).strip() for word in self.label_words or ()]
        if self.labels is None or answer.strip() not in words:
            return None
        return self.labels[words.index(answer.strip())]

    def record(self) -> dict[str, Any]:
        """Plain JSON values; `of_record` reads them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Wording:
        """A wording from what `record` gave.

        Raises:
            CorruptArtifactError: it is not such a record; says what is wrong with it.
        """
        from pydantic import ValidationError

        try:
            return _schema().validate_python(dict(record))  # type: ignore[no-any-return]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            what = f"field {where!r}: {first['msg']}" if where else first["msg"]
            raise CorruptArtifactError(
                f"the wording of a prompt cannot be read ({what}): add the prompt again."
            ) from None


@lru_cache(maxsize=1)
def _schema() -> Any:
    """The check of a record from elsewhere; training needs none, so pydantic is imported here."""
    from pydantic import TypeAdapter

    return TypeAdapter(Wording)


@dataclass(frozen=True, kw_only=True)
class Worded:
    """One way in which a task's rows become text.

    Attributes:
        form: the preprocessor from row to text.
        wording: the record of it that prompts keep.
        labels: what the backbone writes for each label, in index order; None for free text.
        metrics: names of metrics; those of the task where empty.
    """

    form: Form
    wording: Wording
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ()
