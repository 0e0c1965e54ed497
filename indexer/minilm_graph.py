"""The network of all-MiniLM-L6-v2 as an ONNX graph over its published weights.

A BERT encoder (Devlin et al. 2018, arXiv:1810.04805) of 6 post-norm layers, then the mean over a text's tokens and
the L2 norm. In: `ids` and `mask`, int64[b, t], t <= MAX_TOKENS, mask 1 for a token and 0 for padding. Out: `vectors`,
float32[b, DIM], unit rows. Only standard operators, so any ONNX runtime can run it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

DIM = 384
LAYERS = 6
HEADS = 12
HEAD_DIM = DIM // HEADS
MAX_TOKENS = 256
LAYER_NORM_EPSILON = 1e-12  # the model's own configuration

OPSET = 20  # the first with Gelu
IR_VERSION = 10

# Added to the score of a padding key: its softmax weight becomes exactly 0, so padding cannot move a vector.
MASKED_SCORE = -1e9


class _Graph:
    """An ONNX graph under construction: each operation returns the name of its result.

    Parameters stay outside the model (`external`), because a protobuf of 90 MB would be copied three times on its way
    into a session; scalars and shapes are inside.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.external: dict[str, NDArray[np.float32]] = {}
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        result = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def ints(self, *values: int) -> str:
        return self._constant(np.array(values, dtype=np.int64))

    def scalar(self, value: float) -> str:
        return self._constant(np.array([value], dtype=np.float32))

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def parameter(self, name: str, value: NDArray[np.float32]) -> str:
        self.external[name] = np.ascontiguousarray(value, dtype=np.float32)
        tensor = onnx.TensorProto(
            name=name, data_type=onnx.TensorProto.FLOAT, dims=value.shape, data_location=onnx.TensorProto.EXTERNAL
        )
        # The format demands a location; the session is handed the array itself.
        tensor.external_data.add(key="location", value="memory")
        self._initializers.append(tensor)
        return name

    def linear(self, x: str, layer: str) -> str:
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        product = self.op("MatMul", x, self.parameter(weight, self._weights[weight].T))
        return self.op("Add", product, self.parameter(bias, self._weights[bias]))

    def layer_norm(self, x: str, layer: str) -> str:
        scale, bias = (self.parameter(name, self._weights[name]) for name in (f"{layer}.weight", f"{layer}.bias"))
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def model(self) -> onnx.ModelProto:
        tokens = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["b", "t"]) for name in ("ids", "mask")]
        vectors = helper.make_tensor_value_info("vectors", onnx.TensorProto.FLOAT, ["b", DIM])
        graph = helper.make_graph(self._nodes, "all-MiniLM-L6-v2", tokens, [vectors], self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def build(weights: Mapping[str, NDArray[np.float32]]) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """(serialized model, its external parameters by name) from the published tensors by name."""
    graph = _Graph(weights)
    x = _embeddings(graph, weights)
    mask = graph.op("Cast", "mask", to=onnx.TensorProto.FLOAT)  # [b, t]
    padding = graph.op("Sub", graph.scalar(1.0), mask)
    by_key = graph.op("Unsqueeze", padding, graph.ints(1, 2))  # [b, 1, 1, t]: the same for every head and query
    score_bias = graph.op("Mul", by_key, graph.scalar(MASKED_SCORE))
    for i in range(LAYERS):
        x = _layer(graph, x, score_bias, f"encoder.layer.{i}")
    _pooling(graph, x, mask)
    return graph.model().SerializeToString(), graph.external


def _embeddings(graph: _Graph, weights: Mapping[str, NDArray[np.float32]]) -> str:
    """float32[b, t, DIM]: word + position + token type, normalised. A text is one segment, so the type is always 0."""
    words = graph.parameter("words", weights["embeddings.word_embeddings.weight"])
    places = weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    places_and_type = graph.parameter("places", places + weights["embeddings.token_type_embeddings.weight"][0])
    length = graph.op("Shape", "ids", start=1, end=2)
    first_places = graph.op("Slice", places_and_type, graph.ints(0), length)
    return graph.layer_norm(graph.op("Add", graph.op("Gather", words, "ids"), first_places), "embeddings.LayerNorm")


def _layer(graph: _Graph, x: str, score_bias: str, layer: str) -> str:
    """float32[b, t, DIM]: attention, then two dense layers on each token; each added to its input and normalised."""
    attention = f"{layer}.attention"
    mixed = graph.linear(_attention(graph, x, score_bias, f"{attention}.self"), f"{attention}.output.dense")
    x = graph.layer_norm(graph.op("Add", mixed, x), f"{attention}.output.LayerNorm")
    expanded = graph.op("Gelu", graph.linear(x, f"{layer}.intermediate.dense"))
    contracted = graph.linear(expanded, f"{layer}.output.dense")
    return graph.layer_norm(graph.op("Add", contracted, x), f"{layer}.output.LayerNorm")


def _attention(graph: _Graph, x: str, score_bias: str, layer: str) -> str:
    """float32[b, t, DIM]: scaled dot-product attention of HEADS heads (Vaswani et al. 2017, arXiv:1706.03762)."""
    by_head = graph.ints(0, 0, HEADS, HEAD_DIM)  # 0 keeps the length of that axis

    def projection(part: str, perm: list[int]) -> str:
        flat = graph.linear(x, f"{layer}.{part}")
        return graph.op("Transpose", graph.op("Reshape", flat, by_head), perm=perm)

    query = projection("query", [0, 2, 1, 3])  # [b, HEADS, t, HEAD_DIM]
    key = projection("key", [0, 2, 3, 1])  # [b, HEADS, HEAD_DIM, t]
    value = projection("value", [0, 2, 1, 3])
    scores = graph.op("Mul", graph.op("MatMul", query, key), graph.scalar(HEAD_DIM**-0.5))
    shares = graph.op("Softmax", graph.op("Add", scores, score_bias), axis=-1)
    mixed = graph.op("Transpose", graph.op("MatMul", shares, value), perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.ints(0, 0, DIM))


def _pooling(graph: _Graph, x: str, mask: str) -> None:
    """The output: mean of x over the tokens that are not padding, at length 1."""
    token_axis = graph.ints(1)
    total = graph.op("Squeeze", graph.op("MatMul", graph.op("Unsqueeze", mask, token_axis), x), token_axis)
    mean = graph.op("Div", total, graph.op("ReduceSum", mask, token_axis, keepdims=1))
    graph.op("LpNormalization", mean, axis=-1, p=2, output="vectors")
