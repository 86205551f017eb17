"""What is learned from records: an open-vocabulary detector on transformers' MM-Grounding-DINO."""
