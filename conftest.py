"""Property tests are judged by what they find, not by how long the first example takes; kernels run without a GPU."""

import os

from hypothesis import settings

# Triton reads it as it is imported, which torch may do at any time.
os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("mdm", deadline=None)
settings.load_profile("mdm")
