"""What reaches the terminal, and how the process ends: in processes of their own."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from keras_convnext.cli import app, main, terminal
from keras_convnext.cli.photographs import DEMONSTRATION
from keras_convnext.cli.terminal import Stream

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
WEIGHTS = ROOT / "weights" / "cifar10" / "convnext_cifar_32.safetensors"
COMMAND = [sys.executable, "-m", "keras_convnext"]
BACKENDS = "{'keras', 'tensorflow', 'jax', 'torch'}"


def commands(*arguments, **options):
    """Runs commands in a process, each by `main`, as that of the shell does."""
    script = (
        "import sys\n"
        "from keras_convnext.cli import main\n"
        f"for arguments in {[[str(part) for part in command] for command in arguments]}:\n"
        "    sys.argv[1:] = arguments\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        print('code', ended.code, flush=True)\n"
        f"print(*sorted({BACKENDS} & set(sys.modules)))\n"
    )
    options = {"capture_output": True, "text": True, "env": dict(os.environ), **options}
    for name in ("COLUMNS", "TF_CPP_MIN_LOG_LEVEL"):
        options["env"].pop(name, None)
    return subprocess.run([sys.executable, "-c", script], **options)


def test_what_needs_no_network_imports_no_backend(tmp_path):
    plan = ["plan", "--recipe=imagenet22k", "--model=convnext_base", "--device-type=a100-80gb"]
    cached = ["cache", "list"], ["cache", "size"]
    cached += (["download", "convnext_cifar"],)
    names = [command.name for command in app.registered_commands]
    assert len(names) > 10
    helps = [[name, "--help"] for name in (*names, "cache")]
    done = commands(
        ["--help"], ["--version"], ["list"], ["list", "--weights"], ["list", "--files", "--json"],
        ["info", "convnext_tiny"], ["recipes"], ["recipes", "cifar10"], ["identify", WEIGHTS],
        plan, [*plan, "--json"], *cached, *helps,
        env={**os.environ, "KERAS_CONVNEXT_CACHE": str(tmp_path)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("code")] == ["code 0"] * (14 + len(helps))
    assert lines[-1] == ""
    assert done.stderr == f"{tmp_path}: 0 files, 0.0 MB\n"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".weights.h5", ".keras", ".bin"])
def test_files_of_every_kind_are_identified_without_a_backend(suffix, tmp_path):
    shutil.copy(WEIGHTS, tmp_path / f"a{suffix}")  # its content decides
    torch.save({"model": safetensors.torch.load_file(WEIGHTS)}, tmp_path / f"b{suffix}")
    (tmp_path / f"c{suffix}").write_bytes(b"none")
    done = commands(*(["identify", tmp_path / f"{name}{suffix}", "--json"] for name in "abc"))
    codes = [line for line in done.stdout.splitlines() if line.startswith("code")]
    assert codes[2] == "code 2"
    assert done.stdout.splitlines()[-1] == ""
    if suffix != ".keras":
        assert codes[:2] == ["code 0"] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["identify", WEIGHTS],
        ["plan", "--recipe=imagenet1k", "--model=convnext_tiny", "--device-type=v100-32gb"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_without_a_backend_starts_at_once(arguments):
    """Half a second of processor time here; the bound is below what TensorFlow takes."""
    resource = pytest.importorskip("resource")

    def seconds():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = seconds()
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, capture_output=True)
    assert seconds() - before < 2


def test_only_results_are_printed_without_verbose(tmp_path):
    with zipfile.ZipFile(ROOT / "examples" / "cifar10_sample.zip") as archive:
        archive.extractall(tmp_path)
    data = tmp_path / "cifar10_sample"
    target = tmp_path / "x.pth"
    done = commands(
        ["predict", PHOTOS / "cat.jpg", "--top", "1"],
        ["evaluate", data, "--weights", WEIGHTS, "--limit", "64"],
        ["convert", WEIGHTS, target],
        ["verify", WEIGHTS, "--json"],
        ["predict", PHOTOS / "cat.jpg", "--verbose", "--top", "1"],
        ["doctor"],
    )  # fmt: skip
    assert done.stdout.count("code 0") == 6
    head, _, rest = done.stdout.partition("code 0\n")
    assert head.splitlines()[0] == str(PHOTOS / "cat.jpg")
    assert len(head.splitlines()) == 2
    assert rest.splitlines()[0] == "images   top-1    top-5  cross entropy  images/s"
    assert "\x1b" not in done.stdout
    about = f"{DEMONSTRATION}\n"
    assert done.stderr == f"{about}Wrote {target}: convnext_cifar, 2,005,386 parameters\n{about}"


def test_verbose_shows_what_libraries_print_and_an_image_comes_from_standard_input():
    photo = (PHOTOS / "cat.jpg").read_bytes()
    options = {"input": photo, "capture_output": True}
    done = subprocess.run([*COMMAND, "predict", "-", "--json", "--top=1", "--verbose"], **options)
    assert done.returncode == 0
    assert b'"file": "-"' in done.stdout
    assert done.stdout.startswith(b"[")
    assert b"absl::InitializeLog" in done.stderr  # by any TensorFlow


def test_an_image_from_standard_input_is_not_called_by_the_file_it_was_written_to(
    monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["keras-convnext", "predict", "-", "--json"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"none")))
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert printed.err.rstrip().endswith("Received: -")
    assert json.loads(printed.out)[0]["error"].endswith("Received: -")


@pytest.mark.parametrize("columns", ["0", "00", "1", "-5", "abc", ""])
def test_results_are_printed_whatever_the_width_is_said_to_be(columns):
    done = subprocess.run(
        [*COMMAND, "list"], capture_output=True, text=True, env={**os.environ, "COLUMNS": columns}
    )
    assert "convnext_tiny" in done.stdout


def test_a_backend_that_is_not_there_is_a_line():
    done = subprocess.run(
        [*COMMAND, "predict", str(PHOTOS)], capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": "mxnet"},
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "mxnet" in line


@pytest.mark.parametrize("arguments", [["list", "--weights", "--files"], ["--help"]])
def test_a_reader_that_goes_away_ends_it_in_silence(arguments):
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"]])
def test_a_full_disk_is_a_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"Error: No space left on device\n"


@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, b"Interrupted.\n"), ("SIGTERM", 143, b"")]
)
def test_a_signal_ends_it_without_a_traceback(name, code, said):
    process = subprocess.Popen(
        [*COMMAND, "predict", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a shell runs in the background, these tests for one, ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    process.stdin.write(b"x" * (1 << 20))  # more than a pipe holds: it reads by now
    process.send_signal(getattr(signal, name))
    assert process.communicate() == (b"", said)
    assert process.returncode == code


def test_a_bar_is_shown_on_a_terminal_alone(monkeypatch):
    for is_terminal in (True, False):
        stream = Stream(file=io.StringIO(), force_terminal=is_terminal, width=80)
        monkeypatch.setattr(terminal, "messages", stream)
        for item in terminal.track(range(3), "Doing [red]%s", "things", 3):
            print("library", item)
            time.sleep(0.1)
        drawn = stream.file.getvalue()
        assert ("Doing [red]%s" in drawn and "things/s" in drawn) == is_terminal
        assert "library" not in drawn


def test_characters_that_the_terminal_lacks_are_escaped():
    done = subprocess.run(
        [*COMMAND, "identify", "\u9ed2\u732b.pth"], capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 2
    assert b"\\u9ed2\\u732b.pth" in done.stderr


def test_the_shell_completes_commands_and_names():
    completed = {}
    for words in ("keras-convnext ide", "keras-convnext info convnext_iso"):
        done = subprocess.run(
            COMMAND, capture_output=True, text=True,
            env={**os.environ, "_KERAS_CONVNEXT_COMPLETE": "complete_bash", "COMP_WORDS": words,
                 "COMP_CWORD": str(len(words.split()) - 1)},
        )  # fmt: skip
        completed[words] = done.stdout.split()
    assert completed["keras-convnext ide"] == ["identify"]
    assert completed["keras-convnext info convnext_iso"] == [
        f"convnext_isotropic_{scale}" for scale in ("small", "base", "large")
    ]
