"""How records move: one file per command, on Ray."""
