"""Every private or undocumented name of another library that wagle uses, one file per library.

Each name sits behind a small function with a contract in ``table.py``: what it must be, what it
is used for, and a test that says so when a new version of the library no longer has it.
"""
