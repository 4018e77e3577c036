"""The built-in graders, one file each."""
