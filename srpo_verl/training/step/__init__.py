"""The driver's process: one step of SRPO on verl's synchronous trainer."""
