"""Results for readers: pages and tables of plain data."""
