"""What is looked at while training: rules, looks, warnings."""
