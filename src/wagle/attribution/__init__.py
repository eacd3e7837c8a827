"""Attribution: gradients of both sets, scores made of them, masks made of scores."""
