"""What the simulator knows of a model: its shape, and the arithmetic on it.

Biases, norms, rotary tables and vision towers are left out: together they are under 1% of a
language model's weights. Counts are floats, because they are only ever multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass

# DeepSeek's sparse-attention indexer keeps its keys in FP8, with a float32 scale for each 128.
_INDEXER_BYTES_PER_ELEMENT = 132 / 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder-only model. 0 stands for "has none of it".

    `full_layers`, `window_layers` and `linear_layers` say how each layer mixes tokens;
    `moe_layers` and `bare_layers` say what follows it. Each adds up to `layers` with, for the
    first, layers that mix nothing, and for the second, layers with a dense MLP.
    """

    id: str
    family: str
    layers: int
    hidden: int
    vocab: int
    tied_embeddings: bool
    heads: int
    kv_heads: int  # the most of any layer, where layers differ
    head_dim: int
    v_head_dim: int
    intermediate: int  # width of a dense MLP
    gated_mlp: bool  # three matrices (SwiGLU, GeGLU) instead of two
    moe_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_expert_intermediate: int = 0  # of all shared experts together
    expert_hidden: int = 0  # input width of a routed expert when it is not `hidden`
    kv_lora_rank: int = 0  # multi-head latent attention (MLA): the cached latent
    q_lora_rank: int = 0
    qk_rope_head_dim: int = 0
    qk_nope_head_dim: int = 0
    output_groups: int = 0  # DeepSeek-V4: heads that share a low-rank output projection,
    output_lora_rank: int = 0  # and its rank
    index_heads: int = 0  # DeepSeek sparse attention (DSA): heads of the indexer,
    index_head_dim: int = 0  # their width,
    index_topk: int = 0  # and the tokens it lets a query attend to
    index_layers: int = 0  # layers with an indexer of their own
    attention_gate: bool = False  # the query projection also makes an output gate
    full_layers: int = 0
    window_layers: int = 0
    window: int = 0  # tokens
    window_kv_heads: int = 0  # of the window layers, where they differ from `kv_heads`
    linear_layers: int = 0  # linear attention or state space
    linear_state_bytes: int = 0  # of one sequence in one such layer
    linear_params_per_layer: int = 0
    mean_kv_heads: float = 0.0  # over the full layers, where they differ (variable GQA)
    bare_layers: int = 0  # layers without an MLP
    native_precision: str = "bf16"  # of the checkpoint's linear layers
    only_experts_quantized: bool = False  # the rest of the checkpoint is BF16
    max_context: int | None = None
    stored_bytes: int = 0  # of the file that holds the weights; 0 where none is known
    source: str = ""

    @property
    def is_moe(self) -> bool:
        """Whether some layers choose among experts."""
        return self.moe_layers > 0

    @property
    def is_mla(self) -> bool:
        """Whether the KV cache is a latent shared by all heads, and so copied to each TP rank."""
        return self.kv_lora_rank > 0

    @property
    def dense_layers(self) -> int:
        """Layers with a dense MLP."""
        return self.layers - self.moe_layers - self.bare_layers

    @property
    def attention_params(self) -> float:
        """Of one full-attention layer: query, key, value and output projections, and indexer."""
        if self.is_mla:
            return self._mla_params
        return self._gqa_params(self.mean_kv_heads or self.kv_heads)

    @property
    def window_attention_params(self) -> float:
        """Of one sliding-window layer."""
        if self.is_mla:
            return self._mla_params
        return self._gqa_params(self.window_kv_heads or self.kv_heads)

    def _gqa_params(self, kv_heads: float) -> float:
        query = self.heads * self.head_dim * (2 if self.attention_gate else 1)
        key_value = kv_heads * (self.head_dim + self.v_head_dim)
        return self.hidden * (query + key_value + self.heads * self.v_head_dim)

    @property
    def _mla_params(self) -> float:
        # DeepSeek-V2 (arXiv 2405.04434), section 2.1: low-rank queries, one latent for keys and
        # values, and rotary key dimensions shared by all heads.
        query_width = self.heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        if self.q_lora_rank:
            query = self.q_lora_rank * (self.hidden + query_width)
        else:
            query = self.hidden * query_width
        latent = self.hidden * (self.kv_lora_rank + self.qk_rope_head_dim)
        expand = self.kv_lora_rank * self.heads * (self.qk_nope_head_dim + self.v_head_dim)
        output = self.heads * self.v_head_dim * self.hidden
        if self.output_groups:
            # The heads use the latent as it is, and each group of them projects it down first.
            expand = 0
            output = self.output_lora_rank * (
                self.heads * self.v_head_dim + self.output_groups * self.hidden
            )
        # Not every layer has an indexer; all take an equal share of those there are.
        attention_layers = max(self.full_layers + self.window_layers, 1)
        indexer = self._indexer_params * self.index_layers / attention_layers
        return query + latent + expand + output + indexer

    @property
    def _indexer_params(self) -> float:
        # DeepSeek-V3.2 report (arXiv 2512.02556): queries from the query latent, one key a
        # token, one weight a head.
        queries = self.q_lora_rank * self.index_heads * self.index_head_dim
        return queries + self.hidden * (self.index_head_dim + self.index_heads)

    @property
    def dense_mlp_params(self) -> float:
        """Of one layer's dense MLP."""
        return self._mlp_params(self.hidden, self.intermediate)

    @property
    def expert_params(self) -> float:
        """Of one routed expert of one layer."""
        return self._mlp_params(self.expert_hidden or self.hidden, self.expert_intermediate)

    @property
    def shared_params(self) -> float:
        """Of one MoE layer outside its routed experts: shared experts and latent projections."""
        latent = 2 * self.hidden * self.expert_hidden
        return self._mlp_params(self.hidden, self.shared_expert_intermediate) + latent

    def _mlp_params(self, hidden: int, width: int) -> float:
        return float((3 if self.gated_mlp else 2) * hidden * width)

    @property
    def router_params(self) -> float:
        """Of one MoE layer."""
        return float(self.hidden * self.experts)

    @property
    def output_head_params(self) -> float:
        """The matrix that turns a hidden state into logits, tied or not."""
        return float(self.hidden * self.vocab)

    @property
    def embedding_params(self) -> float:
        """Input embedding and output head; one matrix when they are tied."""
        return self.output_head_params * (1 if self.tied_embeddings else 2)

    @property
    def mixing_params(self) -> float:
        """Of all attention and linear-attention layers."""
        return (
            self.full_layers * self.attention_params
            + self.window_layers * self.window_attention_params
            + self.linear_layers * self.linear_params_per_layer
        )

    @property
    def total_params(self) -> float:
        """All weights."""
        moe = self.experts * self.expert_params + self.shared_params + self.router_params
        mlp = self.dense_layers * self.dense_mlp_params + self.moe_layers * moe
        return self.mixing_params + mlp + self.embedding_params

    @property
    def active_params(self) -> float:
        """Weights that one token is multiplied with.

        The output head counts, the input embedding does not: it is a look-up of one row.
        """
        moe = self.experts_per_token * self.expert_params + self.shared_params + self.router_params
        mlp = self.dense_layers * self.dense_mlp_params + self.moe_layers * moe
        return self.mixing_params + mlp + self.output_head_params

    @property
    def kv_elements_per_layer(self) -> float:
        """Cached elements of one token in one full-attention layer."""
        if self.is_mla:
            return float(self.kv_lora_rank + self.qk_rope_head_dim)
        return (self.mean_kv_heads or self.kv_heads) * (self.head_dim + self.v_head_dim)

    def kv_bytes_per_token(self, kv_bytes_per_element: float) -> float:
        """Of one token over all full-attention layers, and the indexer's keys.

        With MLA every tensor-parallel rank holds all of it.
        """
        indexer = self.index_layers * self.index_head_dim * _INDEXER_BYTES_PER_ELEMENT
        return self.full_layers * self.kv_elements_per_layer * kv_bytes_per_element + indexer

    def window_bytes_per_token(self, kv_bytes_per_element: float) -> float:
        """Of one token over all sliding-window layers; at most `window` tokens are kept."""
        if self.is_mla:
            return self.window_layers * self.kv_elements_per_layer * kv_bytes_per_element
        heads = self.window_kv_heads or self.kv_heads
        return self.window_layers * heads * (self.head_dim + self.v_head_dim) * kv_bytes_per_element

    def sequence_bytes(self, tokens: float, kv_bytes_per_element: float) -> float:
        """Cache and state of one sequence of `tokens`, over all layers, on one device."""
        return (
            tokens * self.kv_bytes_per_token(kv_bytes_per_element)
            + min(tokens, self.window) * self.window_bytes_per_token(kv_bytes_per_element)
            + self.linear_layers * self.linear_state_bytes
        )
