"""Chat templates for instruction-tuned causal models, with the soft prompt's place on record.

The tokenizer's own template turns the inputs into a user turn and opens the answer's turn. A causal backbone puts the
prompt in front of everything, the beginning-of-text token included; that place belongs to what a prompt was tuned for,
so it is stored with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from softprompt.errors import UsageError
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
        template = str(tokenizer.chat_template)
        return {
            "system": self.system,
            "place": self.place,
            "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        }


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
    return replace(task, render=lambda inputs: chat.render(inputs, tokenizer), chat=chat.record(tokenizer))
