"""What facts and figures of a host mean: each trouble is one plain finding, a sound host has none."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from golfctl.domain.host import HostSpec
from golfctl.errors import InputError
from golfctl.hosts.preflight import (
    Finding,
    Need,
    findings,
    past,
    read_manifest,
    remember,
    summary_lines,
    with_skew,
)
from golfctl.hosts.reference import is_model, reference

POD = HostSpec("pod1", "ssh", 8, gpu="H100", manifest="data.json")
FULL = Need(8, compiler=True, data=True, min_disk_bytes=20_000_000_000, min_memory_bytes=64_000_000_000)


def sound() -> dict[str, Any]:
    """Facts of an idle 8xH100 box, in the form the probe gives them."""
    gpu = {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "used_mib": 4, "utilisation": 0, "ecc_errors": 0}
    return {
        "gpus": [{**gpu, "index": index, "uuid": f"GPU-{index}", "processes": []} for index in range(8)],
        "gpu_error": "",
        "driver": "570.211.01",
        "torch": {"version": "2.9.1+cu128", "cuda": "12.8", "available": True, "devices": 8},
        "python": {"version": "3.12.3", "include": "/usr/include/python3.12", "path": "/root/venv/bin/python"},
        "compiler": {"path": "/usr/bin/gcc", "works": True, "error": ""},
        "disk": {
            "root": {"path": "/root/golf", "free_bytes": 812_000_000_000, "filesystem": "overlay", "network": False},
            "cache": {"path": "/root/golf/cache", "free_bytes": 812_000_000_000, "network": False},
            "shm": {"path": "/dev/shm", "total_bytes": 64 << 30, "free_bytes": 64 << 30},
        },
        "memory": {"total_bytes": 2_000_000_000_000, "available_bytes": 1_900_000_000_000, "limit_bytes": None},
        "cpu": {"count": 192, "usable": 192.0},
        "boot": "b1",
        "data": {"problems": [], "files": 81, "bytes": 16_000_000_000, "summary": "sp1024: 80 shards, val ok"},
        "time": 1_000_000.0,
        "took_s": 4.0,
    }


def quick(**figures: float) -> dict[str, Any]:
    """A speed probe of that box; usual figures unless told otherwise."""
    usual = {"matmul_tflops": 705.0, "memory_gb_s": 2950.0, "all_reduce_gb_s": 412.0, "host_to_device_gb_s": 52.0}
    units = {"matmul_tflops": "TFLOP/s", "disk_read_mb_s": "MB/s"}
    content = {
        name: {
            "unit": units.get(name, "GB/s"),
            "method": name,
            "value": value,
            "worst": value,
            "spread": 0.01,
            "slowest": "",
        }
        for name, value in {**usual, "disk_read_mb_s": 1900.0, **figures}.items()
    }
    return {"device": "cuda", "gpus": 8, "torch": "2.9.1+cu128", "figures": content, "notes": []}


def bad(facts: dict[str, Any], need: Need = FULL, spec: HostSpec = POD, **more: Any) -> list[Finding]:
    """Findings that are not "ok"."""
    given = {"speed": None, "past": [], **more}
    return [item for item in findings(spec, need, facts, given["speed"], given["past"]) if item.level != "ok"]


def only(facts: dict[str, Any], level: str, pattern: str, **more: Any) -> None:
    """Exactly one thing is wrong, and this is it."""
    found = bad(facts, **more)
    assert [item.level for item in found] == [level], found
    assert re.search(pattern, found[0].text), found


def test_preflight_sound_host_has_nothing_against_it() -> None:
    """No warning, and the ok lines say what was seen."""
    assert bad(sound(), speed=quick()) == []
    told = [item.text for item in findings(POD, FULL, sound(), quick(), [])]
    assert told == ["8x H100 80GB HBM3", "data sp1024: 80 shards, val ok"]


def test_preflight_summary_lines_look_as_people_read_them() -> None:
    """The machine on one line, its speed on the next."""
    first, second = summary_lines(sound(), quick(matmul_tflops=641.0))
    assert first == (
        "8x H100 80GB HBM3   driver 570.211.01   torch 2.9.1+cu128   disk 812 GB free   data sp1024: 80 shards, val ok"
    )
    assert second.startswith("speed  matmul 641 TFLOP/s (usual 680-760)   memory 2,950 GB/s (usual 2,700-3,150)")
    cpu = {**sound(), "gpus": [], "data": None, "torch": None, "cpu": {"usable": 2.0}}
    assert summary_lines(cpu, None) == ["no GPU   2 cores   memory 2,000 GB   disk 812 GB free"]


def test_preflight_gpus_that_do_not_fit() -> None:
    """No GPU, too few, another model, several models."""
    facts = sound()
    facts["gpus"] = []
    facts["torch"]["devices"] = 0
    only(facts, "fail", "^no GPU: 8x H100 needed; nvidia-smi is not there")
    facts["gpu_error"] = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    only(facts, "fail", "communicate with the NVIDIA driver")
    facts = sound()
    facts["gpus"] = facts["gpus"][:4]
    facts["torch"]["devices"] = 4
    only(facts, "fail", "^4 GPUs, 8 are needed")
    only(facts, "warn", "slots: 8, there are 4 GPUs", need=Need(4))
    facts = sound()
    facts["gpus"][5]["name"] = "NVIDIA A100-SXM4-80GB"
    found = bad(facts)
    assert [item.level for item in found] == ["fail", "warn"]
    assert found[0].text == "gpu 5 is a A100-SXM4-80GB, H100 is needed"


def test_preflight_others_on_the_gpus() -> None:
    """Someone else's process fails a run that needs all GPUs, warns one that does not; our own runs are no strangers."""
    facts = sound()
    facts["gpus"][3].update(used_mib=40_000, processes=[{"pid": 77, "name": "python", "used_mib": 39_000, "run": ""}])
    only(facts, "fail", r"^gpu 3: python \(pid 77\) of someone else is on it, 40,000 MiB in use")
    only(facts, "warn", "^gpu 3", need=Need(1))
    facts["gpus"][3]["processes"][0]["run"] = "D.g1.s42.a1"
    assert bad(facts) == []
    facts["gpus"][3]["processes"] = []
    only(facts, "fail", "not visible here")


def test_preflight_ecc_errors_warn() -> None:
    """A GPU with memory errors is named."""
    facts = sound()
    facts["gpus"][6]["ecc_errors"] = 3
    only(facts, "warn", "^gpu 6: 3 uncorrected memory errors")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"torch": {"error": "ModuleNotFoundError: No module named 'torch'"}}, "does not import.*host prepare pod1"),
        ({"torch": {"version": "2.9.1+cpu", "cuda": None, "available": False, "devices": 0}}, "built without CUDA"),
        ({"driver": "470.82.01"}, r"driver 470.82.01 is too old for CUDA 12.8 of torch 2.9.1\+cu128 \(525 or newer\)"),
        ({"torch": {"version": "2.9", "cuda": "12.8", "available": False, "error": "Error 802"}}, "can't use.*802"),
        ({"torch": {"version": "2.9", "cuda": "12.8", "available": True, "devices": 7}}, "sees 7 of 8 GPUs"),
        ({"compiler": {"path": None, "works": False, "error": "no C compiler"}}, "torch.compile needs.*no C compiler"),
        ({"memory": {"available_bytes": 3e9}}, "memory: 3.0 GB available, 64 GB needed"),
        ({"python": {"error": "/x/python: No such file"}}, "^python: /x/python: No such file"),
        ({"data": {"problems": ["fineweb_val_000000.bin: 0 bytes of 9"]}}, "^data: fineweb_val_000000.bin: 0 bytes"),
    ],
)
def test_preflight_failures(change: dict[str, Any], pattern: str) -> None:
    """Each alone fails the host."""
    only({**sound(), **change}, "fail", pattern)


def test_preflight_disk() -> None:
    """A full disk fails; a compile cache on the network and a tiny /dev/shm warn."""
    facts = sound()
    facts["disk"]["root"]["free_bytes"] = 3_000_000_000
    only(facts, "fail", "disk: 3.0 GB free, 20 GB needed")
    facts = sound()
    facts["disk"]["cache"].update(network=True, filesystem="nfs4")
    only(facts, "warn", r"compile cache .* network file system \(nfs4\)")
    facts = sound()
    facts["disk"]["shm"]["total_bytes"] = 64 << 20
    only(facts, "warn", "/dev/shm holds 64 MiB")
    assert bad(facts, need=Need(1)) == []


def test_preflight_torch_version_and_no_torch_needed() -> None:
    """Another version warns; who needs no torch is not told about it."""
    only(sound(), "warn", "torch is 2.9.1.cu128, the plan's runs use 2.8.0", need=Need(8, torch="2.8.0"))
    assert bad(sound(), need=Need(8, torch="2.9.1")) == []
    facts = {**sound(), "torch": {"error": "missing"}}
    assert bad(facts, need=Need(8, torch=None)) == []


@pytest.mark.parametrize(("off", "said"), [(3600.0, "60 min ahead"), (-40.0, "40 s behind"), (4.0, ""), (-6.5, "")])
def test_preflight_clock_skew_warns(off: float, said: str) -> None:
    """The host read its clock between 4 s and 10 s after the request: what that leaves open counts in its favour."""
    facts = with_skew(sound(), sent=1_000_000.0 - 7.0 - off, received=1_000_000.0 + 3.0 - off)
    assert facts["skew_s"] == pytest.approx(off, abs=1e-6)
    assert facts["skew_error_s"] == pytest.approx(3.0)
    if said:
        only(facts, "warn", said)
    else:
        assert bad(facts) == []


def test_preflight_data_that_was_asked_for() -> None:
    """Without a manifest nothing is known about the data, and that is said."""
    facts = {**sound(), "data": None}
    only(facts, "warn", "data has no manifest", spec=HostSpec("pod1", "ssh", 8, gpu="H100"))
    assert bad(facts, need=Need(8)) == []


def test_preflight_slow_against_the_usual_figures() -> None:
    """Below 0.92 of the usual range is slow, with what it costs; the copy to the GPU is only a warning."""
    only(
        sound(),
        "slow",
        r"^SLOW: matmul 600 TFLOP/s, usual 680-760: expect about 17 % fewer steps$",
        speed=quick(matmul_tflops=600.0),
    )
    assert bad(sound(), speed=quick(matmul_tflops=630.0)) == []
    only(sound(), "slow", "SLOW: all-reduce 41 GB/s, usual 340-490", speed=quick(all_reduce_gb_s=41.0))
    only(sound(), "warn", "slow: copy to GPU 12 GB/s, usual 36-57", speed=quick(host_to_device_gb_s=12.0))
    four = {**quick(all_reduce_gb_s=150.0), "gpus": 4}
    assert bad(sound(), speed=four) == []


def test_preflight_names_the_slowest_gpu() -> None:
    """A lagging GPU is named, and the run is judged by it."""
    speed = quick()
    speed["figures"]["matmul_tflops"].update(worst=512.0, slowest="gpu 3: 512 TFLOP/s, others 690")
    assert [item.text for item in bad(sound(), speed=speed)] == [
        "matmul: gpu 3: 512 TFLOP/s, others 690",
        "SLOW: matmul 512 TFLOP/s, usual 680-760: expect about 29 % fewer steps",
    ]


def test_preflight_noisy_figures_are_no_verdict() -> None:
    """Repeats that disagree say that something else is running."""
    speed = quick(matmul_tflops=500.0)
    speed["figures"]["matmul_tflops"]["spread"] = 0.4
    only(sound(), "warn", "repeats differ by 40 %", speed=speed)


def test_preflight_slow_against_the_hosts_own_past(tmp_path: Path) -> None:
    """Probes of the same models count, by the same method; others do not. Machines without a reference have only these."""
    facts = {**sound(), "boot": "b0"}
    for gpu in facts["gpus"]:
        gpu["name"] = "NVIDIA X900"
    spec = HostSpec("box", "ssh", 8, gpu="X900")
    for value in (100.0, 104.0, 90.0):
        remember(tmp_path / "hosts", "box", facts, quick(matmul_tflops=value))
    other = copy.deepcopy(facts)
    other["gpus"], other["boot"] = other["gpus"][:1], "b2"
    remember(tmp_path / "hosts", "box", other, quick(matmul_tflops=9000.0))
    history = past(tmp_path / "hosts", "box")
    assert len(history) == 4
    now = {**facts, "boot": "b3"}
    assert bad(now, spec=spec, speed=quick(matmul_tflops=91.0), past=history) == []
    text = "^SLOW: matmul 85 TFLOP/s, this host's own median of 3 probes is 100: expect about 15 % fewer steps$"
    only(now, "slow", text, spec=spec, speed=quick(matmul_tflops=85.0), past=history)
    changed = quick(matmul_tflops=85.0)
    changed["figures"]["matmul_tflops"]["method"] = "bf16 4096^3"
    assert bad(now, spec=spec, speed=changed, past=history) == []


def test_preflight_history_survives_a_torn_line(tmp_path: Path) -> None:
    """A crash in the middle of a line loses that line only, and nothing that names the machine is kept."""
    facts = {**sound(), "hostname": "secret.example.org"}
    remember(tmp_path, "pod1", facts, quick())
    file = tmp_path / "pod1.jsonl"
    with file.open("ab") as stream:
        stream.write(b'{"at":"2026-01-01T00:00:00Z","figu')
    assert len(past(tmp_path, "pod1")) == 1
    remember(tmp_path, "pod1", facts, quick())
    assert len(past(tmp_path, "pod1")) == 2
    text = file.read_text()
    assert "secret" not in text
    assert "GPU-" not in text
    assert past(tmp_path, "nobody") == []
    with pytest.raises(InputError, match="allowed are letters"):
        remember(tmp_path, "../x", facts, quick())


GARBAGE: list[Any] = [None, 5, "x\x1b[2J\ny", [], [1, "a"], {}, {"problems": 3, "error": ["x"]}, float("nan"), True]


@pytest.mark.parametrize("key", [*sound(), "skew_s"])
def test_preflight_takes_garbage_for_facts(key: str) -> None:
    """A host that answers garbage gets findings, never a traceback, and no escape sequence comes through."""
    for value in GARBAGE:
        facts = {**sound(), key: value}
        lines = [item.text for item in findings(POD, FULL, facts, quick(), [{key: value}])]
        for line in lines + summary_lines(facts, {"figures": value, "notes": value, "gpus": value}):
            assert line.isprintable(), line
    assert findings(POD, FULL, {}, {}, []) != []


def test_preflight_manifest_file(tmp_path: Path) -> None:
    """A sound one is read; what is none is the user's error."""
    path = tmp_path / "m.json"
    with pytest.raises(InputError, match="can't be read"):
        read_manifest(path)
    for text in ("{", "[]", '{"files": 3}'):
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(str(path))):
            read_manifest(path)
    path.write_text(json.dumps({"files": {"a": {"bytes": 1}}}))
    assert read_manifest(path) == {"files": {"a": {"bytes": 1}}}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB10", None),
        ("Tesla T4", None),
    ],
)
def test_reference_by_name(name: str, model: str | None) -> None:
    """The names nvidia-smi prints lead to the right model; ranges are ranges."""
    found = reference(name)
    assert (found.model if found else None) == model
    if found:
        assert found.note.startswith("datasheet: ")
        assert {"matmul_tflops", "memory_gb_s", "host_to_device_gb_s"} <= set(found.usual)
        assert all(0 < low < high for low, high in found.usual.values())


def test_reference_models_people_write() -> None:
    """As people write them in hosts.yaml; near names are other models."""
    for wanted, name in [
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("H100 SXM", "NVIDIA H100 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
        ("rtx4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("A100-80GB", "NVIDIA A100-SXM4-80GB"),
    ]:
        assert is_model(wanted, name), wanted
    for wanted, name in [
        ("A10", "NVIDIA A100-SXM4-80GB"),
        ("L40", "NVIDIA L40S"),
        ("L4", "NVIDIA L40"),
        ("H100 PCIe", "NVIDIA H100 80GB HBM3"),
        ("H100 SXM", "NVIDIA H100 PCIe"),
        ("100", "NVIDIA H100 PCIe"),
        ("", "NVIDIA H100 PCIe"),
    ]:
        assert not is_model(wanted, name), wanted
