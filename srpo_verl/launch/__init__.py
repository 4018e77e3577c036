"""What is checked and set before Ray starts."""
