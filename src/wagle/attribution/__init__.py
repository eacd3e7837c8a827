"""Attribution: gradients of two sets of records, scores of every weight, exact selection."""
