"""The processes that make rollouts: data set, agent loop, seeds, the rollout engine's side of the weight transfer."""
