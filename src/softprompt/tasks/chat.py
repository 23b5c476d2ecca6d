"""Chat templates for instruction-tuned causal models, with the soft prompt's place on record.

The tokenizer's own template turns the inputs into a user turn and opens the answer's turn. A causal backbone puts the
prompt in front of everything, the beginning-of-text token included; that place belongs to what a prompt was tuned for,
so it is stored with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.tasks.mixed import MixtureTask
from softprompt.tasks.task import Task

PLACES = ("before_bos",)


@dataclass(frozen=True, kw_only=True)
class Chat:
    """How inputs become a conversation.

    Attributes:
        system: the system turn; None for none.
        place: where the soft prompt stands; ``before_bos``: prompt, beginning of text, system turn, user turn.
    """

    system: str | None = None
    place: str = "before_bos"

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise UsageError(f"prompt place {self.place!r} is not one a backbone can give: use {', '.join(PLACES)}.")

    def render(self, inputs: str, tokenizer: Any) -> str:
        """The conversation up to the answer, as text.

        The beginning-of-text token is left to the backbone where its tokenizer adds one itself.
        """
        turns = [{"role": "system", "content": self.system}] if self.system is not None else []
        turns.append({"role": "user", "content": inputs})
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        begin = tokenizer.bos_token
        if begin and text.startswith(begin) and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]:
            text = text.removeprefix(begin)
        return text

    def record(self, tokenizer: Any) -> dict[str, Any]:
        """What is stored with a prompt: system turn, place, and which template it was."""
        return {"system": self.system, "place": self.place, "template_sha256": _template_digest(tokenizer)}

    @classmethod
    def of_record(cls, record: Mapping[str, Any], tokenizer: Any) -> Chat:
        """The conversation a prompt was tuned on, from its manifest (see `record`).

        Raises:
            IncompatibleBackboneError: the tokenizer has another chat template.
        """
        if record.get("template_sha256") != _template_digest(tokenizer):
            raise IncompatibleBackboneError(
                "the prompt was tuned with another chat template than this backbone's tokenizer has: load the backbone "
                "at the revision it was tuned on, or tune it again."
            )
        return cls(system=record.get("system"), place=str(record.get("place", "before_bos")))


def _template_digest(tokenizer: Any) -> str:
    return hashlib.sha256(str(getattr(tokenizer, "chat_template", None)).encode()).hexdigest()


def with_chat(task: Task, chat: Chat, tokenizer: Any) -> Task:
    """A task whose inputs are conversations; ``Task.chat`` is what a prompt's manifest keeps.

    Raises:
        UsageError: where the tokenizer has no chat template, or the template refuses a system turn.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("this backbone's tokenizer has no chat template; leave --chat out.")
    try:
        chat.render("x", tokenizer)
    except Exception as error:
        raise UsageError(f"the chat template cannot be used so: {error}.") from error
    record = chat.record(tokenizer)
    if isinstance(task, MixtureTask):
        return task.having({name: with_chat(part, chat, tokenizer) for name, part in task.parts.items()}, chat=record)
    worded = replace(task.wording, chat=record) if task.wording is not None else None
    return replace(task, render=lambda inputs: chat.render(inputs, tokenizer), chat=record, wording=worded)


def conversation(record: Mapping[str, Any] | None, tokenizer: Any) -> Callable[[str], str]:
    """Puts an input into the conversation a prompt was tuned on; gives the input itself where ``record`` is None.

    Raises:
        IncompatibleBackboneError: the tokenizer has another chat template.
    """
    if record is None:
        return str
    chat = Chat.of_record(record, tokenizer)
    return lambda inputs: chat.render(inputs, tokenizer)
