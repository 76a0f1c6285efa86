"""The text that names are hashed from."""

import pytest

from bnft.common.canonical import canonical


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ({"a": {"d": [1, 2], "c": "x y"}}, '{"a":{"c":"x y","d":[1,2]}}'),
        ({"a": None, "b": {}, "c": {"d": None, "e": {"f": {}}}}, "{}"),
        ({"a": [None, {"b": None}], "c": []}, '{"a":[null,{}],"c":[]}'),
        ({"a": (1, 2)}, '{"a":[1,2]}'),
        ({"a": False, "b": 0, "c": ""}, '{"a":false,"b":0,"c":""}'),
        ({"lr": 5e-4, "eps": 8 / 255, "final": 0.0}, '{"eps":0.03137254901960784,"final":0.0,"lr":0.0005}'),
        ({"name": "é"}, '{"name":"\\u00e9"}'),
        ({1: "a"}, '{"1":"a"}'),
    ],
)
def test_canonical_form(value, text):
    assert canonical(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_has_no_canonical_form(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"lr": value})
