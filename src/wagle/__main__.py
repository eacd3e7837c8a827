"""Run the command line: ``python -m wagle``."""

from wagle.cli import main

main()
