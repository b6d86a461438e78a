"""Static graphs → a context binary for one SoC, by Qualcomm's compiler inside its execution provider."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engines.qnn import Htp, left_behind, share
from dualtune_edge.runtime.engines.static_graph import static_options
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.errors import GraphError


@dataclass(frozen=True)
class Compiled:
    """A context binary with one copy of the weights for all chunk lengths; a graph a chunk length is beside it."""

    binary: Path
    seconds: float


def compile_contexts(folder: Path, out: Path, form: StaticGraph, htp: Htp) -> Compiled:
    """Compile the graphs of a folder.

    Args:
        folder: holds `form.files`, as `build_static` writes them.
        out: a new folder.
        form: the graphs' form.
        htp: the device that compiles them; a simulated one suffices.

    Raises:
        GraphError: a graph does not compile, or leaves an operator, named in the error, to the CPU.

    """
    out.mkdir()
    start = time.perf_counter()
    for tokens, file in zip(form.chunks, form.files, strict=True):
        options = static_options(SessionSettings(1, spinning=False))
        entries = {"enable": "1", "file_path": str(out / file), "embed_mode": "0"}
        for name, value in entries.items():
            options.add_session_config_entry(f"ep.context_{name}", value)
        share(options, last=tokens == form.chunks[-1])
        session = _compile(folder / file, options, htp)
        if left := left_behind(session):
            raise GraphError(
                str(folder / file),
                found=f"left to the CPU: {left}",
                expected=f"all operators in the context for SoC {htp.target.soc_model}",
                fix="Leave the NPU's profile out, and report this with the version of onnxruntime-qnn.",
            )
        del session
    (binary,) = out.glob("*.bin")
    return Compiled(binary, time.perf_counter() - start)


def _compile(path: Path, options: onnxruntime.SessionOptions, htp: Htp) -> onnxruntime.InferenceSession:
    try:
        return htp.session(path, options)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        raise GraphError(
            str(path),
            found=str(error).strip().splitlines()[0],
            expected=f"a graph that compiles for SoC {htp.target.soc_model}, HTP {htp.target.htp_arch}",
            fix="Check the profile's `soc_model` and `htp_arch`.",
        ) from None
