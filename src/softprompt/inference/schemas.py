"""What the server takes and gives, in OpenAI's shape; what goes beyond it is said to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

MOST_INPUTS = 1024

Columns = dict[str, JsonValue]
Input = str | Columns
Inputs = Input | Annotated[list[Input], Field(min_length=1, max_length=MOST_INPUTS)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Generation(_Asked):
    model: str = Field(description="name of a prompt (`GET /v1/models`), or of the bare backbone")
    max_tokens: int | None = Field(
        default=None, ge=1, description="longest answer in free text; a prompt with labels answers with one of them"
    )
    stream: bool = False
    raw: bool = Field(default=False, description="texts are worded already (beyond OpenAI's)")
    temperature: float | None = Field(default=None, ge=0, le=0, description="0: answers are the most probable ones")
    n: int | None = Field(default=None, ge=1, le=1)
    seed: int | None = Field(default=None, description="taken and without effect: nothing is drawn")
    user: str | None = Field(default=None, description="taken and without effect")


class CompletionRequest(_Generation):
    """`POST /v1/completions`."""

    prompt: Inputs = Field(
        description="texts as people write them; objects with the columns the prompt reads (beyond OpenAI's)"
    )


class Message(_Asked):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(_Generation):
    """`POST /v1/chat/completions`. A prompt answers one user turn, worded as its task was; raw or without a prompt the
    whole conversation is put into the backbone's chat template."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_INPUTS)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="as max_tokens")


class ClassifyRequest(_Asked):
    """`POST /v1/classify`."""

    model: str
    input: Inputs
    raw: bool = False


class SearchRequest(_Asked):
    """`POST /v1/search`."""

    rows: list[Columns] = Field(min_length=2, max_length=64, description="labelled rows of the new task")
    label_column: str = "label"
    text_columns: list[str] | None = Field(default=None, description="columns to read; all others where not given")
    top_k: int = Field(default=10, ge=1, le=1000)


class Usage(BaseModel):
    """Tokens that went through the backbone; those of the soft prompt count as the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(BaseModel):
    """An answer. ``label`` is the label's name that it stands for (beyond OpenAI's)."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    label: str | None = None
    logprobs: None = None


class Completion(BaseModel):
    """Answers in the order of the texts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ChatChoice(BaseModel):
    """An answer as a turn."""

    index: int = 0
    message: Message
    finish_reason: Literal["stop", "length"] | None
    label: str | None = None


class ChatCompletion(BaseModel):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Classified(BaseModel):
    """The labels' probabilities for one text; they sum to 1."""

    index: int
    label: str
    probabilities: dict[str, float]


class Classification(BaseModel):
    """In the order of the texts."""

    object: Literal["list"] = "list"
    model: str
    data: list[Classified]
    usage: Usage


class Ranked(BaseModel):
    """A prompt that was tried on the rows without tuning.

    ``loss``: nats a token of the true answers; ``accuracy``: percent of the rows.
    """

    rank: int
    model: str
    task: str
    loss: float
    accuracy: float


class Ranking(BaseModel):
    """The best first. ``left_out``: by name, why a prompt could not be tried."""

    object: Literal["list"] = "list"
    rows: int
    data: list[Ranked]
    left_out: dict[str, str] = {}


class Model(BaseModel):
    """A prompt, or the bare backbone (``task`` null)."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "softprompt"
    task: str | None = None
    columns: list[str] = []
    labels: list[str] | None = None
    scores: dict[str, float | None] = {}
    prompt_length: int = 0
    verified: bool = True
    licence: str = ""


class Models(BaseModel):
    """All that can be asked for now."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorBody(BaseModel):
    """What went wrong, in one or two sentences."""

    message: str
    type: str
    code: str
    param: str | None = None


class Error(BaseModel):
    """Every answer that is not 2xx."""

    error: ErrorBody


class Health(BaseModel):
    """Whether the server lives, or takes requests."""

    status: Literal["ok", "stopping"]
    backbone: str
    fingerprint: str


class Point(BaseModel):
    """A prompt of the explorer: its facts, and where it stands on the map of task embeddings (None without one)."""

    name: str
    task: str
    score: float | None
    scores: dict[str, float | None]
    prompt_length: int
    steps: int | None
    best_step: int | None
    seed: int
    licence: str
    origin: str
    verified: bool
    created: str
    command: str
    columns: list[str]
    labels: list[str] | None
    template: str | None
    curve: list[tuple[int, float]]
    x: float | None
    y: float | None


class Explorer(BaseModel):
    """What the page at `/` draws. ``similarity``: of ``mapped``, cosine of their average tokens."""

    backbone: str
    prompts: list[Point]
    mapped: list[str]
    similarity: list[list[float]]
    explained: float | None
    left_out: int


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": what}
    for status, what in (
        (400, "a field is missing, unknown or wrong, or a text does not fit"), (401, "the bearer token is missing or wrong"),
        (404, "no such model or path"), (408, "the body did not arrive in time"), (409, "the prompt is of another backbone or damaged"),
        (413, "the body is too large"), (415, "the body is not JSON"), (429, "too many requests wait; see Retry-After"),
        (503, "the server is shutting down"), (504, "the answer was not there in time"),
    )
}  # fmt: skip
