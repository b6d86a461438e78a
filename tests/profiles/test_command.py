import json

import pytest

from dualtune_edge import cli
from dualtune_edge.profiles import catalog, plugins


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["profiles", *arguments])
    return int(ended.value.code or 0)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    text = capsys.readouterr().out
    assert all(profile.name in text for profile in catalog.profiles())
    assert run("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["profiles"]
    assert [row["name"] for row in listed] == [profile.name for profile in catalog.profiles()]


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "arm64-i8mm") == 0
    text = capsys.readouterr().out
    assert "block_size      32" in text
    assert run("show", "arm64-i8mm", "--json") == 0
    assert json.loads(capsys.readouterr().out) == catalog.load("arm64-i8mm").model_dump(mode="json")


def test_detect_tells_every_setting_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detect", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["profile"] in {profile.name for profile in catalog.profiles()}
    assert all(reason["why"] for reason in report["settings"])
    assert run("detect") == 0
    text = capsys.readouterr().out
    assert all(reason["why"] in text for reason in report["settings"])


def test_a_profile_that_does_not_fit_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    other = "arm64-i8mm" if "x" in json_profile(capsys) else "cpu-x64"
    assert run("detect", "--profile", other, "--threads", "1", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["profile"] == other
    assert err.startswith(f"warning: profile {other} is for ")


def json_profile(capsys: pytest.CaptureFixture[str]) -> str:
    assert run("detect", "--json") == 0
    return str(json.loads(capsys.readouterr().out)["profile"])


def test_explain_tells_of_every_profile_and_provider(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detect", "--explain") == 0
    text = capsys.readouterr().out
    assert [
        profile.name for profile in catalog.profiles() if f"  {profile.name} " not in text.replace("* ", "  ")
    ] == []
    assert [plugin.provider for plugin in plugins.PLUGINS if f"  {plugin.provider} " not in text] == []
    assert (
        "VitisAIExecutionProvider   its package is on no package index: it comes with AMD's Ryzen AI software" in text
    )


def test_the_environment_names_a_profile(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(catalog.PROFILE_VARIABLE, "cpu-x64")
    assert json_profile(capsys) == "cpu-x64"
    monkeypatch.setenv(catalog.PROFILE_VARIABLE, "cpu-x46")
    assert run("detect") == 11
    assert "Did you mean 'cpu-x64'" in capsys.readouterr().err
