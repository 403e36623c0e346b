"""``python -m mdm_lm_eval``: lm-eval's own command line, with ``mdm`` among its models.

Releases of lm-eval that read the entry-point group ``lm_eval.models`` need no help: there `lm_eval --model mdm` works.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from mdm.errors import MdmError


def main() -> NoReturn:
    try:
        import lm_eval.models  # noqa: F401  its own models, which it looks for only while it knows none
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry
    except ImportError:
        sys.exit("mdm_lm_eval: lm-eval is not installed: pip install 'lm_eval>=0.4.9'")
    if "mdm" not in model_registry:
        model_registry.register("mdm", target="mdm_lm_eval.model:MdmLM")
    try:
        cli_evaluate()
    except MdmError as error:
        print(f"mdm: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    main()
