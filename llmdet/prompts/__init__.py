"""Prompts: named, versioned texts with the parsers of their answers."""
