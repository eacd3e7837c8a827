"""Many runs: the arms of a comparison, over units that are taught anew."""
