"""The tiny model as an agent: it must call a calculator, several times, and use what that answers."""
