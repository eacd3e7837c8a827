"""Monitoring during training: rules, looks and warnings."""
