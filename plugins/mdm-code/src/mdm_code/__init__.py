"""Code tasks for mdm: HumanEval and MBPP, graded in a sandbox."""
