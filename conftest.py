"""Property tests are judged by what they find, not by how long the first example takes."""

from hypothesis import settings

settings.register_profile("mdm", deadline=None)
settings.load_profile("mdm")
