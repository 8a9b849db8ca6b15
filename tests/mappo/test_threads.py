"""A team computes on the threads it was told to, inside its own calls only."""

from __future__ import annotations

import pytest
import torch

from grandbatch.errors import UsageError
from grandbatch.mappo import MappoConfig, MappoTrainer
from grandbatch.mappo.threads import torch_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def counting(trainer):
    """The numbers of threads that the trainer's networks are called on."""
    seen = []
    for network in (trainer._summary, trainer._actor, trainer._critic):
        network.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    return seen


@pytest.mark.parametrize(("told", "number"), [({}, 1), ({"torch_threads": 2}, 2)])
def test_every_call_computes_on_its_threads_and_leaves_those_of_others(
    three_threads, noise, told, number
):
    trainer = MappoTrainer(MappoConfig.strategic(), stride=1, **told)
    seen, batch = counting(trainer), noise(8)
    for call in (
        lambda: trainer.train_batch(batch),
        lambda: trainer.act(batch.matrices),
        lambda: trainer.predict(batch.matrices),
        lambda: trainer.evaluate([batch]),
        lambda: trainer.calibrate([batch]),
    ):
        call()
        assert torch.get_num_threads() == 3
    assert set(seen) == {number}


def test_a_call_that_fails_leaves_the_threads_of_others_too(three_threads):
    trainer = MappoTrainer(MappoConfig.strategic(), stride=1)
    with pytest.raises(UsageError, match="shape"):
        trainer.act(torch.zeros(1, 2, 3))
    with pytest.raises(KeyError), torch_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(number):
    with pytest.raises(UsageError, match="torch_threads"):
        MappoTrainer(MappoConfig.strategic(), torch_threads=number)
