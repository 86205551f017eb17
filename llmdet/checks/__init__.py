"""Checks of captions against boxes: pure functions, one file for each kind of claim."""
