"""The sampler keeps what every sampler promises, and does what it is for."""

import mdm
from mdm_patient import Patient, PatientOptions
from mdm_testing import parametrize_with_checks, toy_model
from mdm_testing.probe import Watched, decode, prompts


@parametrize_with_checks("sampler", ["patient"])
def test_conforms(check):
    check()


def test_candidates_that_a_row_has_no_masks_for_are_not_weighed():
    watched = Watched(Patient(PatientOptions(candidates=3)))
    decode(toy_model(), prompts(lengths=(5,)), watched)
    assert [int(step.asked[0].valid.sum()) for step in watched.decided] == [3, 3, 2, 0] * 2


def order(**options):
    [result] = mdm.decode(toy_model(), ["hello"], "patient", options, gen_length=8)
    return [position for line in result.trace for position in line["positions"]]


def test_what_it_remembers_and_what_it_foresees_change_the_order():
    waits, hurries = order(steps=2, candidates=1), order(steps=99, candidates=1)
    looks = order(steps=2, candidates=4)
    assert waits != hurries and waits != looks
