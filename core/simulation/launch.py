"""The launch arguments of an engine for a configuration that was simulated.

Flags as the engines document them:

- vLLM: `vllm serve`, docs.vllm.ai "Engine Arguments", v0.11 to v0.19; a server with data
  parallelism runs tp × dp devices, and its limits hold for each data-parallel rank.
- SGLang: docs.sglang.io "Server Arguments", v0.5; `--tp-size` counts the devices of all ranks
  of data-parallel attention. MTP heads run under the algorithm EAGLE ("Speculative Decoding").
- TensorRT-LLM: `trtllm-serve`, tensorrt_llm/commands/serve.py and "LLM API: LlmArgs", 1.2.
- llama.cpp: `llama-server`, tools/server/README.md and docs/multi-gpu.md, build 8000 and later.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from core.kernel.errors import InvalidInput
from core.simulation.architectures import Architecture
from core.simulation.memory import kv_element_bytes
from core.simulation.scenarios import (
    ENGINES,
    PRECISIONS,
    SPECULATION,
    ModelTable,
    Scenarios,
    native_precision,
    precision_of,
)

# Drafted tokens a step with multi-token prediction: what the measured gain comes from.
_DRAFT_TOKENS = 1
_DEFAULT_BLOCK_TOKENS = 16
_OPTIONS_FILE = "extra_llm_api_options.yaml"
_SOURCE_ID = re.compile(r"config\.json of ([\w.-]+/[\w.-]+)")


@dataclass(frozen=True, kw_only=True)
class Server:
    """One copy of a model on one engine, or one worker of a disaggregated deployment.

    Empty strings, 0 and None leave the choice to the engine.

    Attributes:
        engine: One of ENGINES.
        model: What the engine is to load: a Hugging Face id or a path.
        tp: Devices that share each layer, all ranks of data-parallel attention together.
        dp: Ranks of data-parallel attention.
        precision: Of the weights; `native` is what the checkpoint is stored in.
        kv_precision: `fp8` or `bf16`.
        max_sequences: Most sequences in a step, of all ranks together.
        chunk_tokens: Most tokens in a step.
        max_tokens: Longest input and output of a request together.
        role: `prefill`, `decode`, or "" for both.
    """

    engine: str
    model: str
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    precision: str = ""
    native: str = "bf16"
    kv_precision: str = ""
    max_sequences: int = 0
    chunk_tokens: int = 0
    block_tokens: int = 0
    chunked_prefill: bool | None = None
    prefix_caching: bool | None = None
    max_tokens: int = 0
    speculation: str = "none"
    role: str = ""

    @property
    def sequences_per_rank(self) -> int:
        """`max_sequences` of one rank of data-parallel attention."""
        return math.ceil(self.max_sequences / self.ranks)

    @property
    def ranks(self) -> int:
        """`dp`, where unknown is 1."""
        return max(1, self.dp)


@dataclass(frozen=True)
class Launch:
    """A command, the files it reads, by name, and what to know of it; `copies` are started."""

    command: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    copies: int = 1

    @property
    def text(self) -> str:
        """For a shell: the notes as comments, the files, then the command."""
        lines = [f"# {note}" for note in self.notes]
        if self.copies > 1:
            lines.append(f"# {self.copies} of these")
        for name, content in self.files.items():
            lines.append(f"cat > {name} <<'EOF'\n{content}EOF")
        return "\n".join([*lines, _wrapped(self.command)])


def _wrapped(command: Sequence[str]) -> str:
    """The program with its model on the first line, then a flag with its value on each."""
    lines = [""]
    for word in command:
        if word.startswith("--"):
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n  ".join(lines).strip()


def command(server: Server) -> Launch:
    """How `server` is started.

    Raises:
        InvalidInput: Bud does not know how this engine is started.
    """
    make = _MAKERS.get(server.engine)
    if make is None:
        raise InvalidInput(
            f"Bud does not know how {server.engine} is started.",
            remedy=f"It knows {', '.join(_MAKERS)}.",
        )
    return make(server)


def of_scenario(
    rows: Scenarios, row: int, models: ModelTable, model: str = ""
) -> tuple[Launch, ...]:
    """The servers of one scenario: one command, or those of both sides when disaggregated.

    Args:
        rows: The scenarios.
        row: Which of them.
        models: The table they refer to.
        model: What the engine is to load; empty takes the architecture's own id on the hub.

    Returns:
        Nothing for an engine that Bud does not know how to start.
    """
    engine = ENGINES[int(rows.engine[row])]
    if engine not in _MAKERS:
        return ()
    one = rows.take(slice(row, row + 1))
    shape = models.architectures[int(one.model[0])]
    server = _server(one, models, shape, model)
    replicas = max(1, int(one.replicas[0]))
    if one.mode[0] == 0:
        return (replace(command(_on_devices(server, one, "")), copies=replicas),)
    launches = []
    for side in ("prefill", "decode"):
        worker = replace(_on_devices(server, one, f"{side}_"), role=side)
        workers = max(1, int(getattr(one, f"{side}_workers")[0]))
        launches.append(replace(command(worker), copies=workers * replicas))
    return tuple(launches)


def hub_id(model: Architecture) -> str:
    """The Hugging Face id that a shipped architecture was read from; else its own id."""
    found = _SOURCE_ID.search(model.source)
    return found[1] if found else model.id


def _server(one: Scenarios, models: ModelTable, shape: Architecture, model: str) -> Server:
    engine = ENGINES[int(one.engine[0])]
    precision = precision_of(one, models)
    kv_bytes = float(kv_element_bytes(one, precision)[0])
    block = int(one.block_tokens[0])
    return Server(
        engine=engine,
        model=model or hub_id(shape),
        precision=PRECISIONS[int(precision[0])],
        native=native_precision(shape),
        kv_precision="fp8" if kv_bytes == 1 else "",
        max_sequences=_sequences(one, engine),
        chunk_tokens=int(one.chunk_tokens[0]),
        block_tokens=0 if block == _DEFAULT_BLOCK_TOKENS else block,
        prefix_caching=True if one.prefix_hit_share[0] > 0 else None,
        max_tokens=_longest(one, engine, shape.max_context),
        speculation=SPECULATION[int(one.speculation[0])],
    )


def _sequences(one: Scenarios, engine: str) -> int:
    asked = int(one.max_sequences[0])
    if engine == "llama.cpp" and not asked:
        # It serves as many at once as it has slots, by itself only a few.
        return math.ceil(float(one.concurrency[0]) / max(1.0, float(one.replicas[0])))
    return asked


def _longest(one: Scenarios, engine: str, max_context: int | None) -> int:
    """Tokens of the longest request: twice the mean, for the engine refuses longer ones.

    llama.cpp sets this memory aside for each of its slots, so there it is the mean.
    """
    mean = math.ceil(float(one.isl[0] + one.osl[0]))
    return mean if engine == "llama.cpp" else max(mean, min(2 * mean, max_context or 2 * mean))


def _on_devices(server: Server, one: Scenarios, side: str) -> Server:
    tp, pp, ep, dp = (
        max(1, int(getattr(one, f"{side}{name}")[0])) for name in ("tp", "pp", "ep", "dp")
    )
    return replace(server, tp=tp, pp=pp, ep=ep, dp=dp)


def _flags(pairs: Mapping[str, object]) -> Iterator[str]:
    """`--flag value` of what is set; True is a flag without a value."""
    for flag, value in pairs.items():
        if value is True:
            yield flag
        elif value not in (None, False, 0, "", 1) or (value == 1 and flag in _MEANT_AT_ONE):
            yield from (flag, str(value))


# One sequence at a time is a wish; one device is the default.
_MEANT_AT_ONE = frozenset({
    "--max-num-seqs", "--max-running-requests", "--max_batch_size", "--parallel",
    "--speculative-num-steps", "--speculative-eagle-topk",
})  # fmt: skip


def _is_changed(server: Server) -> bool:
    """Whether the checkpoint must be quantised, or another one taken."""
    return server.precision not in ("", server.native)


def _online_fp8(server: Server) -> str | None:
    """`fp8` where the engine itself can quantise a 16-bit checkpoint."""
    return "fp8" if (server.precision, server.native) == ("fp8", "bf16") else None


def _checkpoint_notes(server: Server) -> tuple[str, ...]:
    if not _is_changed(server) or _online_fp8(server):
        return ()
    return (f"Take a checkpoint of this model that is stored in {server.precision.upper()}.",)


def _vllm(server: Server) -> Launch:
    flags: dict[str, object] = {
        "--tensor-parallel-size": server.tp // server.ranks,
        "--pipeline-parallel-size": server.pp,
        "--data-parallel-size": server.ranks,
        "--enable-expert-parallel": server.ep > 1,
        "--quantization": _online_fp8(server),
        "--kv-cache-dtype": "fp8" if server.kv_precision == "fp8" else None,
        "--max-model-len": server.max_tokens,
        "--max-num-seqs": server.sequences_per_rank,
        "--max-num-batched-tokens": server.chunk_tokens,
        "--block-size": server.block_tokens,
        **_switch("enable-chunked-prefill", server.chunked_prefill),
        **_switch("enable-prefix-caching", server.prefix_caching),
    }
    if server.speculation == "mtp":
        drafts = {"method": "mtp", "num_speculative_tokens": _DRAFT_TOKENS}
        flags["--speculative-config"] = json.dumps(drafts)
    notes = _checkpoint_notes(server)
    if server.role:
        transfer = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        flags["--kv-transfer-config"] = json.dumps(transfer)
        notes += (f"The {server.role} side; a proxy sends each request to both sides.",)
    return Launch(("vllm", "serve", server.model, *_flags(flags)), notes=notes)


def _switch(name: str, value: bool | None) -> dict[str, bool]:
    if value is None:
        return {}
    return {f"--{name}" if value else f"--no-{name}": True}


def _sglang(server: Server) -> Launch:
    flags: dict[str, object] = {
        "--model-path": server.model,
        "--tp-size": server.tp,
        "--pp-size": server.pp,
        "--dp-size": server.ranks,
        "--enable-dp-attention": server.ranks > 1,
        "--ep-size": server.ep,
        "--quantization": _online_fp8(server),
        "--kv-cache-dtype": "fp8_e4m3" if server.kv_precision == "fp8" else None,
        "--context-length": server.max_tokens,
        "--max-running-requests": server.max_sequences,
        "--chunked-prefill-size": -1 if server.chunked_prefill is False else server.chunk_tokens,
        "--page-size": server.block_tokens,
        "--disable-radix-cache": server.prefix_caching is False,
    }
    if server.speculation == "mtp":
        flags |= {
            "--speculative-algorithm": "EAGLE",
            "--speculative-num-steps": _DRAFT_TOKENS,
            "--speculative-eagle-topk": 1,
            "--speculative-num-draft-tokens": _DRAFT_TOKENS + 1,
        }
    notes = _checkpoint_notes(server)
    if server.role:
        flags["--disaggregation-mode"] = server.role
        notes += (
            f"The {server.role} side; join them with: python -m sglang_router.launch_router "
            "--pd-disaggregation --prefill URL --decode URL",
        )
    return Launch(("python", "-m", "sglang.launch_server", *_flags(flags)), notes=notes)


def _trtllm(server: Server) -> Launch:
    flags: dict[str, object] = {
        "--tp_size": server.tp,
        "--pp_size": server.pp,
        "--ep_size": server.ep,
        "--max_batch_size": server.sequences_per_rank,
        "--max_num_tokens": server.chunk_tokens,
        "--max_seq_len": server.max_tokens,
        "--enable_chunked_prefill": server.chunked_prefill is True,
    }
    options = "".join(f"{line}\n" for line in _trtllm_options(server))
    files = {_OPTIONS_FILE: options} if options else {}
    if files:
        flags["--extra_llm_api_options"] = _OPTIONS_FILE
    notes: tuple[str, ...] = ()
    if _is_changed(server):
        notes = (f"Take a checkpoint of this model stored in {server.precision.upper()}.",)
    if server.role:
        notes += (
            f"The {server.role} side; join them with: trtllm-serve disaggregated -c config.yaml",
        )
    return Launch(("trtllm-serve", server.model, *_flags(flags)), files, notes)


def _trtllm_options(server: Server) -> Iterator[str]:
    if server.ranks > 1:
        yield "enable_attention_dp: true"
    cache = [
        f"dtype: {server.kv_precision}" if server.kv_precision == "fp8" else "",
        f"tokens_per_block: {server.block_tokens}" if server.block_tokens else "",
        ""
        if server.prefix_caching is None
        else f"enable_block_reuse: {str(server.prefix_caching).lower()}",
    ]
    if any(cache):
        yield "kv_cache_config:"
        yield from (f"  {line}" for line in cache if line)
    if server.speculation == "mtp":
        yield "speculative_config:"
        yield "  decoding_type: MTP"
        yield f"  num_nextn_predict_layers: {_DRAFT_TOKENS}"
    if server.role:
        yield "cache_transceiver_config:"
        yield "  backend: DEFAULT"


def _llama_cpp(server: Server) -> Launch:
    slots = max(1, server.max_sequences)
    is_tensor = server.tp > 1
    flags: dict[str, object] = {
        "--model": server.model,
        "--n-gpu-layers": "all",
        # Tensor split cannot size the cache by itself, nor quantise it (docs/multi-gpu.md).
        "--split-mode": "tensor" if is_tensor else "layer" if server.pp > 1 else None,
        "--fit": "off" if is_tensor else None,
        "--parallel": server.max_sequences,
        "--ctx-size": slots * server.max_tokens,
        "--batch-size": server.chunk_tokens,
        "--ubatch-size": server.chunk_tokens,
        "--no-cache-prompt": server.prefix_caching is False,
    }
    if server.kv_precision == "fp8" and not is_tensor:
        flags |= {"--flash-attn": "on", "--cache-type-k": "q8_0", "--cache-type-v": "q8_0"}
    notes = () if server.model.endswith(".gguf") else (_gguf_note(server),)
    return Launch(("llama-server", *_flags(flags)), notes=notes)


def _gguf_note(server: Server) -> str:
    kinds = {"int4": "Q4_K_M", "int8": "Q8_0", "fp8": "Q8_0", "fp4": "MXFP4", "bf16": "BF16"}
    kind = kinds[server.precision or server.native]
    return f"--model takes the path of a GGUF file: this model's in {kind}."


_MAKERS: Mapping[str, Callable[[Server], Launch]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm": _trtllm,
    "llama.cpp": _llama_cpp,
}
