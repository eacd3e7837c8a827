"""Every private or undocumented name of another library that wagle uses, one file a library.

Each name stands behind a small function with a contract in ``table.py``: what it has to be, what
for, and a test that says so when a new version of the library no longer has it.
"""
