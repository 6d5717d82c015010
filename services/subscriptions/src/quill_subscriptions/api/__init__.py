"""HTTP: the product's billing calls, the operators' calls, and who may make them."""
