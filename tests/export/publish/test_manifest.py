"""What a finished bundle holds: every file in the manifest, every stage with its prompt and adapter."""

from datetime import date
from typing import Any

from export_desk import Exported

from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.files import sha256_file


def test_the_manifest_lists_every_file_with_its_hash(exported: Exported) -> None:
    listed = {file.path: file for file in exported.manifest.files}
    there = {path.relative_to(exported.bundle).as_posix() for path in exported.bundle.rglob("*") if path.is_file()}
    assert listed.keys() == there - {"manifest.json", "manifest.sha256"}
    for path, entry in listed.items():
        assert entry.sha256 == sha256_file(exported.bundle / path)
        assert entry.size == (exported.bundle / path).stat().st_size


def test_a_release_is_the_specs(mixed: Exported, external: Exported) -> None:
    assert mixed.manifest.release == Release(product="desk", version=3, expires=date(2030, 1, 31))
    assert external.manifest.release is None
    assert b'"release"' not in (external.bundle / "manifest.json").read_bytes()


def test_stages_lead_to_prompts_and_adapters(exported: Exported) -> None:
    manifest = exported.manifest
    names = {adapter.name for adapter in manifest.adapters}
    for entry in manifest.toolsets:
        plan = exported.plan(entry.selection.prompt)
        assert [*(tool.name for tool in entry.toolset.tools), "summarize"] == list(plan.completions)
        assert entry.selection.adapter in names
        for tool, stage in entry.arguments.items():
            assert exported.plan(stage.prompt).tool == tool
            assert stage.adapter is None or stage.adapter in names
    assert all((exported.bundle / adapter.path).exists() for adapter in manifest.adapters)


def test_a_tool_without_arguments_has_no_stage(exported: Exported) -> None:
    assert list(exported.manifest.toolsets[0].arguments) == ["read", "write"]


def test_adapters_keep_their_rank_and_scale(exported: Exported) -> None:
    for adapter in exported.manifest.adapters:
        assert (adapter.rank, adapter.scale) == (4, 4.0)  # rsLoRA: 8 / √4


def test_the_base_opens_in_onnxruntime_genai_and_its_adapters_load(exported: Exported) -> None:
    import onnxruntime_genai as og

    model = og.Model(str(exported.bundle / "model"))
    adapters = og.Adapters(model)
    for adapter in exported.manifest.adapters:
        if adapter.mode == "external":
            adapters.load(str(exported.bundle / adapter.path), adapter.name)
            generator = og.Generator(model, _search(og, model))
            generator.set_active_adapter(adapters, adapter.name)
            generator.append_tokens([1, 2, 3])
            generator.generate_next_token()
        else:
            merged = og.Model(str(exported.bundle / adapter.path))
            generator = og.Generator(merged, _search(og, merged))
            generator.append_tokens([1, 2, 3])
            generator.generate_next_token()


def _search(og: Any, model: Any) -> Any:
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=16)
    return params


def test_one_adapter_of_two_stages_is_one_file(mixed: Exported) -> None:
    chosen = [adapter for adapter in mixed.manifest.adapters if adapter.kind == "selection"]
    assert [adapter.name for adapter in chosen] == ["selection.files", "selection.git"]
    assert len({adapter.path for adapter in chosen}) == 1
    assert "2 stages share one adapter: selection.files, selection.git" in mixed.report.warnings


def test_a_tool_without_an_adapter_goes_to_the_base_with_a_warning(mixed: Exported) -> None:
    files, git = mixed.manifest.toolsets
    assert files.arguments["read"].adapter == "arguments.files.read"
    assert git.arguments["log"].adapter is None
    assert [warning for warning in mixed.report.warnings if "no adapter" in warning] == [
        "tool 'log' of 'git' has no adapter: the base model writes its arguments"
    ]
