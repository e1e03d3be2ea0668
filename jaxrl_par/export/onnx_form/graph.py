"""A program in ONNX while it is written. Values are called by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_par.lazy import late

onnx: Any = late("onnx")
helper: Any = late("onnx.helper")
numpy_helper: Any = late("onnx.numpy_helper")

# With LayerNormalization, and old enough for runtimes of 2022.
_OPSET, _IR = 17, 8

Value = str | np.ndarray | np.generic
"""What a node gave, by its name, or a constant."""


class Graph:
    """Nodes in the order in which they were added."""

    def __init__(self):
        self._nodes, self._inputs, self._constants = [], [], {}

    def __call__(self, operation: str, *inputs: Value, **attributes: Any) -> str:
        """The output of a new node."""
        (output,) = self._add(operation, inputs, 1, attributes)
        return output

    def split(self, x: Value, parts: int | Sequence[int]) -> list[str]:
        """Parts of the second axis of [B, D]: so many equal ones, or of these sizes."""
        if isinstance(parts, int):
            return self._add("Split", [x], parts, {"axis": 1})
        return self._add(
            "Split", [x, np.array(parts, np.int64)], len(parts), {"axis": 1}
        )

    def input(self, name: str, dtype: Any, shape: Sequence[int]) -> str:
        """An input [B, *shape] of the program."""
        self._inputs.append((name, np.dtype(dtype), tuple(shape)))
        return name

    def cast(self, x: Value, dtype: Any) -> str:
        """As numbers of another kind."""
        return self("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def rows(self, x: Value, *shape: int) -> str:
        """[B, ...] as [B, *shape]."""
        return self("Reshape", x, np.array([0, *shape], np.int64))

    def axes(self, x: Value, *axes: int) -> str:
        """With new axes of one element there."""
        return self("Unsqueeze", x, np.array(axes, np.int64))

    def like(self, x: Value, other: Value) -> str:
        """Broadcast to the shape of the other."""
        return self("Expand", x, self("Shape", other))

    def finish(
        self, outputs: Mapping[str, tuple[str, Any, Sequence[int]]]
    ) -> tuple[bytes, dict[str, Any]]:
        """The program's file, and what inputs and outputs are called.

        Args:
          outputs: by name the value, its dtype and its shape behind B.
        """
        for name, (value, _, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        given = [(name, np.dtype(d), tuple(s)) for name, (_, d, s) in outputs.items()]
        constants = [
            numpy_helper.from_array(x, name) for x, name in self._constants.values()
        ]
        both = [[_told(*x) for x in side] for side in (self._inputs, given)]
        graph = helper.make_graph(self._nodes, "step", *both, constants)
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR, producer_name="jaxrl_par"
        )
        onnx.checker.check_model(model, full_check=True)
        names = {
            side: [
                {"name": n, "shape": ["batch", *s], "dtype": str(d)} for n, d, s in x
            ]
            for side, x in (("inputs", self._inputs), ("outputs", given))
        }
        return model.SerializeToString(), names

    def _add(
        self, operation: str, inputs: Sequence[Value], count: int, attributes: Any
    ) -> list[str]:
        number = len(self._nodes)
        outputs = [f"{operation}_{number}_{i}" for i in range(count)]
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        node = helper.make_node(operation, names, outputs, **attributes)
        self._nodes.append(node)
        return outputs

    def _constant(self, x: np.ndarray | np.generic) -> str:
        x = np.asarray(x, order="C")
        key = (x.dtype.str, x.shape, x.tobytes())
        if key not in self._constants:
            self._constants[key] = (x, f"constant_{len(self._constants)}")
        return self._constants[key][1]


def _told(name: str, dtype: np.dtype, shape: Sequence[int]) -> Any:
    number = helper.np_dtype_to_tensor_dtype(dtype)
    return helper.make_tensor_value_info(name, number, ["batch", *shape])
