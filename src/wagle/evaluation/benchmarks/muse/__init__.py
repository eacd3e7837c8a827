"""MUSE: its data and its six criteria."""
