import contextlib

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dualtune_edge.runtime.engines.plain_inputs import without_defaults


def model() -> onnx.ModelProto:
    """y = x + slot + weight; `slot` is an input with a default of rank 0, `weight` a constant."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "slot")]
    constants = [helper.make_tensor("weight", TensorProto.FLOAT, [1], [2.0])]
    constants.insert(0, helper.make_tensor("slot", TensorProto.FLOAT, [0], []))
    nodes = [helper.make_node("Add", ["x", "slot"], ["sum"]), helper.make_node("Add", ["sum", "weight"], ["y"])]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "g", values, [result], initializer=constants, doc_string="x" * 300)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], producer_name="tests")


def test_only_the_defaults_of_inputs_are_left_out() -> None:
    expected = model()
    assert expected.graph.initializer[0].name == "slot"
    del expected.graph.initializer[0]
    assert onnx.load_from_string(without_defaults(model().SerializeToString())) == expected


def test_a_graph_without_defaults_stays_as_it_is() -> None:
    plain = without_defaults(model().SerializeToString())
    assert without_defaults(plain) == plain


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_cut_off_file_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="ends behind the message"):
        without_defaults(model().SerializeToString()[:-cut])


@given(st.binary(max_size=64))
def test_any_bytes_end_in_bytes_or_in_one_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(without_defaults(data), bytes)
