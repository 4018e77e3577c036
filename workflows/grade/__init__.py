"""`srpo grade`: what a reward function says to a file of completions, and where other graders disagree."""
