"""Engines answer caption requests; each module is one of them."""
