"""Code tasks: HumanEval and MBPP, graded by running what the model wrote in a sandbox."""
