"""Pure pricing: money, quantities, periods, prices, rating, rounding."""
