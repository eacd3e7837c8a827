"""Faults: what becomes of a run that is killed, stopped, out of disk, damaged or started twice."""
