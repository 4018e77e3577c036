"""One training step as a page to look at: routes, weights, divergence, token by token."""
