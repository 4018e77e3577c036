import os

from hypothesis import settings

# Triton's interpreter takes a millisecond for each operation of a kernel's program.
few = {"max_examples": 4} if os.environ.get("TRITON_INTERPRET") == "1" else {}
settings.register_profile("core", deadline=None, **few)
settings.load_profile("core")
