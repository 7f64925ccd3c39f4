"""What a chat template says of its model: whether it takes tools, whether the model reasons.

Only the syntax tree of the Jinja template is looked at; it is never rendered, because a template
is a program of its author's. docs/model-files.md lists the rules with examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jinja2 import Environment, TemplateError, nodes

_MAX_CHARACTERS = 1_000_000
# Names under which callers pass the tools: transformers', and those of Llama 3.1.
_TOOLS = frozenset({"tools", "custom_tools", "builtin_tools", "available_tools", "functions"})
_TOOL_CALLS = frozenset({"tool_calls", "function_call"})
# Parameters that turn reasoning on and off, or say how much.
_SWITCHES = (
    "enable_thinking", "thinking", "reasoning_effort", "thinking_budget", "thinking_mode",
    "enable_reasoning", "reasoning", "think", "thinking_effort",
)  # fmt: skip
_REASONING_FIELDS = frozenset({"reasoning_content", "reasoning", "thinking", "thoughts"})
# How models open their reasoning. The closing mark alone says nothing: others only cut it out.
_OPENINGS = (
    "<think>", "[THINK]", "<seed:think>", "◁think▷", "<|START_THINKING|>", "<thought>",
    "<|channel|>analysis", "<|channel>thought", "<reasoning>", "<|begin_of_thought|>",
    "<|inner_prefix|>", "detailed thinking on", "<thinking>", "<mm:think>",
)  # fmt: skip
# Tags of transformers that mark what the assistant wrote; they change nothing here.
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


@dataclass(frozen=True)
class TemplateFacts:
    """`tools` and `reasoning` are None where the template does not tell.

    `reasoning_switch` is the template's parameter for it, such as `enable_thinking`.
    """

    tools: bool | None
    reasoning: bool | None
    reasoning_switch: str | None = None
    note: str = ""


def read(template: str) -> TemplateFacts:
    """Look at a chat template.

    It takes tools when it reads one of the variables that carry them. One that only writes down
    tool calls of earlier turns leaves it open: the caller has to describe the tools. The model
    reasons when the template has a parameter for it, reads the reasoning of earlier turns, or
    writes a mark that opens reasoning.
    """
    if len(template) > _MAX_CHARACTERS:
        return TemplateFacts(None, None, note="its chat template has over a million characters")
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True).parse(
            _GENERATION.sub("", template)
        )
    except (TemplateError, RecursionError) as error:
        why = str(error) or type(error).__name__
        return TemplateFacts(None, None, note=f"its chat template cannot be parsed: {why[:120]}")
    try:
        return _facts(tree)
    except RecursionError:
        return TemplateFacts(None, None, note="its chat template is nested too deeply")


def _facts(tree: nodes.Template) -> TemplateFacts:
    parameters = _parameters(tree)
    fields = _fields(tree)
    takes_tools = bool(parameters & _TOOLS)
    writes_calls = bool(fields & _TOOL_CALLS)
    switch = next((name for name in _SWITCHES if name in parameters), None)
    opens = any(mark in text for text in _texts(tree) for mark in _OPENINGS)
    note = ""
    if writes_calls and not takes_tools:
        note = "its chat template writes tool calls down, but takes no list of tools"
    return TemplateFacts(
        tools=None if note else takes_tools,
        reasoning=switch is not None or opens or bool(fields & _REASONING_FIELDS),
        reasoning_switch=switch,
        note=note,
    )


def _parameters(tree: nodes.Template) -> set[str]:
    """The variables that a caller may pass: read, and not only after the template set them."""
    read_names = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    set_names = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    # `{% if not thinking is defined %}{% set thinking = false %}` gives a parameter its default.
    tested = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
    }
    return (read_names - set_names) | (read_names & tested)


def _fields(tree: nodes.Template) -> set[str]:
    """The fields that are read of messages: `message.x`, `message['x']`, `message.get('x')`."""
    found = {field.attr for field in tree.find_all(nodes.Getattr)}
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            found.add(item.arg.value)
    for call in tree.find_all(nodes.Call):
        is_get = isinstance(call.node, nodes.Getattr) and call.node.attr == "get"
        if is_get and call.args and isinstance(call.args[0], nodes.Const):
            found.add(str(call.args[0].value))
    # `'tool_calls' in message`
    for compared in tree.find_all(nodes.Compare):
        if isinstance(compared.expr, nodes.Const) and isinstance(compared.expr.value, str):
            found.add(compared.expr.value)
    return found


def _texts(tree: nodes.Template) -> list[str]:
    texts = [data.data for data in tree.find_all(nodes.TemplateData)]
    texts += [
        constant.value for constant in tree.find_all(nodes.Const) if isinstance(constant.value, str)
    ]
    return texts
