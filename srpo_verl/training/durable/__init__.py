"""What survives a run: checkpoints, resume, the run record, and the guards whose state they hold."""
