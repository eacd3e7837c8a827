"""Does the mask help? Arms compared over freshly taught units."""
