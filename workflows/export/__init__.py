"""`srpo export`: a run's model as a folder that can be given away, and on the Hugging Face hub."""
