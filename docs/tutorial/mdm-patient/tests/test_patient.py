"""The sampler keeps what every sampler promises, and does what it is for."""

import mdm
from mdm_testing import parametrize_with_checks, toy_model


@parametrize_with_checks("sampler", ["patient"])
def test_conforms(check):
    check()


def test_commits_one_token_a_step():
    [result] = mdm.decode(toy_model(), ["hello"], "patient", gen_length=8)
    assert [len(line["positions"]) for line in result.trace] == [1] * 8
