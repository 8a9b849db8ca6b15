"""The loader in the hands of other libraries: each window still comes exactly once."""

import json
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import grandbatch as gb
from grandbatch.errors import UsageError

pytestmark = pytest.mark.filterwarnings(
    # the other libraries' own
    "ignore:'set_vital' is deprecated:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture
def loader(make_store):
    """40 batches: 39 of 8 windows, the last of one."""
    store = make_store(400, layout="rows", overlap=47)
    config = gb.BatchConfig(batch_size=8, sequence_length=48, overlap=47, cache_bytes=0)
    return gb.SlidingWindowDataLoader(store, config, shuffle_chunks=3)


def sequence(batches):
    return [batch.index.tolist() for batch in batches]


def assert_once(windows, store):
    assert sorted(windows) == list(range(len(store)))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stateful_dataloader_resumes_behind_any_batch(loader, workers):
    module = pytest.importorskip("torchdata.stateful_dataloader")

    def batches(state=None):
        made = module.StatefulDataLoader(loader, batch_size=None, num_workers=workers)
        loader.set_epoch(0)
        if state is not None:
            made.load_state_dict(json.loads(json.dumps(state)))
        return made

    running, whole, states = batches(), [], []
    for batch in running:
        whole.append(batch.index.tolist())
        states.append(running.state_dict())
    assert_once([n for numbers in whole for n in numbers], loader.store)
    for done in (1, 2, 7, 39):
        resumed = batches(states[done - 1])
        assert sequence(resumed) == whole[done:]
    again = batches(states[3])
    going = iter(again)
    assert [next(going).index.tolist() for _ in range(3)] == whole[4:7]
    assert sequence(batches(again.state_dict())) == whole[7:]
    if workers:
        assert sequence(batches(states[-1])) == []


def test_a_batch_is_a_tensordict_over_the_same_memory(loader):
    tensordict = pytest.importorskip("tensordict")
    batch = next(iter(loader))
    made = batch.to_tensordict()
    assert isinstance(made, tensordict.TensorDict)
    assert made.batch_size == (8,)
    assert set(made.keys()) == set(batch.tensors())
    assert made["matrices"].data_ptr() == batch.matrices.data_ptr()
    assert torch.equal(made[2:4]["index"], batch.index[2:4])


def test_a_missing_tensordict_is_named_with_its_remedy(loader, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensordict", None)
    with pytest.raises(UsageError, match=r"grandbatch\[rl\]"):
        next(iter(loader)).to_tensordict()


def test_numpy_and_dlpack_see_the_batchs_own_memory(loader):
    batch = next(iter(loader))
    arrays = batch.numpy()
    assert set(arrays) == set(batch.tensors())
    for name, tensor in batch.tensors().items():
        assert tensor.is_contiguous()
        for view in (arrays[name], np.from_dlpack(tensor)):
            assert view.ctypes.data == tensor.data_ptr()
            assert view.tobytes() == tensor.numpy().tobytes()


def step(model, matrices, weight):
    return (model(matrices.flatten(1)).squeeze(1) * weight).mean()


def test_accelerate_prepares_it_as_a_dataset_of_mappings(loader):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = torch.nn.Linear(48 * 13, 1)
    model, optimizer, batches = accelerator.prepare(
        model,
        torch.optim.SGD(model.parameters(), 1e-3),
        DataLoader(loader, batch_size=None, collate_fn=gb.MatrixBatch.tensors),
    )
    seen = []
    for batch in batches:
        accelerator.backward(step(model, batch["matrices"], batch["weight"]))
        optimizer.step()
        optimizer.zero_grad()
        seen += batch["index"].tolist()
    assert_once(seen, loader.store)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrapped", [False, True])
def test_lightning_trains_on_it_epoch_by_epoch(loader, wrapped):
    lightning = pytest.importorskip("pytorch_lightning")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(48 * 13, 1)
            self.seen = []

        def training_step(self, batch, _number):
            self.seen += batch.index.tolist()
            return step(self.model, batch.matrices, batch.weight)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    model = Model()
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(loader, batch_size=None) if wrapped else loader)
    first, second = np.split(np.array(model.seen), 2)
    assert_once(first, loader.store)
    assert_once(second, loader.store)
    assert first.tolist() != second.tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [1, 7, 39, 40, 41, 60])
def test_lightning_resumes_in_the_middle_of_an_epoch_to_the_same_windows_and_weights(
    loader, tmp_path, steps
):
    lightning = pytest.importorskip("lightning")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.model = torch.nn.Linear(48 * 13, 1)
            self.seen = []

        def training_step(self, batch, _number):
            self.seen.append(batch.index.tolist())
            return step(self.model, batch.matrices, batch.weight)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-3)

    def fit(max_steps=-1, state=None):
        loader.set_epoch(0)
        saving = lightning.pytorch.callbacks.ModelCheckpoint(
            tmp_path, filename="{step}", every_n_train_steps=steps, save_top_k=-1
        )
        trainer = lightning.Trainer(
            max_epochs=2, max_steps=max_steps, accelerator="cpu", logger=False, callbacks=[saving],
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        model = Model()
        trainer.fit(model, loader, ckpt_path=state)
        return model

    whole = fit()
    first = fit(max_steps=steps)
    rest = fit(state=tmp_path / f"step={steps}.ckpt")
    assert len(first.seen) == steps
    assert first.seen + rest.seen == whole.seen
    assert torch.equal(rest.model.weight, whole.model.weight)
