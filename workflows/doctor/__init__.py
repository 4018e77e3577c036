"""`srpo doctor`: what is wrong with this machine or this config, and how to mend it."""
