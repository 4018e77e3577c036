"""One function per benchmark: a row of the source becomes a question."""
