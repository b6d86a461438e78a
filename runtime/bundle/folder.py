"""A bundle that was opened: what its folder holds, read at first use and hashed as it is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel
from tokenizers import Tokenizer

from dualtune_edge.runtime.bundle.checks import compare_hash, damaged
from dualtune_edge.runtime.bundle.current import Lease
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.bundle.plain_files import read_plain
from dualtune_edge.runtime.bundle.prompt_checks import prompt_faults
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.bundle.layout import MANIFEST, MODEL_DIR, PRIMARY, SEAL, VARIANTS_DIR
from dualtune_edge.toolkit.bundle.licences import LICENCES, Licences
from dualtune_edge.toolkit.bundle.manifest import Manifest, ModelEntry, Stage, ToolsetEntry
from dualtune_edge.toolkit.bundle.parity import PARITY, ParityReport
from dualtune_edge.toolkit.bundle.verification import SIMULATED, Verification
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.no_tool import no_tool_entry
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan
from dualtune_edge.toolkit.prompts.tokenizer_file import (
    LoadedTokenizer,
    TokenizerError,
    load_tokenizer,
)
from dualtune_edge.toolkit.validation import listing, nearest, validate

TOKENIZER: Final = f"{MODEL_DIR}/tokenizer.json"
_CHAT_TEMPLATE: Final = f"{MODEL_DIR}/chat_template.jinja"
_TOKENIZER_CONFIG: Final = f"{MODEL_DIR}/tokenizer_config.json"
_Report = TypeVar("_Report", bound=BaseModel)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, seen through one of its models. What it holds besides the manifest is read at first use."""

    root: Path
    manifest: Manifest
    chosen: str = PRIMARY  # name of the model
    lease: Lease | None = None  # of a version of a store
    signer: str | None = None  # the name that the trust policy gives to whoever signed; None: nothing was verified

    def on(self, model: str) -> Bundle:
        """The same bundle, seen through the model of that name."""
        return replace(self, chosen=model)

    @cached_property
    def entry(self) -> ModelEntry:
        """The model that it is seen through."""
        return self.manifest.model(self.chosen)

    def state_of(self, stage: Stage) -> str | None:
        """Path of the KV state of the stage's prefix, by this model; None: there is none."""
        return self.entry.stage_states.get(stage.prompt)

    def read(self, path: str) -> bytes:
        """The bytes of a listed file, hashed as they are read: what lies there now is what was verified.

        Raises:
            BundleError: the file is not listed, or is not as it was exported.

        """
        entry = next((file for file in self.manifest.files if file.path == path), None)
        if entry is None:
            raise damaged(self.root / MANIFEST, found=f"no {path!r} among the files", expected="the file")
        try:
            data = read_plain(self.root / path, entry.size)
        except OSError as error:
            raise damaged(self.root / path, found=str(error), expected="a file that can be read") from None
        compare_hash(self.root / path, hashlib.sha256(data).hexdigest(), entry)
        return data

    def read_json(self, path: str) -> strict_json.Json:
        """The value in a listed file.

        Raises:
            BundleError: as for `read`, or it is no JSON.

        """
        try:
            return strict_json.loads(self.read(path))
        except strict_json.JsonError as error:
            raise damaged(self.root / path, found=str(error), expected="JSON") from None

    @property
    def tokenizer_json(self) -> str:
        """The text of tokenizer.json, for llguidance to read.

        Raises:
            BundleError: as for `read`, or it is no tokenizer.

        """
        return self._loaded.text

    @property
    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer.

        Raises:
            BundleError: as for `read`, or it is no tokenizer.

        """
        return self._loaded.tokenizer

    @cached_property
    def _loaded(self) -> LoadedTokenizer:
        try:
            return load_tokenizer(self.read(TOKENIZER).decode())
        except (TokenizerError, UnicodeDecodeError) as error:
            raise damaged(self.root / TOKENIZER, found=str(error), expected="a tokenizer") from None

    @cached_property
    def chat_template(self) -> str | None:
        """The base's own chat template; None: it has none.

        Raises:
            BundleError: as for `read`.

        """
        listed = {file.path for file in self.manifest.files}
        if _CHAT_TEMPLATE in listed:
            try:
                return self.read(_CHAT_TEMPLATE).decode()
            except UnicodeDecodeError as error:
                raise damaged(self.root / _CHAT_TEMPLATE, found=str(error), expected="a template") from None
        written = self.read_json(_TOKENIZER_CONFIG) if _TOKENIZER_CONFIG in listed else None
        template = written.get("chat_template") if isinstance(written, dict) else None
        return template if isinstance(template, str) else None

    @cached_property
    def model(self) -> ModelSource:
        """What an engine opens."""
        return ModelSource.of(self.manifest.base, self.root, self.entry, self.manifest.files)

    @property
    def name(self) -> str:
        """The folder's name, or that of the store."""
        return (self.lease.store if self.lease else self.root.resolve()).name

    @property
    def superseded(self) -> str | None:
        """The release that the store has as its current one by now; None: still this, or there is no store.

        Raises:
            StoreError: the store is damaged.

        """
        return self.lease.superseded if self.lease else None

    @property
    def overdue(self) -> str | None:
        """Why a newer version should have arrived by now; None: nothing says so."""
        release = self.manifest.release
        if release is None or release.expires is None or datetime.now(UTC).date() <= release.expires:
            return None
        return f"{release} was to be replaced by {release.expires}: updates are not arriving"

    @property
    def hashes(self) -> dict[str, str]:
        """Path → SHA-256 of all files, the manifest's own two included: what a signature covers."""
        manifest = self.manifest
        own = {MANIFEST: manifest.to_bytes(), SEAL: manifest.seal()}
        listed = {file.path: file.sha256 for file in manifest.files}
        return listed | {path: hashlib.sha256(data).hexdigest() for path, data in own.items()}

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        manifest = self.manifest
        return sum(file.size for file in manifest.files) + len(manifest.to_bytes()) + len(manifest.seal())

    @cached_property
    def licences(self) -> Licences | None:
        """Under which licences its parts may be given on; None: it was exported before this was recorded.

        Raises:
            BundleError: the file says no such thing, or names a text that is not there.

        """
        found = self._report(LICENCES, Licences)
        listed = {file.path for file in self.manifest.files}
        for text in (text for part in (found.parts if found else ()) for text in part.texts):
            if text not in listed:
                raise damaged(self.root / LICENCES, found=f"no {text!r} among the files", expected="the licence's text")
        return found

    @cached_property
    def parity(self) -> ParityReport | None:
        """How far the model's graphs are from PEFT; None: it was exported before this was recorded.

        Raises:
            BundleError: the file is no such report.

        """
        return self._report(
            PARITY if self.chosen == PRIMARY else f"{VARIANTS_DIR}/{self.chosen}/{PARITY}", ParityReport
        )

    @cached_property
    def simulation(self) -> Verification | None:
        """What `verify` found of the model, by simulation; None: it was not run.

        Raises:
            BundleError: the file is no such report.

        """
        return self._report(f"{VARIANTS_DIR}/{self.chosen}/{SIMULATED}", Verification)

    def plan(self, stage: Stage) -> PromptPlan:
        """The prompt of a stage.

        Raises:
            BundleError: the file is no prompt, or names other tools than the manifest.

        """
        path = self.root / stage.prompt
        plan = validate(PromptPlan, self.read_json(stage.prompt), where=str(path), error=BundleError)
        for fault in prompt_faults(plan, stage, self.manifest):
            raise damaged(path, found=fault, expected="the prompt of the manifest's tools")
        return plan

    @cached_property
    def all_toolsets(self) -> AllToolsets:
        """All toolsets, as prompts show them that show all."""
        manifest = self.manifest
        return AllToolsets(tuple(entry.toolset for entry in manifest.toolsets), no_tool_entry(manifest.no_tool))

    def _report(self, path: str, form: type[_Report]) -> _Report | None:
        """What a file holds; None: there is none."""
        if all(file.path != path for file in self.manifest.files):
            return None
        return validate(form, self.read_json(path), where=str(self.root / path), error=BundleError)

    def toolset(self, name: str) -> ToolsetEntry:
        """The toolset of that name.

        Raises:
            BundleError: there is none.

        """
        known = {entry.toolset.name: entry for entry in self.manifest.toolsets}
        if name not in known:
            raise BundleError(
                f"toolset {name!r}",
                found="no toolset of this name in the bundle",
                expected=listing(known),
                fix=nearest(name, known),
            )
        return known[name]
