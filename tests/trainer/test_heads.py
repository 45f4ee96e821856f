"""Auxiliary losses: what they compute, when they fade, and that nothing of them stays."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.trainer import tiny
from tests.trainer.switches import VOCAB, built, text
from tests.trainer.tiny import settings
from trainer import artifact
from trainer.config import SettingsError
from trainer.dist import Group
from trainer.losses import Losses
from trainer.metrics import Metrics
from trainer.model.gpt import GPT
from trainer.model.heads import Jepa, auxiliary, mtp_loss, mtp_scales, sigreg
from trainer.train import Run, run

ALONE = Group(0, 1, 0, 1, torch.device("cpu"))
WEIGHTS = (1.0, 0.5, 0.25)


def test_mtp_weights_fade_farthest_first() -> None:
    """The farthest is gone at the middle of the share, the next at its end; the first never moves."""
    found = [mtp_scales(WEIGHTS, done, 0.6) for done in (0, 0.15, 0.3, 0.45, 0.6, 1)]
    expected = [(1, 0.5, 0.25), (1, 0.5, 0.125), (1, 0.5, 0), (1, 0.25, 0), (1, 0, 0), (1, 0, 0)]
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted)
    assert mtp_scales(WEIGHTS, 0.0, 0.0) == (1, 0, 0)


def test_mtp_loss_equals_its_sum_written_out() -> None:
    """Weight k times the nats of the id k beyond the next, where no separator lies before it."""
    logits = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[3, 4, 0, 5, 6, 7, 0, 0, 2], [1, 2, 3, 4, 5, 6, 7, 1, 2]])
    total = 0.0
    for row in range(2):
        for t in range(9):
            for k in (1, 2):
                if t + k < 9 and not (targets[row, t : t + k] == 0).any():
                    total -= WEIGHTS[k] * logits[row, t].log_softmax(-1)[targets[row, t + k]].item()
    assert mtp_loss(logits, targets, WEIGHTS, bos=0).item() == pytest.approx(total / 18)


def test_mtp_loss_of_no_weights_is_nothing() -> None:
    """When all weights have fallen to 0 the base loss remains, whatever the logits are; none from the start is refused."""
    config = settings(MTP_WEIGHTS="1,0.5,0.5", MTP_UNTIL=0.5)
    model, ids = built(config), text(3, length=17)
    base, whole = Losses(config, 0, ALONE)(model, ids[:, :-1], ids[:, 1:], 0.5, 0)
    assert torch.equal(base, whole)
    for values in ({"MTP_WEIGHTS": "1,0,0"}, {"MTP_WEIGHTS": "1,0.5", "MTP_UNTIL": 0}):
        with pytest.raises(SettingsError, match="no id beyond the next would ever count"):
            settings(**values)
    assert torch.equal(base, F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()))


def test_mtp_is_off_after_its_share() -> None:
    """Past MTP_UNTIL what is minimised is what is reported."""
    config, ids = settings(MTP_WEIGHTS="1,0.5"), text(3, length=17)
    losses, model = Losses(config, 0, ALONE), built(config)
    early, late = (losses(model, ids[:, :-1], ids[:, 1:], done, 0) for done in (0.0, 0.7))
    assert early[1] > early[0]
    assert torch.equal(late[0], late[1])


def test_sigreg_is_small_for_a_normal_sample_and_large_for_others() -> None:
    """A standard normal scores near 0; collapsed, wide, shifted and two-valued samples score far more."""
    draw = torch.Generator().manual_seed(0)
    normal = torch.randn(4000, 8, dtype=torch.float64, generator=draw)
    directions = F.normalize(torch.randn(8, 64, dtype=torch.float64, generator=draw), dim=0)
    best = sigreg(normal, directions).item()
    assert best < 2e-3
    two_valued = torch.zeros_like(normal)
    two_valued[:, 0] = normal[:, 0].sign() * 8**0.5
    for other in (0 * normal, 3 * normal, normal + 1, two_valued):
        assert sigreg(other, directions).item() > 20 * best


@pytest.mark.parametrize("at", [0.0, 1.0, -0.5])
def test_sigreg_of_a_collapsed_sample_equals_its_integral(at: float) -> None:
    """All at x: integral of |e^(itx) - e^(-t^2/2)|^2 e^(-t^2/2) = sqrt(2 pi) (1 - sqrt 2 e^(-x^2/4) + 1 / sqrt 3)."""
    found = sigreg(torch.full((10, 4), at, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    expected = (2 * math.pi) ** 0.5 * (1 - 2**0.5 * math.exp(-(at**2) / 4) + 3**-0.5)
    assert found.item() == pytest.approx(expected, rel=1e-3)


def test_jepa_error_is_the_step_at_birth_and_stays_within_documents() -> None:
    """With W2 = 0 the guess is the state itself; pairs across a separator do not count."""
    jepa = Jepa(settings(JEPA_WEIGHT=1, JEPA_DIM=4, JEPA_SIGREG=0)).double()
    hidden = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    states = hidden @ jepa.project.T
    steps = (states[0, 1:] - states[0, :-1]).square().mean(-1)
    ids = torch.tensor([[4, 5, 0, 6, 7]])
    torch.testing.assert_close(jepa(hidden, ids, 0, 0), steps[[0, 2, 3]].mean())


def test_jepa_trains_with_the_model_and_does_not_collapse() -> None:
    """Its own weights move, its loss falls, and its states keep their spread."""
    config = settings(JEPA_WEIGHT=1, JEPA_DIM=8, JEPA_STEPS=2, SCALAR_LR=0.02)
    jepa = auxiliary(config, 0).jepa
    hidden = F.rms_norm(torch.randn(8, 32, 16, generator=torch.Generator().manual_seed(0)).cumsum(1), (16,))
    ids, optimizer = torch.ones(8, 32, dtype=torch.int64), torch.optim.Adam(jepa.parameters(), lr=0.01)
    history = []
    for step in range(60):
        optimizer.zero_grad()
        loss = jepa(hidden, ids, 0, step)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]
    assert (hidden @ jepa.project.T).flatten(0, 1).std(0).detach().mean() > 0.5


@pytest.mark.parametrize("values", [{"MTP_WEIGHTS": "1,0.5,0.25"}, {"JEPA_WEIGHT": 0.1, "JEPA_DIM": 4}], ids=str)
def test_run_reports_the_base_loss_and_exports_the_model_alone(values: dict[str, object], tmp_path: Path) -> None:
    """The first printed loss is that of the plain run; the artifact has the plain run's tensors; training differs."""
    plain, more = tmp_path / "plain", tmp_path / "more"
    for folder, extra in ((plain, {}), (more, values)):
        folder.mkdir()
        run(settings(**extra), tiny.dataset(), ALONE, Metrics(folder, 0))
    first, second = ((folder / "metrics.jsonl").read_text().splitlines()[0] for folder in (plain, more))
    assert first.split('"train_loss": ')[1].split(",")[0] == second.split('"train_loss": ')[1].split(",")[0]
    states = [artifact.read(folder / "artifact.golf").state for folder in (plain, more)]
    assert states[0].keys() == states[1].keys()
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_weight_zero_is_the_plain_trajectory(tmp_path: Path) -> None:
    """No weights, no modules, no draws: the numbers of JEPA and MTP alone change no bit of a run."""
    ends = []
    for extra in ({}, {"JEPA_DIM": 8, "JEPA_STEPS": 3, "MTP_UNTIL": 0.1, "MTP_WEIGHTS": "1"}):
        going = Run(settings(**extra), tiny.dataset(), ALONE, Metrics(tmp_path, 0))
        going.loop()
        assert going.losses.extra is None
        ends.append(going.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_auxiliary_weights_draw_from_a_stream_of_their_own() -> None:
    """The model is born with the same bits beside JEPA."""
    plain, other = GPT(settings(), VOCAB).state_dict(), GPT(settings(JEPA_WEIGHT=1), VOCAB).state_dict()
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("given", ["0.5", "1,2", "1,-0.1", "1,x", "1,,0", "1,nan", ",".join(["1"] * 9)])
def test_mtp_weights_are_checked(given: str) -> None:
    """They start with 1, never grow, and are at most eight."""
    with pytest.raises(SettingsError, match="MTP_WEIGHTS"):
        settings(MTP_WEIGHTS=given)


def test_auxiliary_losses_need_ids_enough() -> None:
    """What looks farther ahead than a window is long is refused; JEPA has no states for patches."""
    for values in (
        {"MTP_WEIGHTS": "1,1,1", "TRAIN_SEQ_LEN": 2, "TRAIN_BATCH_TOKENS": 2, "EVAL_STRIDE": 1},
        {"JEPA_WEIGHT": 1, "JEPA_STEPS": 2, "TRAIN_SEQ_LEN": 2, "TRAIN_BATCH_TOKENS": 2, "EVAL_STRIDE": 1},
        {"JEPA_WEIGHT": 1, "PATCH_SIZE": 2},
    ):
        with pytest.raises(SettingsError):
            settings(**values)


PEER = """
import sys, torch
from pathlib import Path
from tests.trainer import tiny
from trainer import dist
from trainer.metrics import Metrics
from trainer.train import Run

values = {"MTP_WEIGHTS": "1,0.5", "NUM_LOOPS": 1, "LOOP_START": 1, "LOOP_END": 1}
for jepa in (0, 0.1):
    config = tiny.settings(**values, JEPA_WEIGHT=jepa, DEVICE="cpu")
    group = dist.start(config) if not jepa else group
    going = Run(config, tiny.dataset(), group, Metrics(Path(sys.argv[1]), group.rank))
    going.loop()
    held = [going.model, *going.losses.extra.children()]
    torch.save([part.state_dict() for part in held], Path(sys.argv[1]) / f"{jepa}.{group.world}.{group.rank}")
group.stop()
"""


@pytest.mark.service
def test_auxiliary_losses_train_two_ranks_as_one(tmp_path: Path) -> None:
    """Ranks end with the same bits, model and JEPA's own weights alike; with MTP they end where one process does."""
    tiny.two_processes(PEER, tmp_path, home=tmp_path)
    done = tiny.call("-c", PEER, tmp_path, env=tiny.environment(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for jepa in ("0", "0.1"):
        first, second = (torch.load(tmp_path / f"{jepa}.2.{rank}") for rank in (0, 1))
        assert all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)
    alone, together = torch.load(tmp_path / "0.1.0")[0], torch.load(tmp_path / "0.2.0")[0]
    for name in alone:
        torch.testing.assert_close(alone[name], together[name], rtol=0, atol=1e-4)
