"""Attacks on a federation, for simulations only: no coordinator and no node can import them."""
