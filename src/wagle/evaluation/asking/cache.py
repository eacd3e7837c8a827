"""Answers on disk: a second metric, or a resumed evaluation, asks nothing twice.

The file is our own log rather than SQLite. SQLite is fast enough: an evaluation of the demo model
takes 1.01 times as long with a write-ahead log, 1.02 times with a rollback journal (1.01 and 1.08
for a tiny model; ``bench/answer_cache.py``). But a truncated database cannot be read at all, and as
it has no checksums, a damaged one may answer wrongly, whereas this log drops the damaged record and
what follows, and keeps everything before. Besides, a write-ahead log does not work on network file
systems, and a rollback journal waits for the disk after every batch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wagle.evaluation.asking.requests import (
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    LikelihoodAnswer,
    NormAnswer,
    Reply,
    Request,
    Sample,
    StatesAnswer,
    TextAnswer,
)
from wagle.system.errors import WagleError
from wagle.system.files.secrets import private_folder

_MAGIC = b"wagle-answers/1\n"
_HEAD = struct.Struct("<I32s")  # bytes of the answer, key
_CRC = struct.Struct("<I")  # of head and answer
_LIKELIHOOD, _TEXT, _NORM = b"L", b"T", b"N"


class AnswerCache:
    """The answers of one model, at one precision, with one set of stop ids, in a private folder.

    Several models, dtypes, precisions and stop ids share a folder: each has its own file there,
    mode 0600 in a folder of mode 0700. It holds no text and no question, but it does hold what a
    model wrote (as token ids), so it is as private as the records. Hidden states are not kept.

    A killed process loses at most what was put since the last ``flush`` (the engine flushes after
    every batch); a half-written record is dropped when the file is next opened or flushed. A power
    failure can lose what had not reached the disk yet, but nothing before that. Several processes
    may use a file at once: each adds whole records under a lock, and sees the others' at its own
    next flush.

    Args:
        folder: created if it is missing.
        fingerprint: the model's, which is the same in a wider dtype.
        dtype: the dtype of the model's weights.
        precision: the precision of matrix products.
        stop_ids: the ids that end a written answer, in any order.

    Raises:
        WagleError: the file there has another format, or the folder is not writable.
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: str,
        dtype: str,
        precision: str,
        stop_ids: Sequence[int],
    ) -> None:
        self._made_of = (folder, fingerprint, dtype, precision, tuple(stop_ids))
        stops = ",".join(map(str, sorted(set(stop_ids))))
        asked = "\0".join((fingerprint, dtype, precision, stops))
        self._asked = hashlib.sha256(asked.encode()).digest()
        self.path = private_folder(Path(folder)) / f"{self._asked.hex()[:16]}.answers"
        self._known: dict[bytes, bytes] = {}
        self._new: dict[bytes, bytes] = {}
        self._end = 0  # end of the last whole record that was read or written
        if self.path.exists():
            with self._opened(os.O_RDONLY) as handle:
                self._read(handle)

    def __len__(self) -> int:
        return len(self._known)

    def __reduce__(self) -> tuple[Any, ...]:
        return AnswerCache, self._made_of

    @property
    def model(self) -> str:
        """The fingerprint of the model whose answers these are."""
        return str(self._made_of[1])

    def get(self, request: Request) -> Reply | None:
        """The answer, or None if it is not known (or is a likelihood that lacks the moments)."""
        if isinstance(request, HiddenStates):
            return None
        found = self._known.get(self._key(request))
        if found is None:
            return None
        if not isinstance(request, Likelihood):
            return _decoded(found)
        reply = _decoded(found)
        assert isinstance(reply, LikelihoodAnswer)
        if not request.moments:
            return LikelihoodAnswer(reply.token_nll, reply.hit)
        return reply if reply.moments is not None else None

    def put(self, request: Request, reply: Reply) -> None:
        """Store an answer; it is on disk after the next ``flush``."""
        if isinstance(request, HiddenStates):
            return
        key, content = self._key(request), _encoded(reply)
        known = self._known.get(key)
        if known is None or len(content) > len(known):  # the longer one has the moments too
            self._known[key] = self._new[key] = content

    def flush(self) -> None:
        """Write what was put since the last flush, and read what other processes wrote."""
        if not self._new:
            return
        with self._opened(os.O_RDWR | os.O_CREAT) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # released on closing
            os.fchmod(handle, 0o600)
            self._read(handle)
            os.ftruncate(handle, self._end)  # what a killed process left half written
            whole = b"".join(_record(key, content) for key, content in self._new.items())
            if self._end == 0:
                whole = _MAGIC + whole
            left = memoryview(whole)
            os.lseek(handle, self._end, os.SEEK_SET)
            while left:
                left = left[os.write(handle, left) :]
            self._end += len(whole)
            self._known.update(self._new)
            self._new = {}

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        try:
            handle = os.open(self.path, flags, 0o600)
            try:
                yield handle
            finally:
                os.close(handle)
        except OSError as error:
            raise WagleError(
                f"cannot store answers in {self.path}: {os.strerror(error.errno or 0)}; free some "
                "space, choose another folder or evaluate without one"
            ) from error

    def _read(self, handle: int) -> None:
        """Read the whole records from where the last reading ended."""
        size = os.fstat(handle).st_size
        if size < self._end:  # somebody emptied or removed the file
            self._end = 0
        content = os.pread(handle, size - self._end, self._end)
        at = 0
        if self._end == 0:
            at = len(_MAGIC)
            if content[:at] != _MAGIC[: len(content)]:
                raise WagleError(
                    f"{self.path} is not an answer file that this wagle can read "
                    f"({_MAGIC.decode().strip()}); remove it"
                )
            if len(content) < at:  # killed while it began
                return
        while (stop := _stop(content, at)) is not None:
            length, key = _HEAD.unpack_from(content, at)
            start = at + _HEAD.size
            self._known[key] = content[start : start + length]
            at = stop
        self._end += at

    def _key(self, request: Likelihood | Greedy | Sample | GradientNorm) -> bytes:
        """SHA-256 of model, dtype, precision, stop ids and request, whatever the moments."""
        digest = hashlib.sha256(self._asked)
        digest.update(f"{type(request).__name__}\0".encode() + _counted(request.context))
        if isinstance(request, Likelihood | GradientNorm):
            digest.update(_counted(request.continuation))
            digest.update(b"" if all(request.scored) else bytes(request.scored))  # empty: all
        else:
            digest.update(f"{request.max_new_tokens}\0".encode())
        if isinstance(request, Sample):
            digest.update(f"{request.temperature!r}\0{request.top_p!r}\0{request.key}".encode())
        return digest.digest()


def _counted(ids: Sequence[int]) -> bytes:
    return f"{len(ids)}\0".encode() + np.asarray(ids, dtype="<i8").tobytes()


def _record(key: bytes, content: bytes) -> bytes:
    whole = _HEAD.pack(len(content), key) + content
    return whole + _CRC.pack(zlib.crc32(whole))


def _stop(content: bytes, at: int) -> int | None:
    """Where the record at ``at`` ends; None if there is none, or only part of one."""
    if at + _HEAD.size > len(content):
        return None
    end = at + _HEAD.size + _HEAD.unpack_from(content, at)[0]
    if end + _CRC.size > len(content):
        return None
    whole = zlib.crc32(memoryview(content)[at:end]) == _CRC.unpack_from(content, end)[0]
    return end + _CRC.size if whole else None


def _encoded(reply: Reply) -> bytes:
    """Kind, count, values: float64 NLLs, hits, moments; or whether it ended, ids; or two norms."""
    assert not isinstance(reply, StatesAnswer)
    if isinstance(reply, NormAnswer):
        return _NORM + struct.pack("<dd", reply.whole, reply.mean)
    if isinstance(reply, TextAnswer):
        return _TEXT + bytes([reply.finished]) + np.asarray(reply.ids, dtype="<i8").tobytes()
    parts = [reply.token_nll.double()]
    if reply.moments is not None:
        parts.append(reply.moments.double().reshape(-1))
    numbers = torch.cat(parts).cpu().numpy().astype("<f8").tobytes()
    hits = reply.hit.cpu().numpy().astype(np.uint8).tobytes()
    return _LIKELIHOOD + struct.pack("<I", len(hits)) + hits + numbers


def _decoded(content: bytes) -> Reply:
    kind, body = content[:1], content[1:]
    if kind == _NORM:
        return NormAnswer(*struct.unpack("<dd", body))
    if kind == _TEXT:
        ids = np.frombuffer(body, dtype="<i8", offset=1).tolist()
        return TextAnswer(tuple(ids), bool(body[0]))
    count = struct.unpack_from("<I", body)[0]
    hits = np.frombuffer(body, dtype=np.uint8, count=count, offset=4)
    numbers = torch.from_numpy(np.frombuffer(body, "<f8", offset=4 + count).astype(np.float64))
    return LikelihoodAnswer(
        numbers[:count],
        torch.from_numpy(hits.astype(bool)),
        numbers[count:].view(count, 2) if len(numbers) > count else None,
    )
