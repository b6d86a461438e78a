"""Every cap in one place, each with its unit. Above a cap a named error is raised, never a truncation."""

from __future__ import annotations

from typing import Final

JSON_BYTES: Final = 16 * 1024 * 1024  # bytes of a tool list, a manifest, or one trajectory line
JSON_DEPTH: Final = 64  # nested arrays and objects
TOOLS: Final = 1_024  # tools of one toolset; the largest server that was seen has 604
TOOLSETS: Final = 64  # toolsets of one bundle
NAME_CHARS: Final = 128  # characters of a tool's or toolset's name (MCP's own cap)
SCHEMA_CHARS: Final = 256 * 1024  # characters of all texts in one tool's schema
SCHEMA_LITERAL_CHARS: Final = 16 * 1024  # characters of a name or value; the constraint takes 800 bytes for each
SCHEMA_DIGITS: Final = 400  # digits of a whole number in a schema
SCHEMA_MULTIPLE: Final = 10_000  # `multipleOf` in its digits: the constraint has a state for each remainder
SCHEMA_NODES: Final = 2_600  # JSON values in one tool's schema, without its descriptions; a real one has 2,523
SCHEMA_PROPERTIES: Final = 256  # properties of one object; 1,000 optional ones take 57 ms to compile, 4,000 1.5 s
SCHEMA_STEPS: Final = 128  # from a schema to the farthest one inside it, references followed
SCHEMAS_TOGETHER: Final = 512  # schemas that apply to one value; one about properties counts as four
SCHEMA_WAYS: Final = 1_024  # in which the alternatives for one value combine
PATTERN_CHARS: Final = 8_192  # characters of a regular expression, and of all different ones in one schema
PATTERN_PROPERTIES: Final = 24  # patterns of property names in one schema: each is compared with each
PATTERN_STATES: Final = 20_000  # of one pattern's automaton, 1 to 2 KB each
TEMPLATE_CHARS: Final = 256 * 1024  # characters of a chat template's source
RENDER_CHARS: Final = 4 * 1024 * 1024  # characters of one rendered prompt
RENDER_SECONDS: Final = 2.0  # seconds of CPU time to compile and render once (Windows: of the clock)
RENDER_BYTES: Final = 256 * 1024**2  # bytes of memory of the process that renders
MESSAGES: Final = 4_096  # messages of one conversation
PROFILE_BYTES: Final = 64 * 1024  # bytes of a hardware profile
RELEASE_VERSION: Final = 2**53 - 1  # of a release; beyond it other readers of JSON round
LICENCE_BYTES: Final = 1024 * 1024  # bytes of a licence's text, or of a model card
BUNDLE_FILES: Final = 10_000  # files of one bundle
PACK_MEMBERS: Final = 10_100  # files and folders of one pack: blobs, and what describes them
CONTEXT_TOKENS: Final = 16 * 1024**2  # tokens of a bundle's context
VOCABULARY: Final = 4 * 1024**2  # tokens of a vocabulary
LAYERS: Final = 1_024  # of a model
HEADS: Final = 1_024  # of a layer's KV cache
HEAD_DIM: Final = 4_096  # values of a head
RANK: Final = 65_536  # of an adapter
ARGUMENT_TOKENS: Final = 8_192  # tokens of one call's arguments; a model caught in a loop ends here
THREADS: Final = 1_024  # threads of a model's session, all started as it opens
SNAPSHOT_BYTES: Final = 512 * 1024**2  # bytes of KV state kept for the next call (a 0.5B model: 24 KB a token)
CACHE_BYTES: Final = 8 * 1000**3  # bytes of all that is kept in the cache folder; DUALTUNE_EDGE_CACHE_MB beats it
