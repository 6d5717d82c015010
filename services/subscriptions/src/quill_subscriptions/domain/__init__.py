"""Pure: products, customers, what they may use and what it costs. No framework, no clock, no I/O."""
