"""Property tests are judged by what they find, not by how long the first example takes; kernels need no GPU."""

import os
import signal

import pytest
import torch
from fake_packages import site as site  # a fixture of all tests
from hypothesis import settings

# Kernels run on the card where there is one. Triton reads this as it is imported, which torch may do at any time.
if not torch.cuda.device_count():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A suite started in the background ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("mdm", deadline=None)
settings.load_profile("mdm")


@pytest.fixture
def compiler():
    """Skips where torch.compile has nothing to compile with."""
    from mdm.errors import MdmError
    from mdm.models import torch_compile

    try:
        torch_compile.require("cpu")
    except MdmError as error:
        pytest.skip(str(error))
