"""What several tasks share: rows of files, raw text, written answers, questions about sets."""
