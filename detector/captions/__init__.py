"""Captions as a training signal: a frozen language model reads the detector's features (LLMDet)."""
