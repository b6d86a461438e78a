"""What no constraint could write is refused at the desk."""

from typing import Any

import pytest

from dualtune_edge.export.plan.constraints import refuse_long_numbers
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.toolset import Tool


def tool(schema: Any) -> Tool:
    return Tool(name="act", parameters={"properties": {"x": schema}})


@pytest.mark.parametrize("number", [2**63, 9_007_199_254_740_993, 123456789.123456789, -12345678901234567])
def test_a_listed_number_of_too_many_digits_is_refused(number: float) -> None:
    for schema in ({"const": number}, {"anyOf": [{"enum": [1, number]}]}, {"const": {"id": [number]}}):
        with pytest.raises(ToolsError, match=r"'act': found .* too many digits"):
            refuse_long_numbers(tool(schema))


@pytest.mark.parametrize("number", [10**20, 0.1, -5, 1e-7, 123456789012345, True])
def test_others_stay(number: float) -> None:
    refuse_long_numbers(tool({"enum": [number, "12345678901234567890"], "default": 2**63}))
