"""What OpenAI's chat API answers, as types; other providers that speak it answer alike."""

from typing import Literal, NotRequired, TypedDict


class ChatMessage(TypedDict):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: NotRequired[str | None]
    tool_calls: NotRequired[list[dict[str, object]]]


class ChatChoice(TypedDict):
    """One of the answers asked for."""

    index: int
    message: ChatMessage
    finish_reason: str


class ChatUsage(TypedDict):
    """What it cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(TypedDict):
    """The provider's answer as it came: a dict, not checked."""

    id: str
    object: str
    created: NotRequired[int]
    model: str
    choices: list[ChatChoice]
    usage: NotRequired[ChatUsage]
