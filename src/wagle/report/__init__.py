"""What was found, for those who read it: pages and tables of plain data."""
