"""The sampler keeps what every sampler promises, and does what it is for."""

import mdm
from mdm_testing import parametrize_with_checks, toy_model


@parametrize_with_checks("sampler", ["right-to-left"])
def test_conforms(check):
    check()


def positions(**options):
    [result] = mdm.decode(toy_model(), ["hello"], "right-to-left", options, gen_length=8, block_length=4)
    return [position for line in result.trace for position in line["positions"]]


def test_each_block_is_decoded_from_its_end():
    assert positions() == [8, 7, 6, 5, 12, 11, 10, 9]


def test_where_everything_is_sure_the_order_stays():
    assert positions(sure=0.0) == positions()
