"""Private names of other libraries that wagle uses: one file a library, each name with a contract test."""
