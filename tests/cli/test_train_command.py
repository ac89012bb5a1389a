"""`atoll train` says what is missing and which command makes it."""

import json

from typer.testing import CliRunner

from atoll.cli.main import app


def test_each_stage_names_the_stage_before_it(tmp_path):
    for command, expected in (
        (["vae", "lagoon"], "atoll train data"),
        (["text", "lagoon"], "atoll train data"),
        (["scratch", "lagoon"], "atoll train data"),
        (["export", "lagoon", "--out", str(tmp_path / "model")], "atoll train scratch"),
    ):
        result = CliRunner().invoke(app, ["train", *command, "--folder", str(tmp_path / "空 run")])
        assert result.exit_code == 2, result.output
        assert expected in result.stderr
    assert not (tmp_path / "model").exists()


def test_an_unknown_recipe_is_told_to_programs_as_json():
    result = CliRunner().invoke(app, ["train", "vae", "no-such", "--json"])
    assert result.exit_code == 2
    assert "lagoon" in json.loads(result.stdout)["error"]["message"]
