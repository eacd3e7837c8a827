"""Does the mask help? Arms over units that are taught anew."""
