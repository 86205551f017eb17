"""`python -m cli`: the same commands where the console script is not installed, as in a job of a Ray cluster."""

from cli.main import main

main()
