"""Speed, memory and ground truth of wagle, measured; each figure stands beside its bound."""
