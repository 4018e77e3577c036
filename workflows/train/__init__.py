"""`srpo train`: checks, then `verl.trainer.main_ppo`, watched to its end."""
