"""A `.tflite` graph written again as ONNX, for onnxruntime: the same numbers, rounded in the same places.

Knows the operators of the manifest's networks. Maps are (n, h, w, c) there, (n, c, h, w) here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT8: np.int8,
}
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
CLAMPS = {schema.ActivationFunctionType.RELU6: (0.0, 6.0), schema.ActivationFunctionType.RELU: (0.0, None)}
OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def onnx_twin(content: bytes) -> bytes:
    """The ONNX file of a `.tflite` file; takes float32 (n, h, w, c), gives what the graph gives, as float32.

    Raises ValueError for an operator that is not known here.
    """
    return _Writer(content).write()


class _Writer:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
        self.graph = self.model.subgraphs[0]
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.widened: dict[int, np.ndarray] = {}

    def write(self) -> bytes:
        inputs = [self._port(i, "input") for i in self.graph.inputs]
        for i, port in zip(self.graph.inputs, inputs, strict=True):
            self._rounded(self._add("Transpose", [port.name], perm=TO_FIRST), i)
        for operator in self.graph.operators:
            code = self.model.operatorCodes[operator.opcodeIndex]
            name = OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if name == "DEQUANTIZE":
                self._widen(operator)
                continue
            if name not in _KNOWN:
                raise ValueError(f"the operator {name} is not known here")
            result = _KNOWN[name](self, operator)
            low, high = CLAMPS.get(
                getattr(operator.builtinOptions, "fusedActivationFunction", None), (None, None)
            )
            if low is not None:
                limits = [self._constant(np.float32(v)) if v is not None else "" for v in (low, high)]
                result = self._add("Clip", [result, *limits])
            self._rounded(result, operator.outputs[0])
        outputs = [self._port(i, f"output{number}") for number, i in enumerate(self.graph.outputs)]
        for i, port in zip(self.graph.outputs, outputs, strict=True):
            last = (
                {"op_type": "Transpose", "perm": TO_LAST} if self._rank(i) == 4 else {"op_type": "Identity"}
            )
            self.nodes.append(helper.make_node(inputs=[self._name(i)], outputs=[port.name], **last))
        graph = helper.make_graph(self.nodes, "twin", inputs, outputs, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(made)
        return bytes(made.SerializeToString())

    def _port(self, index: int, name: str) -> Any:
        return helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [int(n) for n in self.graph.tensors[index].shape]
        )

    def _name(self, index: int) -> str:
        """The float32 value of a tensor, dequantised here if it is a constant."""
        data = self._data(index)
        if data is None:
            return f"tensor{index}"
        scale, zero, axis = self._quantisation(index)
        if scale is not None:
            scale = scale.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
            data = (data.astype(np.float32) - np.float32(zero)) * scale
        return self._constant(data)

    def _rank(self, index: int) -> int:
        return len(self.graph.tensors[index].shape)

    def _widen(self, operator: Any) -> None:
        """DEQUANTIZE of half-precision weights, which are constants."""
        data = self._data(operator.inputs[0])
        if data is None:
            raise ValueError("DEQUANTIZE of what is no constant is not known here")
        self.widened[operator.outputs[0]] = data.astype(np.float32)

    def _data(self, index: int) -> np.ndarray | None:
        if index in self.widened:
            return self.widened[index]
        tensor = self.graph.tensors[index]
        buffer = self.model.buffers[tensor.buffer]
        data = b"" if buffer.data is None else bytes(buffer.data)
        if buffer.offset:  # kept behind the flatbuffer
            data = self.content[buffer.offset : buffer.offset + buffer.size]
        return np.frombuffer(data, TYPES[tensor.type]).reshape(tensor.shape) if data else None

    def _quantisation(self, index: int) -> tuple[np.ndarray | None, int, int]:
        """Scales, zero, and the axis of the scales; no scales if the tensor is of floats."""
        facts = self.graph.tensors[index].quantization
        if facts is None or facts.scale is None or not len(facts.scale):
            return None, 0, 0
        return np.asarray(facts.scale, np.float32), int(facts.zeroPoint[0]), int(facts.quantizedDimension)

    def _constant(self, value: np.ndarray | np.generic) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        )
        return name

    def _add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _rounded(self, value: str, index: int) -> None:
        """Let `value` be the tensor's, as 8-bit whole numbers if the tensor is of those."""
        scale, zero, _ = self._quantisation(index)
        if scale is not None:
            limits = [self._constant(scale[0]), self._constant(np.int8(zero))]
            value = self._add("DequantizeLinear", [self._add("QuantizeLinear", [value, *limits]), *limits])
        self.nodes.append(helper.make_node("Identity", [value], [f"tensor{index}"]))

    def _weights(self, index: int, order: tuple[int, ...]) -> str:
        """A weight as float32, kept in whole numbers with a scale for each output channel."""
        data, (scale, _, axis) = self._data(index), self._quantisation(index)
        assert data is not None
        kept = self._constant(data.transpose(order))
        if scale is None:
            return kept
        axis = order.index(axis)
        channels = data.shape[order[axis]]
        limits = [np.broadcast_to(scale, channels), np.zeros(channels, data.dtype)]
        return self._add("DequantizeLinear", [kept, *map(self._constant, limits)], axis=axis)

    def _bias(self, operator: Any) -> list[str]:
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return []
        return [self._weights(operator.inputs[2], (0,))]

    def conv(self, operator: Any) -> str:
        """CONV_2D, weights (o, h, w, i)."""
        weights = self._weights(operator.inputs[1], (0, 3, 1, 2))
        return self._convolved(operator, weights, 1)

    def depthwise(self, operator: Any) -> str:
        """DEPTHWISE_CONV_2D, weights (1, h, w, c)."""
        weights = self._weights(operator.inputs[1], (3, 0, 1, 2))
        return self._convolved(operator, weights, int(self.graph.tensors[operator.inputs[1]].shape[3]))

    def _convolved(self, operator: Any, weights: str, groups: int) -> str:
        options = operator.builtinOptions
        padding = "SAME_UPPER" if options.padding == schema.Padding.SAME else "VALID"
        return self._add(
            "Conv",
            [self._name(operator.inputs[0]), weights, *self._bias(operator)],
            group=groups,
            auto_pad=padding,
            strides=[options.strideH, options.strideW],
            dilations=[options.dilationHFactor, options.dilationWFactor],
        )

    def linear(self, operator: Any) -> str:
        """FULLY_CONNECTED, weights (o, i), of a (1, i) tensor."""
        weights = self._weights(operator.inputs[1], (0, 1))
        return self._add("Gemm", [self._name(operator.inputs[0]), weights, *self._bias(operator)], transB=1)

    def elementwise(self, kind: str) -> Callable[[Any], str]:
        def write(operator: Any) -> str:
            maps = self._rank(operator.outputs[0]) == 4
            names = []
            for index in operator.inputs:
                name, data = self._name(index), self._data(index)
                if data is not None and data.ndim and maps:
                    shape = self._constant(np.array([1, data.size, 1, 1], np.int64))
                    name = self._add("Reshape", [name, shape])
                names.append(name)
            return self._add(kind, names)

        return write

    def concatenate(self, operator: Any) -> str:
        """CONCATENATION."""
        rank = self._rank(operator.outputs[0])
        axis = self._axis(operator.builtinOptions.axis % rank, rank)
        return self._add("Concat", [self._name(i) for i in operator.inputs], axis=axis)

    def _axis(self, axis: int, rank: int) -> int:
        return TO_FIRST.index(axis) if rank == 4 else axis

    def resize(self, operator: Any) -> str:
        """RESIZE_BILINEAR with half-pixel centres."""
        assert operator.builtinOptions.halfPixelCenters and not operator.builtinOptions.alignCorners
        shape = self.graph.tensors[operator.outputs[0]].shape
        sizes = self._constant(np.array([shape[i] for i in TO_FIRST], np.int64))
        source = self._name(operator.inputs[0])
        mode = "half_pixel"
        return self._add(
            "Resize", [source, "", "", sizes], mode="linear", coordinate_transformation_mode=mode
        )

    def mean(self, operator: Any) -> str:
        """MEAN over constant axes."""
        axes, rank = self._data(operator.inputs[1]), self._rank(operator.inputs[0])
        assert axes is not None
        keep = int(bool(operator.builtinOptions.keepDims))
        source = self._name(operator.inputs[0])
        found = [self._axis(int(axis) % rank, rank) for axis in axes.flatten()]
        # What is left of a map keeps its order, batch before channels, whichever two axes went.
        return self._add("ReduceMean", [source], axes=found, keepdims=keep)

    def transpose(self, operator: Any) -> str:
        """TRANSPOSE by a constant order."""
        order = self._data(operator.inputs[1])
        assert order is not None
        order = [int(i) for i in order]
        if len(order) == 4:
            order = [TO_FIRST.index(order[i]) for i in TO_FIRST]
        return self._add("Transpose", [self._name(operator.inputs[0])], perm=order)

    def slice(self, operator: Any) -> str:
        """SLICE with constant begin and size; -1 is the rest."""
        begin, size = (self._data(i) for i in operator.inputs[1:3])
        assert begin is not None and size is not None
        rank = self._rank(operator.inputs[0])
        ends = [int(b + s) if s >= 0 else np.iinfo(np.int64).max for b, s in zip(begin, size, strict=True)]
        axes = [self._axis(i, rank) for i in range(rank)]
        limits = [self._constant(np.array(v, np.int64)) for v in (begin, ends, axes)]
        return self._add("Slice", [self._name(operator.inputs[0]), *limits])

    def pool(self, operator: Any) -> str:
        """MAX_POOL_2D."""
        options = operator.builtinOptions
        return self._add(
            "MaxPool",
            [self._name(operator.inputs[0])],
            kernel_shape=[options.filterHeight, options.filterWidth],
            strides=[options.strideH, options.strideW],
            auto_pad="SAME_UPPER" if options.padding == schema.Padding.SAME else "VALID",
        )

    def pad(self, operator: Any) -> str:
        """PAD of a map with zeros."""
        amounts = self._data(operator.inputs[1])
        assert amounts is not None and len(amounts) == 4
        pads = self._constant(amounts[list(TO_FIRST)].T.astype(np.int64).ravel())
        return self._add("Pad", [self._name(operator.inputs[0]), pads])

    def reshape(self, operator: Any) -> str:
        """RESHAPE: rows are read as they lie there."""
        source = self._name(operator.inputs[0])
        if self._rank(operator.inputs[0]) == 4:
            source = self._add("Transpose", [source], perm=TO_LAST)
        shape = [int(n) for n in self.graph.tensors[operator.outputs[0]].shape]
        made = self._add("Reshape", [source, self._constant(np.array(shape, np.int64))])
        return self._add("Transpose", [made], perm=TO_FIRST) if len(shape) == 4 else made

    def prelu(self, operator: Any) -> str:
        """PRELU with a slope for each channel."""
        slopes = self._data(operator.inputs[1])
        assert slopes is not None and slopes.size == slopes.shape[-1]
        slope = self._constant(slopes.reshape(-1, 1, 1))
        return self._add("PRelu", [self._name(operator.inputs[0]), slope])

    def one(self, kind: str) -> Callable[[Any], str]:
        return lambda operator: self._add(kind, [self._name(operator.inputs[0])])

    def clamp(self, operator: Any) -> str:
        """RELU6."""
        limits = [self._constant(np.float32(v)) for v in (0, 6)]
        return self._add("Clip", [self._name(operator.inputs[0]), *limits])


_KNOWN: dict[str, Callable[[_Writer, Any], str]] = {
    "CONV_2D": _Writer.conv,
    "DEPTHWISE_CONV_2D": _Writer.depthwise,
    "FULLY_CONNECTED": _Writer.linear,
    "ADD": lambda writer, operator: writer.elementwise("Add")(operator),
    "MUL": lambda writer, operator: writer.elementwise("Mul")(operator),
    "SUB": lambda writer, operator: writer.elementwise("Sub")(operator),
    "CONCATENATION": _Writer.concatenate,
    "RESIZE_BILINEAR": _Writer.resize,
    "MEAN": _Writer.mean,
    "TRANSPOSE": _Writer.transpose,
    "SLICE": _Writer.slice,
    "RELU6": _Writer.clamp,
    "MAX_POOL_2D": _Writer.pool,
    "PAD": _Writer.pad,
    "RESHAPE": _Writer.reshape,
    "PRELU": _Writer.prelu,
    "RELU": lambda writer, operator: writer.one("Relu")(operator),
    "LOGISTIC": lambda writer, operator: writer.one("Sigmoid")(operator),
    "QUANTIZE": lambda writer, operator: writer.one("Identity")(operator),
}
