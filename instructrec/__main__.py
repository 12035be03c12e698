"""`python -m instructrec` is the `instructrec` command."""

from instructrec.cli import main

main()
