import pytest
from quill_pricing.quantity import QUANTITY_MAX, InvalidQuantity, check_quantity


@pytest.mark.parametrize("quantity", [0, 1, QUANTITY_MAX])
def test_a_whole_number_of_units_is_a_quantity(quantity):
    assert check_quantity(quantity) == quantity


@pytest.mark.parametrize("wrong", [-1, QUANTITY_MAX + 1, True, False, 1.0, "1", None])
def test_anything_else_is_not(wrong):
    with pytest.raises(InvalidQuantity):
        check_quantity(wrong)
