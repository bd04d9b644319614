"""What plan says, on hardware that is made up; tests/plan/test_tpu.py asks the TPU's compiler."""

from dataclasses import replace

import jax
import pytest

from jaxnets.chips import TPUS, Chip, chip_of
from jaxnets.errors import UserError
from jaxnets.plan.compiled import Collective, Program, Refusal, collectives
from jaxnets.plan.planner import Planner, StateSize, StepPlan, bracket
from jaxnets.plan.table import Plan, as_json, rows
from jaxnets.plan.topology import Topology, describe
from tests.train.runs import short

CHIP = Chip(flops=2e12, memory=2 * 10**9, bandwidth=2e11, interconnect=2e10, source="made up")
PROGRAM = Program(
    flops=1e10, nbytes=4e9, arguments=10**8, temporaries=10**8, peak=3 * 10**8,
    collectives={"all-reduce": Collective(2, 10**8), "all-gather": Collective(1, 4 * 10**8)},
)  # fmt: skip


def topology(devices: int = 8, chips: int = 4) -> Topology:
    return Topology(
        name="made:up", chip=CHIP, device_kind="made up", devices=tuple(jax.devices()[:devices]), chips=chips
    )


def step(batch_size: int = 64, outcome: Program | Refusal = PROGRAM, **fields) -> StepPlan:
    return StepPlan(
        **{
            "name": "training step",
            "topology": topology(),
            "batch_size": batch_size,
            "outcome": outcome,
            "passes": 1,
            "held": 0,
            **fields,
        }
    )


def test_two_devices_share_the_speed_and_the_memory_of_their_chip():
    plan = step()
    assert plan.seconds == pytest.approx({
        "compute": 1e10 / 1e12,
        "memory": 4e9 / 1e11,
        "interconnect": (2 * 7 / 8 * 1e8 + 7 / 8 * 4e8) / 1e10,
    })  # fmt: skip
    assert plan.topology.memory == 10**9
    whole = step(topology=topology(chips=8))
    assert whole.seconds["memory"] == pytest.approx(plan.seconds["memory"] / 2)


def test_the_slowest_of_the_three_binds_and_limits_the_speed():
    assert step().bound == "interconnect"
    quiet = step(outcome=replace(PROGRAM, collectives={}))
    assert quiet.bound == "memory"
    assert quiet.images_per_second == pytest.approx(64 / 0.04)
    assert step(outcome=replace(PROGRAM, collectives={}), passes=6).bound == "compute"


def test_figures_per_image_are_those_of_all_devices_together():
    assert step().flops_per_image == pytest.approx(8e10 / 64)
    assert step().bytes_per_image == pytest.approx(32e9 / 64)


def test_images_on_the_device_need_room_beside_the_program():
    assert step().fits
    crowded = step(held=8 * 10**8)
    assert not crowded.fits
    assert crowded.refusal == (
        "it takes 1,100,000,000 bytes where a device has 1,000,000,000, 800,000,000 bytes of images among them"
    )


def test_a_program_larger_than_the_memory_is_told_by_its_size():
    assert step(outcome=replace(PROGRAM, peak=2 * 10**9)).refusal == (
        "it takes 2,000,000,000 bytes where a device has 1,000,000,000"
    )


HLO = """
  %all-reduce.1 = (f32[64]{0:T(128)S(1)}, /*index=1*/bf16[2,3]{1,0}) all-reduce(%a, %b), channel_id=1
  %all-reduce-start.2 = f32[10,10]{1,0} all-reduce-start(%c), channel_id=2
  %all-reduce-done.2 = f32[10,10]{1,0} all-reduce-done(%all-reduce-start.2)
  %all-gather-start.1 = (f32[4]{0}, f32[32]{0}) all-gather-start(%d), channel_id=3
  %get-tuple-element.9 = f32[64]{0} get-tuple-element(%all-reduce.1), index=0
"""


def test_collectives_are_counted_once_with_the_bytes_of_their_results():
    assert collectives(HLO) == {
        "all-reduce": Collective(2, 64 * 4 + 6 * 2 + 400),
        "all-gather": Collective(1, 128),
    }


LOOP = """
%add.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum.1 = f32[] add(%a, %b)
}

%called.1 (p: f32[4]) -> f32[32] {
  ROOT %all-gather.1 = f32[32]{0} all-gather(%p), dimensions={0}
}

%body.1 (t: (s32[], f32[64])) -> (s32[], f32[64]) {
  %all-reduce.1 = f32[64]{0} all-reduce(%x), to_apply=%add.1
  %fusion.1 = f32[32]{0} fusion(%y), kind=kLoop, calls=%called.1
}

ENTRY %main.1 (z: f32[16]) -> f32[16] {
  %while.1 = (s32[], f32[64]{0}) while(%t), condition=%condition.1, body=%body.1
  ROOT %all-reduce.2 = f32[16]{0} all-reduce(%z), to_apply=%add.1
}
"""


def test_collectives_in_a_loop_count_as_often_as_it_runs():
    assert collectives(LOOP, rounds=4) == {
        "all-reduce": Collective(5, 4 * 256 + 64),
        "all-gather": Collective(4, 4 * 128),
    }


class Measured(Planner):
    """A planner whose compiler needs memory in proportion to the batch, and refuses more than `limit`."""

    def __init__(self, limit: int, group_size: int = 16, micro_batches: int = 1) -> None:
        self.config = short(
            batch_size=micro_batches * group_size, accumulate_steps=micro_batches, batch_norm={"group_size": group_size}
        )
        self.topology, self.held = topology(), 0
        self.limit = limit
        self.asked = []

    @property
    def state_size(self) -> StateSize:
        return StateSize(parameters=1, variables=10**7, optimizer=10**7, ema=0)

    def train_memory(self, batch_size: int) -> StepPlan:
        self.asked.append(batch_size)
        if batch_size > self.limit:
            return step(batch_size, Refusal("too large"))
        return step(batch_size, replace(PROGRAM, peak=2 * 10**7 + batch_size * 10**6))


@pytest.mark.parametrize("limit", [16, 100, 600, 900, 3000])
def test_the_largest_batch_is_found_between_one_that_fits_and_one_that_does_not(limit):
    planner = Measured(limit)
    fit, refused = planner.search([planner.train(16)])
    # The device's memory is a limit too: 980 images fill it.
    assert fit.batch_size <= min(limit, 980)
    assert refused.batch_size > fit.batch_size
    assert refused.batch_size - fit.batch_size <= max(16, fit.batch_size // 16)
    assert len(planner.asked) <= 9


def test_a_first_batch_that_is_refused_leads_to_a_smaller_one():
    planner = Measured(200)
    fit, refused = planner.search([planner.train(512)])
    assert (fit.batch_size, refused.batch_size) == (192, 208)


def test_nothing_fits_where_the_state_alone_fills_the_memory():
    planner = Measured(0)
    assert planner.search([planner.train(16)])[0] is None


@pytest.mark.parametrize("limit", [64, 900])
def test_the_largest_batch_of_micro_batches_is_sought_among_those_that_training_takes(limit):
    planner = Measured(limit, micro_batches=4)
    fit, refused = planner.search([planner.train_memory(64)])
    assert fit.batch_size <= limit < refused.batch_size
    assert not any(batch_size % (4 * 16) for batch_size in planner.asked)


STAND_IN = {"num_classes": 7, "train_examples": 1000, "image_size": 8, "channels": 1, "source": "folder:/nowhere"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The real steps, compiled for eight CPU devices that are said to be four chips."""
    config = short(data=STAND_IN, dtype="float32", batch_norm={"group_size": 2})
    planner = Planner(config, topology(), lambda text: None)
    steps = planner.train(16), planner.evaluate(16)
    return Plan(
        train=steps[0], eval=steps[1], state=planner.state_size, train_examples=planner.train_examples, epochs=3.0
    )


def test_numbers_stand_in_for_data_that_is_not_there(plan):
    assert plan.train_examples == 1000
    assert plan.hours == pytest.approx(3 * 1000 / plan.train.images_per_second / 3600)


def test_the_state_is_counted_as_it_lies_on_each_device(plan):
    # ResNet-8 on grey images of 7 classes, in place of RGB and 10; SGD keeps a momentum of each and a counter.
    assert plan.state.parameters == 75_290 - 2 * 9 * 16 - 3 * 65
    assert plan.state.optimizer == 4 * plan.state.parameters + 4


def test_the_report_has_the_keys_that_scripts_read(plan):
    report = as_json(plan)
    keys = {"flops_per_image", "bytes_per_image", "all_reduces", "peak_memory_bytes", "images_per_second_bound"}
    for name in ("train", "eval"):
        assert keys <= report[name].keys()
        assert all(report[name][key] is not None for key in keys)
    assert report["train"]["flops_per_image"] > 2 * report["eval"]["flops_per_image"]
    assert report["train"]["all_reduces"] >= 1


def test_a_batch_does_the_work_of_all_its_micro_batches(plan):
    config = short(batch_size=32, accumulate_steps=2, data=STAND_IN, dtype="float32", batch_norm={"group_size": 2})
    step = Planner(config, topology(), lambda text: None).train(32)
    assert step.flops_per_image == pytest.approx(plan.train.flops_per_image)
    assert step.bytes_per_image == pytest.approx(plan.train.bytes_per_image)
    # Its memory is that of the whole batch: two more grey canvases on each device with label, index, epoch and aspect.
    assert step.program.arguments == plan.train.program.arguments + 2 * (10 * 10 + 4 * 4)


def test_a_step_that_does_not_fit_says_why_and_has_no_figures(plan):
    refused = replace(plan, train=step(outcome=Refusal("Used 23.4G of 15.75G hbm")))
    report = as_json(refused)["train"]
    assert (report["fits"], report["flops_per_image"]) == (False, None)
    assert report["refusal"] == "Used 23.4G of 15.75G hbm"
    assert len({len(row) for row in rows([plan, refused])}) == 1


def test_bracket_tells_the_largest_that_fits_from_the_smallest_that_does_not():
    tried = [step(8), step(32, Refusal("")), step(16), step(64, Refusal(""))]
    assert [plan.batch_size for plan in bracket(tried)] == [16, 32]


def test_a_missing_compiler_is_one_message(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(UserError, match=r"libtpu, which is not installed.*pip install"):
        describe("v5e:2x4")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"batch_size": 12}, "config.batch_size 12 cannot be shared equally by 8 devices"),
        (
            {"batch_size": 8, "accumulate_steps": 2, "batch_norm": {"group_size": 4}},
            "config.batch_size / config.accumulate_steps 4 cannot be shared equally by 8 devices",
        ),
        ({"data": {**STAND_IN, "train_examples": None}}, "set config.data.num_classes, config.data.train_examples"),
        ({"data": {**STAND_IN, "image_size": None}}, "set config.data.image_size"),
    ],
)
def test_what_cannot_be_planned_is_one_message(changed, expected):
    with pytest.raises(UserError, match=expected):
        Planner(short(**{"data": STAND_IN, **changed}), topology(), lambda text: None)


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (33, "config.accumulate_steps 2 does not divide --batch-sizes 33"),
        (24, "--batch-sizes / config.accumulate_steps 12 cannot be shared equally by 8 devices: take 8 or 16"),
        (48, "config.batch_norm.group_size 16 does not divide --batch-sizes / config.accumulate_steps 24"),
    ],
)
def test_a_batch_of_micro_batches_that_training_refuses_is_refused_here(batch_size, expected):
    config = short(batch_size=32, accumulate_steps=2, batch_norm={"group_size": 16}, data=STAND_IN)
    with pytest.raises(UserError, match=expected):
        Planner(config, topology(), lambda text: None).train(batch_size)


@pytest.mark.parametrize(
    ("kind", "memory", "bandwidth"),
    [
        ("NVIDIA A100-SXM4-80GB", 80, 2039),
        ("NVIDIA A100-SXM4-40GB", 40, 1555),
        ("NVIDIA A100 80GB PCIe", 80, 1935),
        ("NVIDIA A100-PCIE-40GB", 40, 1555),
        ("NVIDIA H100 80GB HBM3", 80, 3350),
        ("NVIDIA H100 PCIe", 80, 2000),
        ("NVIDIA H200", 141, 4800),
        ("Tesla T4", 16, 320),
    ],
)
def test_a_gpu_is_known_by_its_whole_name(kind, memory, bandwidth):
    chip = chip_of(kind)
    assert (chip.memory, chip.bandwidth) == (memory * 10**9, bandwidth * 10**9)


@pytest.mark.parametrize("kind", ["NVIDIA L40S", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA GH200 480GB", "cpu"])
def test_a_chip_that_is_not_known_is_one_message(kind):
    with pytest.raises(UserError, match=f"the speeds of '{kind}' are not known"):
        chip_of(kind)


def test_a_tpu_is_known_by_what_jax_calls_it():
    assert chip_of("TPU v5 lite") is TPUS["TPU v5 lite"]


def test_a_gpu_that_is_not_here_is_refused_with_what_can_be_had():
    with pytest.raises(UserError, match=r"cannot be planned from afar.*--topology here"):
        describe("h200:8")


def test_a_run_that_thaws_is_planned_as_its_last_phase_the_dearest():
    def optimizer(**freeze):
        data = {
            "num_classes": 10,
            "train_examples": 1000,
            "image_size": 8,
            "mean": (0.5,),
            "std": (0.5,),
            "channels": 1,
        }
        config = short(batch_size=16, data={**data, "validation": 0.0}, freeze=freeze)
        return Planner(config, topology(), lambda text: None).state_size.optimizer

    whole, half = optimizer(), optimizer(before="stage3")
    assert half < whole
    assert whole <= optimizer(before="stage3", thaw_epoch=1e-3) < whole + 64  # a second count of steps
