"""What is run and where: the grid file, the site file, and the cells that they make."""
