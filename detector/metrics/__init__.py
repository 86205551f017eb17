"""Official figures from result files; nothing here imports torch."""
