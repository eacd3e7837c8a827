"""Run the command line: ``python -m wagle``."""

from wagle.cli.app import main

main()
