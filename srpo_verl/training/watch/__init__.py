"""Who is alive and what is being waited for."""
