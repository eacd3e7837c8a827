"""Speed, memory and ground truth of wagle, measured; each figure is shown with its bound."""
