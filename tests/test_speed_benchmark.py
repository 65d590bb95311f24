"""The benchmark of speed: its quick run, failures and arithmetic; what all state of the machine."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEED = ROOT / "benchmarks" / "speed"


@pytest.fixture
def speed(monkeypatch):
    """Imports a module of the benchmark, which runs as a folder."""
    monkeypatch.syspath_prepend(str(SPEED.parent))
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module


EXPORTED = ("SavedModel", "ONNX Runtime", "OpenVINO", "LiteRT")
SOME = ("keras_convnext predict", "kimm tf.function", "timm eager", "matrix product NumPy")


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        pytest.param(("--modes", "inference", "--contestants", *SOME), ("predict",), id="some"),
        pytest.param(
            (), ("predict", "train_on_batch", *EXPORTED), id="all", marks=pytest.mark.slow
        ),
    ],
)
def test_the_quick_run_measures_what_is_installed_and_says_what_is_not(options, ways, tmp_path):
    subprocess.run(
        [sys.executable, str(SPEED), "--quick", "--output", str(tmp_path), *options],
        check=True, capture_output=True, timeout=900,
    )  # fmt: skip
    results = json.loads((tmp_path / "speed.json").read_text())
    cases = results["cases"]
    assert {"cpu", "cores", "flags", "versions"} <= results["machine"].keys()
    assert results["machine"]["versions"]["keras"]
    assert all(len(result["load_average"]) == 2 for result in cases)
    modes = ["inference", "training"][: 1 if options else 2]
    assert [result["case"]["mode"] for result in cases] == modes
    table = (tmp_path / "speed.md").read_text()
    for result in cases:
        for name, figures in result["contestants"].items():
            assert name == f"{figures['library']} {figures['way']}"
            assert figures["library"] == "matrix product" or name in table
            if "error" in figures:
                assert f"{name} | not measured: {figures['error']}" in table
                assert figures["error"].startswith("not installed: "), name
            elif "gflop_per_s" not in figures:
                assert 0 < figures["images_per_s"] < 1e5
                assert figures["matrix_share"] > 0
                assert figures["imported_mb"] < figures["peak_mb"]
            if name == "keras_convnext predict":
                assert figures["imported_mb"] > 300  # TensorFlow is imported, not built
    measured = [
        name for result in cases for name, f in result["contestants"].items() if "turns" in f
    ]
    assert {f"keras_convnext {way}" for way in ways} <= set(measured)
    assert {"timm eager", "matrix product NumPy"} <= set(measured)
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert (tmp_path / "speed.png").exists() == drawn


def test_the_load_is_that_of_others_and_of_the_host(speed, monkeypatch):
    machine = speed("machine")
    state = {"clock": 100.0, "average": 0.5, "cpu": (50.0, 5.0), "own": (1, 1, 1, 1, 0)}
    monkeypatch.setattr(machine.time, "monotonic", lambda: state["clock"])
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (state["average"], 9, 9))
    monkeypatch.setattr(machine.os, "times", lambda: state["own"])
    monkeypatch.setattr(machine, "_cpu_seconds", lambda: state["cpu"])
    load = machine.Load()
    # In ten seconds all used 15, of which 12 are ours and our children's; the host kept 1 back.
    state |= {"clock": 110.0, "average": 2.0, "cpu": (65.0, 6.0), "own": (2, 3, 4, 7, 10)}
    figures = load.so_far()
    assert figures == {
        "load_average": [0.5, 2.0],
        "cores_of_other_processes": 0.3,
        "cores_withheld_by_host": 0.1,
    }
    report = speed("report")
    assert report.load(figures) == (
        "Load average before and after: 0.5 and 2.0. On average, other processes used 0.3 "
        "cores and the host withheld 0.1."
    )
    state["cpu"] = None  # a system without /proc
    assert machine.Load().so_far() == {"load_average": [2.0, 2.0]}
    assert report.load(load.so_far()) == "Load average before and after: 0.5 and 2.0."


def test_the_machine_is_described_by_processor_and_versions(speed, monkeypatch):
    machine = speed("machine")
    cpuinfo = {"model name": "A Processor", "flags": "fpu avx2 avx512f amx_int8 avx512fish"}
    monkeypatch.setattr(machine, "_proc", lambda name, field: cpuinfo.get(field))
    described = machine.description(("pytest", "no-such-library"))
    assert described["cpu"] == "A Processor"
    assert described["cores"] >= 1
    assert described["flags"] == ["avx2", "avx512f", "amx_int8"]
    assert described["versions"] == {"pytest": pytest.__version__, "no-such-library": None}


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("import sys; sys.exit('no such kernel')", "ended with code 1: no such kernel"),
        ("import os; os.kill(os.getpid(), 9)", "killed: out of memory, or no answer within 1800 s"),
        ('print(\'{"error": "ValueError: too large"}\')', "ValueError: too large"),
        # Ready, and dead before its turn.
        ("print('{\"first_s\": 1}', flush=True); raise SystemExit", "ended with code 0: no reason"),
    ],
)
def test_a_contestant_that_dies_is_a_line_with_its_last_words(
    speed, worker, reason, tmp_path, monkeypatch
):
    rounds, contestants = speed("rounds"), speed("contestants")
    (tmp_path / "worker.py").write_text(worker)
    monkeypatch.setattr(rounds, "WORKER", tmp_path / "worker.py")
    case = contestants.Case("tiny", 224, 8, "inference")
    row = contestants.CONTESTANTS["cpu", "inference"][-1]._replace(
        stack=contestants.Stack(("json",))
    )
    figures = rounds.Race("cpu", case, [row], str(tmp_path)).run(2, 0)
    assert figures[row.name]["error"].startswith(reason)

    table = speed("report").case_table(
        {"contestants": {"kimm predict": figures[row.name] | {"library": "kimm", "turns": []}}}
    )
    assert f"| kimm predict | not measured: {reason}" in table


def test_a_contestant_whose_library_is_absent_is_not_started(speed, monkeypatch, tmp_path):
    rounds, contestants = speed("rounds"), speed("contestants")
    monkeypatch.setattr(rounds, "Worker", None)
    row = contestants.CONTESTANTS["cpu", "inference"][0]
    row = row._replace(stack=contestants.Stack(("json", "no_such_library")))
    figures = rounds.Race("cpu", None, [row], str(tmp_path)).run(2, 0)
    assert figures[row.name]["error"] == "not installed: no_such_library"


@pytest.fixture
def race(speed, monkeypatch, tmp_path):
    """Runs two contestants, a and b, for three rounds on a device that has room for some images."""
    rounds, contestants = speed("rounds"), speed("contestants")
    events = []

    class Worker:
        ready = {"first_s": 1}  # noqa: RUF012

        def __init__(self, task, device, row, case, folder):
            if case.batch > 48:
                raise rounds.Failure("OutOfMemoryError: CUDA out of memory")
            events.append(row.way.upper())
            self.name = row.way

        def turn(self, seconds):
            events.append(self.name)
            return {"seconds": [3, 1, 2], "peak_mb": 100}

        def stop(self):
            events.append("-")

    monkeypatch.setattr(rounds, "Worker", Worker)
    monkeypatch.setattr(rounds, "SETTLE", 0)
    stack = contestants.Stack(("json",))
    rows = [contestants.Contestant("json", way, stack, None, None) for way in "ab"]

    def run(device, batch=8, free_mb=1e9):
        monkeypatch.setattr(rounds, "free_mb", lambda: free_mb)
        events.clear()
        case = contestants.Case("tiny", 224, batch, "inference")
        return rounds.Race(device, case, rows, str(tmp_path)).run(3, 0), "".join(events)

    return run


def test_on_a_cpu_everyone_has_a_turn_in_each_round(race):
    figures, events = race("cpu")
    assert events == "AaBbabab--"
    assert figures["json a"]["turns"] == [2, 2, 2]


def test_where_memory_is_short_who_ran_last_makes_room(race):
    assert race("cpu", free_mb=0)[1] == "Aa-Bb-Aa-Bb-Aa-Bb-"


def test_on_a_gpu_one_runs_after_the_other_with_the_batch_that_fits(race):
    figures, events = race("gpu", batch=128)
    assert events == "Aaaa-Bbbb-"
    assert figures["json b"]["batch"] == 32
    assert "out of memory" in race("cpu", batch=128)[0]["json a"]["error"]


def test_no_two_contestants_of_a_case_have_one_name(speed):
    for rows in speed("contestants").CONTESTANTS.values():
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)


def raced(rows):
    """Figures by library and way, as a race has them by name."""
    return {
        f"{library} {way}": {"library": library, "way": way, **figures}
        for (library, way), figures in rows.items()
    }


def test_shares_and_ratios_follow_from_the_times(speed):
    report, contestants = speed("report"), speed("contestants")
    raw = {"batch": 8, "peak_mb": 900, "imported_mb": 700}
    # A product of 4096 x 4096 matrices is 137.4 GFLOP; the faster of two is the limit.
    result = report.derived(
        contestants.Case("tiny", 224, 8, "training"),
        raced({
            ("keras_convnext", "train_on_batch"): {**raw, "turns": [1.0, 4.0, 2.0]},
            ("keras_convnext", "own AdamW"): {**raw, "turns": [4.0]},
            ("timm", "eager"): {**raw, "turns": [4.0], "peak_mb": 1000},
            ("kimm", "train_on_batch"): {"error": "not installed: kimm"},
            ("matrix product", "NumPy"): {"turns": [1.0]},
            ("matrix product", "PyTorch"): {"turns": [0.5]},
        }),
        macs=4_000_000_000,
    )  # fmt: skip
    assert result["matrix_gflop_per_s"] == 274.9
    ours = result["contestants"]["keras_convnext train_on_batch"]
    assert ours["images_per_s"] == 4
    assert ours["slowest_and_fastest"] == [2, 8]
    assert ours["matrix_share"] == pytest.approx(4 * 3 * 8 / 274.88, rel=1e-4)
    assert ours["peak_above_imports_mb"] == 200

    results = {"device": "cpu", "cases": [result]}
    aims = report.aims(results).splitlines()
    assert aims[2:] == [
        "| training, batch 8: speed of train_on_batch / keras.applications | ≥ 4.00 "
        "| not measured |  |",
        "| training, batch 8: speed of own AdamW / timm eager | ≥ 1.10 | 1.00 | no |",
        "| training, batch 8: peak memory of own AdamW / timm eager | ≤ 1.00 | 0.900 | yes |",
    ]
    assert report.ratios(results).splitlines()[2:] == [
        "| training, train_on_batch |  |  |  | 2.00 |  |  |  |",
        "| training, own AdamW |  |  |  | 1.00 |  |  |  |",
    ]


def test_an_aim_is_read_from_the_case_of_its_batch_and_may_compare_two_of_our_ways(speed):
    report, contestants = speed("report"), speed("contestants")
    raw = {"batch": 8, "peak_mb": 900, "imported_mb": 700}

    def case(batch, seconds, **changed):
        return report.derived(
            contestants.Case("tiny", 224, batch, "inference")._replace(**changed),
            raced({
                (library, way): {**raw, "batch": batch, "turns": [turn]}
                for (library, way), turn in seconds.items()
            }),
            macs=4_000_000_000,
        )  # fmt: skip

    ours = "keras_convnext"
    one = case(1, {
        (ours, "tf.function"): 3.0, (ours, "model(x)"): 4.0, (ours, "fused"): 2.0,
        ("timm", "torch.compile"): 1.0,
    })  # fmt: skip
    eight = case(8, {
        (ours, "tf.function"): 3.0, (ours, "model(x)"): 4.0, (ours, "fused"): 1.0,
        (ours, "predict"): 8.0, (ours, "predict, array"): 10.0,
        (ours, "LiteRT"): 1.0, (ours, "ONNX Runtime"): 1.0, ("ONNX Runtime", "from timm"): 0.1,
        ("OpenVINO", "from timm"): 1.0, (ours, "OpenVINO"): 0.1,
    })  # fmt: skip
    base = case(1, {(ours, "fused"): 1.0, ("timm", "torch.compile"): 1.0}, network="base")
    of_one = [
        "| inference, batch 1: speed of fused / timm torch.compile | ≥ 1.00 | 0.500 | no |",
        f"| inference, batch 1: speed of model(x) / {ours} tf.function | ≥ 0.60 | 0.750 | yes |",
    ]
    assert report.aims({"cases": [base, one]}).splitlines()[2:] == of_one
    assert report.aims({"cases": [base]}) == ""
    both = report.aims({"cases": [eight, base, one]}).splitlines()
    assert {
        *of_one,
        f"| inference, batch 8: speed of model(x) / {ours} tf.function | ≥ 0.90 | 0.750 | no |",
        f"| inference, batch 8: speed of predict, array / {ours} predict | ≥ 0.95 | 0.800 | no |",
        f"| inference, batch 8: speed of LiteRT / {ours} ONNX Runtime | ≥ 0.90 | 1.00 | yes |",
        "| inference, batch 8: speed of fused / OpenVINO from timm | ≥ 1.00 | 1.00 | yes |",
        "| inference, batch 8: speed of predict / timm torch.compile | ≥ 1.00 | not measured |  |",
    } <= set(both)


def test_every_aim_is_of_contestants_that_take_part(speed):
    for aim in speed("report").AIMS:
        rows = speed("contestants").CONTESTANTS["cpu", aim.mode]
        part = {(row.library, way) for row in rows for way in (row.way, None)}
        assert {("keras_convnext", aim.way), *aim.peers} <= part


def test_a_name_that_begins_with_another_is_not_taken_for_it(speed):
    report, contestants = speed("report"), speed("contestants")
    seconds = {
        ("keras_convnext", "fused"): 2.0,
        ("keras_convnext", "fused predict"): 1.0,
        ("keras_convnext fork", "fused"): 0.1,
        ("timm", "eager"): 4.0,
        ("timm", "eager compiled"): 0.5,
        ("OpenVINO", "from timm"): 8.0,
        ("OpenVINO", "from us"): 4.0,
        ("OpenVINO GenAI", "from timm"): 0.5,
        ("matrix product", "NumPy"): 1.0,
        ("matrix product of torch", "eager"): 0.01,
    }
    started = {"import_s": 1.0, "build_s": 1.0, "first_s": 1.0}
    raw = {"batch": 8, "peak_mb": 900, "imported_mb": 700, **started}
    result = report.derived(
        contestants.Case("tiny", 224, 8, "inference"),
        raced({name: {**raw, "turns": [turn]} for name, turn in seconds.items()}),
        macs=4_000_000_000,
    )
    assert result["matrix_gflop_per_s"] == 137.4
    assert report.ratios({"cases": [result]}).splitlines()[2:] == [
        "| inference, fused |  |  |  | 2.00 |  |  | 2.00 |",
        "| inference, fused predict |  |  |  | 4.00 |  |  | 4.00 |",
    ]
    table = report.case_table(result)
    assert "| **keras_convnext fused** |" in table
    assert "| keras_convnext fork fused |" in table
    assert "| matrix product of torch eager |" in table
    assert "| matrix product NumPy |" not in table


def test_the_kept_tables_are_those_of_the_kept_figures(speed):
    kept = sorted((ROOT / "benchmarks" / "results").rglob("speed*.json"))
    assert len(kept) == 9
    for path in kept:
        results = json.loads(path.read_text("utf-8"))
        assert speed("report").markdown(results) == path.with_suffix(".md").read_text("utf-8")


def test_the_ratios_of_the_readme_are_those_of_the_last_run(speed):
    results = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text())
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = [line for line in readme.splitlines() if line.startswith(("| inference", "| training"))]
    assert rows
    assert [row for row in rows if row not in speed("report").ratios(results).splitlines()] == []
    assert results["started"] in readme


def test_the_figures_in_the_sentences_of_the_page_are_measured():
    def of(path, library, way, figure="images_per_s", **case):
        results = json.loads((ROOT / "benchmarks" / "results" / path).read_text("utf-8"))
        sought = {"network": "tiny", "size": 224, "batch": 8, "mode": "inference", **case}
        (found,) = (
            r["contestants"] for r in results["cases"] if sought.items() <= r["case"].items()
        )
        return found[f"{library} {way}"][figure]

    def times(path, ours, library, way, **case):
        return of(path, "keras_convnext", ours, **case) / of(path, library, way, **case)

    compiled, memory = ("timm", "torch.compile"), {"figure": "peak_mb", "mode": "training"}
    few, sizes, gpu = "precisions/speed.json", "sizes/speed.json", "speed_gpu.json"
    alone, one, litert = "one_image/speed.json", {"batch": 1}, "litert/speed.json"
    on_gpu = {"batch": 128, "dtype": "bfloat16"}
    of_v2 = {"network": "v2_tiny", "mode": "training"}
    expected = {
        '"Own AdamW" is': [f"{times('speed.json', 'own AdamW', 'timm', 'eager', **memory):.2f}"],
        "[One image at a time]": [
            f"{times(alone, 'predict', 'keras.applications', 'predict', **one):.2f}",
            f"{times(alone, 'fused', *compiled, **one):.2f}",
        ],
        "[LiteRT]": [
            f"{times(litert, 'LiteRT', 'keras_convnext', 'ONNX Runtime', dtype='float32'):.2f}",
        ],
        "[In lower precision]": [
            f"{of(few, 'keras_convnext', 'OpenVINO', dtype='bfloat16'):.1f}",
            f"{times(few, 'OpenVINO', *compiled, dtype='bfloat16'):.2f}",
            f"{of(few, 'keras_convnext', 'OpenVINO', dtype='int8'):.1f}",
            f"{of('intel/speed.json', 'keras_convnext', 'OpenVINO'):.1f}",
        ],
        "[Without AVX-512]": [
            f"{times('avx2/speed.json', 'predict', 'keras.applications', 'predict'):.2f}",
            f"{times('avx2/speed.json', 'fused', *compiled):.2f}",
            f"{times(sizes, 'fused', *compiled, batch=32):.2f}",
            f"{times(sizes, 'fused', *compiled, size=384):.2f}",
            f"{times(sizes, 'fused', *compiled, network='base'):.2f}",
            f"{times(sizes, 'fused', *compiled, batch=1):.2f}",
        ],
        "[ConvNeXt V2-T]": [
            f"{times('v2/speed.json', 'tf.function', 'timm', 'eager', network='v2_tiny'):.2f}",
            f"{times('v2/speed.json', 'fused', 'timm', 'eager', network='v2_tiny'):.2f}",
            f"{times('v2/speed.json', 'train_on_batch', 'timm', 'eager', **of_v2):.2f}",
        ],
        "[On an NVIDIA H200]": [
            f"{of(gpu, 'keras_convnext', 'JAX', **on_gpu):,.0f}",
            f"{times(gpu, 'JAX', 'timm', 'eager', **on_gpu):.2f}",
            f"{times(gpu, 'JAX', *compiled, **on_gpu):.2f}",
        ],
    }  # fmt: skip
    page = (ROOT / "docs" / "speed.md").read_text("utf-8")
    paragraphs = re.split(r"\n+- |\n\n", page)
    for begin, figures in expected.items():
        (paragraph,) = (text for text in paragraphs if text.startswith(begin))
        assert re.findall(r"\b\d+(?:\.\d+|,\d{3})\b", paragraph) == figures, begin
