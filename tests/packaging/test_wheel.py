import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[2]
WINGS = ("toolkit", "profiles", "runtime", "export")


def test_it_holds_every_file_of_the_wings_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    command = ROOT / "export" / "optimum" / "command"
    wings = [path for wing in WINGS for path in (ROOT / wing).rglob("*") if path.is_file() and command != path.parent]
    ours = {f"dualtune_edge/{path.relative_to(ROOT).as_posix()}" for path in wings if "__pycache__" not in path.parts}
    ours |= {f"dualtune_edge/{path.name}" for path in (ROOT / "dualtune_edge").iterdir() if path.is_file()}
    ours.add("optimum/commands/register/register_dualtune_edge.py")
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == ours


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    names = {name.rpartition("/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    metadata = message_from_bytes(wheel.read(names["METADATA"]))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert b"Apache License" in wheel.read(names["LICENSE"])
    assert b"dualtune-edge = dualtune_edge.cli:main" in wheel.read(names["entry_points.txt"])
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not any(line.startswith(("torch", "transformers", "peft", "optimum", "onnx>", "onnx-ir")) for line in base)
