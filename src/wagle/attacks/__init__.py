"""Attacks: does the forgetting hold?"""
