"""What several tasks share: rows of files, raw text, what was written, and questions of sets."""
