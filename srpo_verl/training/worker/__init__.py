"""The processes that hold the model: the loss, the teacher, what is read off the logits."""
