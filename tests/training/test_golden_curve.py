import json

import golden_curve
import pytest
import toy_runs


def test_this_commit_trains_as_the_last_one_did(monkeypatch, tmp_path):
    toy_runs.register(monkeypatch, golden_curve.NETWORK)
    found = golden_curve.numbers(golden_curve.measure(tmp_path))
    expected = golden_curve.numbers(json.loads(golden_curve.CURVE.read_text("utf-8")))
    assert found.keys() == expected.keys()
    differ = [
        f"{name}: {found[name]}, not {value}"
        for name, value in expected.items()
        if found[name] != pytest.approx(value, rel=1e-4)
    ]
    assert not differ, f"{len(differ)} of {len(expected)} numbers, from the {differ[0]}"
