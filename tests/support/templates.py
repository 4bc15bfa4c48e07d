"""Templates that are compiled once for all the applications that a test process makes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType

import pytest
from flask import Flask
from flask.templating import Environment
from jinja2.bccache import Bucket, BytecodeCache


class _Compiled(BytecodeCache):
    """By the template's name, file and source, which Jinja has in a bucket's key and checksum."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._code[bucket.key, bucket.checksum] = bucket.code


# Applications of one module are set up alike.
_OF: defaultdict[str, _Compiled] = defaultdict(_Compiled)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Compiling them is a third of the work of a test that walks through pages."""
    made = Flask.create_jinja_environment

    def make(app: Flask) -> Environment:
        environment = made(app)
        environment.bytecode_cache = _OF[app.import_name]
        return environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flask, "create_jinja_environment", make)
        yield
