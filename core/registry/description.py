"""What a model's files say of it, as one typed record."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FileFormat = Literal["gguf", "safetensors", "pytorch"]
Relation = Literal["finetune", "quantized", "adapter", "merge"]

# The fields that are columns of a model's row; the rest is kept in `extracted`.
_COLUMNS = (
    "size_bytes", "architecture", "parameters", "quantization", "context_tokens", "layers",
    "heads", "kv_heads", "key_length", "value_length", "embedding_length", "vocabulary",
    "chat_template", "licence", "capabilities",
)  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Quantisation(_Record):
    """How the weights are stored in fewer bits; `bits` of one weight, `group_size` of one scale."""

    method: str
    label: str
    bits: int | None = None
    group_size: int | None = None
    format: str | None = None


class Adapter(_Record):
    """A LoRA or another adapter; `rank` and `alpha` as PEFT names them."""

    method: str | None = None
    base_model: str | None = None
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] = ()
    task: str | None = None


class Description(_Record):
    """What the files of a model say; None, or an empty tuple, where they are silent.

    Sizes are in bytes, lengths in tokens or elements. `parameters` is the exact sum over the
    tensors' shapes, packed tensors counted as the weights they hold, unless
    `parameters_estimated`; `active_parameters` are those that one token uses. `notes` says what
    could not be read.
    """

    format: FileFormat | None = None
    kind: Literal["model", "adapter"] = "model"
    size_bytes: int

    architecture: str | None = None
    architecture_class: str | None = None
    parameters: int | None = None
    parameters_estimated: bool = False
    active_parameters: int | None = None
    precision: str | None = None
    quantization: str | None = None
    quantisation: Quantisation | None = None
    context_tokens: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    key_length: int | None = None
    value_length: int | None = None
    embedding_length: int | None = None
    intermediate_length: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    shared_experts: int | None = None

    vocabulary: int | None = None
    tokenizer: str | None = None
    special_tokens: dict[str, str] = {}
    generation: dict[str, Any] = {}
    chat_template: bool | None = None
    tools: bool | None = None
    reasoning: bool | None = None
    reasoning_switch: str | None = None
    modalities_in: tuple[str, ...] = ()
    modalities_out: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    custom_code: bool = False

    title: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    licence_file: str | None = None
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    base_model_relation: Relation | None = None
    pipeline_tag: str | None = None
    library: str | None = None
    tags: tuple[str, ...] = ()
    adapter: Adapter | None = None
    notes: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """The columns of a model's row, with the whole record as JSON in `extracted`."""
        whole = self.model_dump(mode="json")
        return {name: whole[name] for name in _COLUMNS} | {"extracted": whole}
