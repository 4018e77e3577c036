"""What every part may use, and what uses none of them."""
