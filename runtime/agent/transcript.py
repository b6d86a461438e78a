"""Events as messages: what a run adds to its conversation."""

from __future__ import annotations

from dualtune_edge.runtime.agent.events import ArgumentsEvent, DoneEvent, Event, ResultEvent
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, ToolCall


def extended(messages: tuple[Message, ...], event: Event) -> tuple[Message, ...]:
    """The conversation after an event: a call, its result and the answer are messages, nothing else is."""
    if isinstance(event, ArgumentsEvent):
        function = FunctionCall(name=event.tool, arguments=event.arguments)
        call = ToolCall(function=function, id=f"call_{len(messages)}")
        return (*messages, Message(role="assistant", tool_calls=(call,)))
    if isinstance(event, ResultEvent):
        (call,) = messages[-1].tool_calls
        return (*messages, Message(role="tool", content=event.text, name=event.tool, tool_call_id=call.id))
    if isinstance(event, DoneEvent) and event.outcome == "answered":
        return (*messages, Message(role="assistant", content=event.answer))
    return messages
