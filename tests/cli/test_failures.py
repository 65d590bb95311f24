"""However a command fails, that is a line and an exit code."""

import json
import warnings

import pytest
from test_cli import run

from keras_convnext.cli import checkpoints, networks
from keras_convnext.cli.failures import EXIT_CODES
from keras_convnext.cli.noise import library_output


def failing(monkeypatch, error):
    def raising(*_):
        raise error

    monkeypatch.setattr(networks, "parts", raising)
    return run("list")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            PermissionError(13, "Permission denied", "a\x1bb.pth"),
            2,
            "Permission denied: a\\x1bb.pth",
        ),
        (OSError(28, "No space left on device"), 2, "Error: No space left on device"),
        (MemoryError(), 2, "Error: Not enough memory."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (ValueError("one\ntwo"), 2, "Error: one"),
    ],
)
def test_what_a_user_can_cause_is_a_line(error, code, line, monkeypatch):
    result = failing(monkeypatch, error)
    assert result.exit_code == code
    assert code in EXIT_CODES
    assert result.stdout == ""
    (printed,) = result.stderr.splitlines()
    assert line in printed


def test_an_internal_error_names_the_log_to_report(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = failing(monkeypatch, KeyError("boom"))
    assert result.exit_code == 70
    (line,) = result.stderr.splitlines()
    (log,) = tmp_path.glob("*.log")
    assert line.startswith("Error: KeyError: 'boom'")
    assert line.endswith(f"please report it with {log}")
    text = log.read_text()
    for part in ("Traceback", "keras-convnext: ", "python: ", "command: "):
        assert part in text
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "--verbose" in failing(monkeypatch, KeyError("boom")).stderr


def test_our_own_warning_is_a_line_and_those_of_others_are_not_changed(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *given: shown.append(str(given[0])))
    monkeypatch.setattr(library_output, "is_kept", False)  # a test that calls `main` sets it

    def warning(*_):
        warnings.warn("of another package", stacklevel=1)
        namespace = {"__name__": "keras_convnext.somewhere", "warnings": warnings}
        exec("warnings.warn('[red]ours[/red] \\x1b[31m', stacklevel=9)", namespace)
        return ()

    monkeypatch.setattr("keras_convnext.pretrained.identify.identify", warning)
    monkeypatch.setattr(checkpoints, "_facts", lambda found: {"model": "none"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run("identify", "x.pth")
    assert result.stderr == "Warning: [red]ours[/red] \\x1b[31m\n"
    assert shown == ["of another package"]


def test_every_command_has_json_and_help(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path))
    names = (
        "list info predict identify download convert verify evaluate recipes plan train export "
        "demo doctor"
    )
    for name in (*names.split(), "cache list", "cache size", "cache remove", "cache verify"):
        printed = run(*name.split(), "--help").stdout
        assert "--json" in printed, name
        assert "--verbose" in printed, name
    for name in ("predict", "identify", "convert", "verify", "evaluate", "export", "demo"):
        printed = run(name, "--help").stdout
        for option in ("--entry", "--prefix", "--ignore"):
            assert option in printed, (name, option)
    for arguments in ("list", "list --weights", "recipes", "recipes cifar10", "info convnext_tiny",
                      "cache list", "cache size"):  # fmt: skip
        json.loads(run(*arguments.split(), "--json").stdout)
