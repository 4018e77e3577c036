"""The math grader's layers: extraction, exact comparison, shapes, and the symbolic comparison run in workers."""
