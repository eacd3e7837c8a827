"""Attacks: does the forgetting hold when somebody tries to undo it?"""
