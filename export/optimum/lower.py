"""A decoder → the graph that onnxruntime-genai's builder would write of it: the same operators, names and shapes.

The builder's own primitives make nodes, values and initializers, so that quantization, slots and checks find the
names that they know. Weights come from the model that the builder was given, by the names that were read.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import onnx_ir as ir
import torch

from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.optimum.description import Attention, Decoder, Layer, Linear, Mlp, Norm

_MASK: Final = "/model/attn_mask_reformat/attn_mask_subgraph"
_FLOAT: Final = ir.DataType.FLOAT


def lower(builder: Any, model: torch.nn.Module, decoder: Decoder) -> None:
    """Replace the graph that a builder has made by the lowered graph of `decoder`.

    Args:
        builder: onnxruntime-genai's `Model`; its sizes and names of inputs and outputs are used.
        model: transformers' model, whose parameters become the graph's.
        decoder: the description of Optimum's graph.

    """
    old = builder.model
    graph = ir.Graph((), (), nodes=(), opset_imports=dict(old.graph.opset_imports), name=old.graph.name)
    builder.graph, builder.model = graph, ir.Model(graph, ir_version=old.ir_version, producer_name=old.producer_name)
    builder.values, builder.node_names = {}, set()
    _Lowering(builder, model, decoder).run()


class _Lowering:
    def __init__(self, builder: Any, model: torch.nn.Module, decoder: Decoder) -> None:
        self._b, self._model, self._decoder = builder, model, decoder
        self._residual = ""  # the value that the next norm adds to
        self._branch = ""  # what is added to it; "" at the first norm

    def run(self) -> None:
        self._b.make_inputs_and_outputs()
        self._b.make_preprocessing_nodes()
        for index, rotary in enumerate(self._decoder.rotaries):
            self._b.make_initializer(rotary.cos, f"cos_cache{self._suffix(index)}")
            self._b.make_initializer(rotary.sin, f"sin_cache{self._suffix(index)}")
        self._embed()
        for index, layer in enumerate(self._decoder.layers):
            self._layer(index, layer)
        count = len(self._decoder.layers)
        self._head(self._norm(self._decoder.norm, f"model.layers.{count}.final_norm_layernorm", last=True))

    def _suffix(self, index: int) -> str:
        return f".{index}" if len(self._decoder.rotaries) > 1 else ""

    def _weight(self, name: str) -> torch.Tensor:
        return self._model.get_parameter(name)

    def _embed(self) -> None:
        basename = "/model/embed_tokens"
        value = self._b.make_embedding_lookup(self._weight(f"{EMBEDDING}.weight"), basename, None)
        self._b.make_value(value, _FLOAT, shape=self._b.make_hidden_state_shape())
        if self._decoder.embedding_scale != 1:
            scale = f"/model/constants/FLOAT/{self._decoder.embedding_scale}"
            self._b.make_mul(f"{basename}/Mul", [value, scale], _FLOAT, self._b.make_hidden_state_shape())
            value = f"{basename}/Mul/output_0"
        self._residual = value

    def _layer(self, index: int, layer: Layer) -> None:
        prefix = f"model.layers.{index}"
        x = self._norm(layer.before_attention, f"{prefix}.input_layernorm")
        self._branch = self._attention(index, layer.attention, x)
        if layer.after_attention:
            self._branch = self._norm_alone(layer.after_attention, f"{prefix}.post_attention_layernorm", self._branch)
        name = "pre_feedforward" if layer.after_attention else "post_attention"
        x = self._norm(layer.before_mlp, f"{prefix}.{name}_layernorm")
        self._branch = self._mlp(index, layer.mlp, x)
        if layer.after_mlp:
            self._branch = self._norm_alone(layer.after_mlp, f"{prefix}.post_feedforward_layernorm", self._branch)

    def _norm(self, norm: Norm, name: str, *, last: bool = False) -> str:
        """A norm of the residual; with a branch, of their sum, which becomes the residual."""
        if not self._branch:
            return self._norm_alone(norm, name, self._residual)
        node = f"/{_slashed(name)}"
        total = "" if last else f"{node}/output_3"
        outputs = [f"{node}/output_0", "", "", total] if total else [f"{node}/output_0"]
        self._b.make_node(
            "SkipSimplifiedLayerNormalization",
            inputs=[self._residual, self._branch, self._norm_weight(norm, f"{name}.weight")],
            outputs=outputs,
            name=f"{node}/SkipLayerNorm",
            domain="com.microsoft",
            epsilon=norm.epsilon,
        )
        for value in filter(None, outputs):
            self._b.make_value(value, _FLOAT, shape=self._b.make_hidden_state_shape())
        self._residual = total
        return outputs[0]

    def _norm_alone(self, norm: Norm, name: str, x: str) -> str:
        output = f"/{_slashed(name)}/output_0"
        self._simplified(norm, f"{name}.weight", f"/{_slashed(name)}/LayerNorm", x, output)
        self._b.make_value(output, _FLOAT, shape=self._b.make_hidden_state_shape())
        return output

    def _simplified(self, norm: Norm, weight: str, node: str, x: str, output: str) -> None:
        self._b.make_node(
            "SimplifiedLayerNormalization",
            inputs=[x, self._norm_weight(norm, weight)],
            outputs=[output],
            name=node,
            epsilon=norm.epsilon,
            axis=-1,
            stash_type=1,
        )

    def _norm_weight(self, norm: Norm, name: str) -> str:
        self._b.make_initializer(self._weight(norm.weight) + int(norm.offset), name, to=_FLOAT)
        return name

    def _linear(self, modules: tuple[Linear, ...], basename: str, x: str) -> str:
        """One MatMul for one module or several side by side, and their biases."""
        weights = [self._weight(module.weight) for module in modules]
        weight = torch.cat(weights, dim=0) if len(weights) > 1 else weights[0]
        self._b.make_matmul_float(SimpleNamespace(weight=weight), f"{basename}/MatMul", x)
        biases = [self._weight(module.bias) for module in modules if module.bias]
        if not biases:
            return f"{basename}/MatMul/output_0"
        bias = torch.cat(biases, dim=0) if len(biases) > 1 else biases[0]
        self._b.make_add_bias(bias, f"{basename}/Add", f"{basename}/MatMul/output_0")
        return f"{basename}/Add/output_0"

    def _attention(self, index: int, attention: Attention, x: str) -> str:
        prefix = f"/model/layers.{index}/attn"
        packed = self._linear(attention.qkv, f"{prefix}/qkv_proj", x)
        q, k, v = self._normalized(prefix, packed, attention.norms) if attention.norms else (packed, "", "")
        caches = (
            [f"{which}_cache{self._suffix(attention.rotary)}" for which in ("cos", "sin")]
            if attention.rotary is not None
            else ["", ""]
        )
        name = f"{prefix}/GroupQueryAttention"
        past, present = (
            [f"{kind}.{index}.{which}" for which in ("key", "value")] for kind in ("past_key_values", "present")
        )
        lengths = [f"{_MASK}/Sub/Cast/output_0", f"{_MASK}/Gather/Cast/output_0"]
        self._b.make_node(
            "GroupQueryAttention",
            inputs=[q, k, v, *past, *lengths, *caches, "", "", ""],
            outputs=[f"{name}/output_0", *present],
            name=name,
            domain="com.microsoft",
            num_heads=self._b.num_attn_heads,
            kv_num_heads=self._b.num_kv_heads,
            scale=attention.scale,
            local_window_size=attention.window or -1,
            softcap=0.0,
            do_rotary=int(attention.rotary is not None),
            rotary_interleaved=0,
        )
        self._b.make_value(f"{name}/output_0", _FLOAT, shape=["batch_size", "sequence_length", self._b.q_size])
        return self._linear((attention.out,), f"{prefix}/o_proj", f"{name}/output_0")

    def _normalized(self, prefix: str, packed: str, norms: tuple[Norm, Norm]) -> tuple[str, str, str]:
        """Split q, k and v, and normalize each head of q and k."""
        b = self._b
        split = f"{prefix}/qkv_proj/Split"
        widths = (b.q_size, b.kv_size, b.kv_size)
        parts = [f"{split}/output_{part}" for part in range(3)]
        b.make_split(
            split,
            inputs=[packed, f"/model/constants/INT64/{list(widths)}"],
            outputs=parts,
            dtypes=[_FLOAT] * 3,
            shapes=[["batch_size", "sequence_length", width] for width in widths],
        )
        heads = []
        for which, norm, part, width in zip(("q", "k"), norms, parts, widths, strict=False):
            path = f"{prefix}/{which}_norm"
            count = "sequence_length * num_attention_heads" if which == "q" else "sequence_length * num_key_value_heads"
            shape = ["batch_size", count, b.head_size]
            b.make_reshape(f"{path}/Reshape_1", [part, f"/model/constants/INT64/[0, -1, {b.head_size}]"], _FLOAT, shape)
            node = f"{path}/SimplifiedLayerNormalization"
            weight = f"{path[1:].replace('/', '.')}.layernorm.weight"
            self._simplified(norm, weight, node, f"{path}/Reshape_1/output_0", f"{node}/output_0")
            b.make_value(f"{node}/output_0", _FLOAT, shape=shape)
            whole = [f"{node}/output_0", f"/model/constants/INT64/[0, -1, {width}]"]
            b.make_reshape(f"{path}/Reshape_2", whole, _FLOAT, ["batch_size", "sequence_length", width])
            heads.append(f"{path}/Reshape_2/output_0")
        return heads[0], heads[1], parts[2]

    def _mlp(self, index: int, mlp: Mlp, x: str) -> str:
        prefix = f"/model/layers.{index}/mlp"
        if len(mlp.gate_up) == 2:
            gate, up = (
                self._linear((module,), f"{prefix}/{name}_proj", x)
                for module, name in zip(mlp.gate_up, ("gate", "up"), strict=True)
            )
        else:
            whole, width = self._weight(mlp.gate_up[0].weight), self._b.intermediate_size
            for name, half in (("gate", whole[:width]), ("up", whole[width:])):
                self._b.make_matmul_float(SimpleNamespace(weight=half), f"{prefix}/{name}_proj/MatMul", x)
            gate, up = (f"{prefix}/{name}_proj/MatMul/output_0" for name in ("gate", "up"))
        if mlp.activation == "silu":
            activated = self._b.make_activation_with_mul(index, gate, activation="Sigmoid", domain=None)
        else:
            activated = self._b.make_gelu(index, gate, activation="FastGelu")
        shape = self._b.make_hidden_state_shape(last_dim=self._b.intermediate_size)
        self._b.make_mul(f"{prefix}/Mul", [f"{activated}/output_0", up], _FLOAT, shape)
        return self._linear((mlp.down,), f"{prefix}/down_proj", f"{prefix}/Mul/output_0")

    def _head(self, hidden: str) -> None:
        """Logits of the last position."""
        b, name = self._b, "/lm_head/prune"
        b.make_gather(
            f"{name}/Gather", [hidden, "/model/constants/INT64/-1"], _FLOAT, ["batch_size", b.hidden_size], axis=1
        )
        last = [f"{name}/Gather/output_0", "/model/constants/INT64/[1]"]
        b.make_unsqueeze(f"{name}/Unsqueeze", last, _FLOAT, ["batch_size", 1, b.hidden_size])
        head = SimpleNamespace(weight=self._weight(f"{HEAD}.weight"))
        b.make_matmul_float(head, "/lm_head/MatMul", f"{name}/Unsqueeze/output_0", logits=True, seq_dim=1)


def _slashed(name: str) -> str:
    """`model.layers.0.input_layernorm` → `model/layers.0/input_layernorm`, as nodes are named."""
    model, layers, index, rest = name.split(".", 3)
    return f"{model}/{layers}.{index}/{rest}"
