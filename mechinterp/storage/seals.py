"""A file that holds the hash of itself: `seal` and `is_sealed`, for JSON and safetensors.

The seal is the SHA-256 of the whole file, with 64 zeros where the seal stands. It is found by its
key, so it may stand at any depth: where formats of other programs have room for it.

>>> from mechinterp.storage.seals import NOT_SEALED, is_sealed, seal
>>> content = seal(f'{{"edges": 3, "seal": "{NOT_SEALED}"}}'.encode())
>>> is_sealed(content, "file"), is_sealed(b'{"edges": 3}', "file")
(True, False)
>>> is_sealed(content.replace(b"3", b"4", 1), "file")
Traceback (most recent call last):
    ...
ValueError: file is damaged, or was changed: its content is not that of its seal. Write it again.
"""

import json
import logging
import re
from collections.abc import Mapping

import safetensors.torch
import torch

from mechinterp.core.hashes import hash_of
from mechinterp.storage.jsonl import JsonObject

log = logging.getLogger(__name__)

NOT_SEALED = "0" * 64
"""What stands in the place of a seal before there is one."""

_SEAL = re.compile(rb'"seal": ?"([0-9a-f]{64})"')


def seal(content: bytes) -> bytes:
    """The content with its seal, in the one place where `"seal"` has 64 zeros.

    Raises:
        ValueError: if the content has a seal already, such as in the attributes of a result.
    """
    found = _SEAL.findall(content)
    if found != [NOT_SEALED.encode()]:
        raise ValueError(f'the content has {len(found)} keys "seal", where one is ours: rename it.')
    return _with_seal(content, hash_of(content))


def is_sealed(content: bytes, where: object) -> bool:
    """Whether a content has a seal.

    Raises:
        ValueError: if it is not the seal of this content; `where` names the file.
    """
    found = _SEAL.findall(content)
    if not found:
        return False
    if len(found) > 1 or hash_of(_with_seal(content, NOT_SEALED)).encode() != found[0]:
        raise ValueError(
            f"{where} is damaged, or was changed: its content is not that of its seal. Write it "
            f"again."
        )
    return True


def check_seal(content: bytes, where: object, *, is_new: bool) -> None:
    """Check that a file of ours has its seal; one from before there were seals has none.

    Raises:
        ValueError: if it is damaged; `where` names the file.
    """
    if is_sealed(content, where):
        return
    if is_new:
        raise ValueError(f"{where} is damaged: it has no seal. Write it again.")
    log.warning(
        "%s has no seal, as mechinterp 0.2 wrote it: whether a number in it was damaged cannot be "
        "told. Write it again.",
        where,
    )


def sealed_json(content: Mapping[str, object]) -> bytes:
    """An object as JSON, one key a line, with its seal last.

    Raises:
        ValueError: if JSON has no such values.
    """
    with_seal = {**content, "seal": NOT_SEALED}
    return seal(json.dumps(with_seal, indent=1, ensure_ascii=False).encode())


def sealed_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors as safetensors with this metadata and a seal; equal input gives equal bytes."""
    return seal(tensors_content(tensors, {**metadata, "seal": NOT_SEALED}))


def tensors_content(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors as a safetensors file; the library writes several metadata in a random order."""
    plain = safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()})
    size = int.from_bytes(plain[:8], "little")
    listed = json.loads(plain[8 : 8 + size])
    header = json.dumps({"__metadata__": dict(metadata), **listed}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([len(header).to_bytes(8, "little"), header, memoryview(plain)[8 + size :]])


def tensors_header(content: bytes) -> JsonObject:
    """The header of a safetensors file: the shapes and dtypes of its tensors, and its metadata.

    Raises:
        ValueError: if it has none.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError("the header is no JSON object with metadata.")
    return header


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file; empty if it has none.

    Raises:
        ValueError: if it has no header.
    """
    return {str(k): str(v) for k, v in tensors_header(content).get("__metadata__", {}).items()}


def _with_seal(content: bytes, digits: str) -> bytes:
    return _SEAL.sub(lambda found: found[0].replace(found[1], digits.encode()), content)
