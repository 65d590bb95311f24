import json
import re
import subprocess
import sys

from typer.testing import CliRunner

from keras_convnext.cli.application import app
from keras_convnext.roadmap import REGIMES, STEPS


def told(*options, code=0):
    result = CliRunner().invoke(app, ["list", "--roadmap", *options], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_every_step_is_a_row_of_80_columns():
    lines = told().splitlines()
    assert max(map(len, lines)) <= 80
    for step in STEPS:
        assert sum(line.startswith(f"{step}  ") for line in lines) == len(REGIMES)
    rows = {line.split()[0]: re.split(r"  +", line) for line in reversed(lines) if "," in line}
    assert rows["width"] == ["width", "width 96", "33,760,936", "5.27", "5.27", "80.50 \u00b1 0.02"]
    assert rows["layer_norm"][-3:] == ["4.15", "4.46", "81.47 \u00b1 0.09"]
    assert rows["final_norm"][-1] == "4.15"
    assert rows["convnext"][-2:] == ["4.5", "82.1"]
    assert any("4.15, not 4.46" in line for line in lines)


def test_markdown_and_json_have_the_same():
    markdown = told("--markdown").splitlines()
    assert sum(line.startswith("|width ") for line in markdown) == len(REGIMES)
    rows = json.loads(told("--json"))
    assert len(rows) == len(REGIMES) * len(STEPS)
    depthwise = next(row for row in rows if row["step"] == "depthwise")
    assert depthwise == {
        "regime": "resnet50", "step": "depthwise", "change": "depthwise convolution",
        "depths": [3, 3, 9, 3], "dims": [64, 128, 256, 512], "parameters": 15_722_600,
        "macs": 2_349_507_072, "paper_gflops": 2.35, "paper_top1": 78.28,
        "paper_deviation": 0.08,
    }  # fmt: skip


def test_no_backend_is_imported():
    script = (
        "import sys; from keras_convnext.cli import road; road.write_roadmap(False, False); "
        "print({'keras', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_other_lists_are_not_mixed_with_it():
    assert "must be used alone" in told("--weights", code=2)


def test_a_step_is_a_model_to_train_with(tmp_path):
    def answer(*words):
        result = CliRunner().invoke(app, list(words))
        return result.output + str(result.exception)

    unknown = answer("train", "--recipe", "roadmap", "--model", "roadmap:resnext", "--data", "x",
                     "--output", str(tmp_path))  # fmt: skip
    assert "step must be one of resnet, stage_ratio" in unknown
    planned = answer("plan", "--recipe", "roadmap", "--model", "roadmap:gelu",
                     "--device-type", "a100-80gb")  # fmt: skip
    assert "memory of the roadmap's networks cannot be estimated" in planned
    assert "must be one of convnext_atto" in answer("info", "roadmap:gelu")
