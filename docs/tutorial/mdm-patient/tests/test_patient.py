"""The sampler keeps what every sampler promises, and does what it is for."""

import mdm
from mdm_patient import Patient, PatientOptions
from mdm_testing import parametrize_with_checks, toy_model
from mdm_testing.probe import Watched, decode, prompts


@parametrize_with_checks("sampler", ["patient"])
def test_conforms(check):
    check()


def test_every_step_has_one_forward_a_candidate_and_says_what_it_weighed():
    watched = Watched(Patient(PatientOptions(candidates=3)))
    decode(toy_model(), prompts(lengths=(5,)), watched)
    assert [int(step.asked[0].valid.sum()) for step in watched.decided] == [3, 3, 2, 0] * 2


def order(**options):
    [result] = mdm.decode(toy_model(), ["hello"], "patient", options, gen_length=8)
    return [position for line in result.trace for position in line["positions"]]


def test_both_parts_matter():
    assert len({tuple(order(steps=steps, candidates=n)) for steps in (2, 99) for n in (1, 4)}) > 2
