"""`python -m ltrec`."""

from ltrec.cli import main

main()
