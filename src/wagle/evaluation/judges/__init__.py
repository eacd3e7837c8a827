"""Models that judge texts: classifiers and sentence encoders."""
