"""Message classes of our own .proto files, read when they are needed: no generated code that must fit a version.

What is read of proto3: packages, messages and enums, nested too, scalars, maps, one-ofs, and services. Options are
passed over, and so are imports, for files that need one another are read together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}
_TOKEN = re.compile(r'[\w.]+|"[^"]*"|[{}()<>\[\]=;,]')
_COMMENT = re.compile(r"//[^\n]*")


@dataclass(frozen=True)
class Method:
    """A method with the classes of its request and its answer; ``streams`` where there are many of both in a call."""

    name: str
    request: Any
    answer: Any
    streams: bool = False


@dataclass(frozen=True)
class Protos:
    """What .proto files declare: methods of services and message classes, by their full names."""

    services: Mapping[str, tuple[Method, ...]]
    messages: Mapping[str, Any]


def read_protos(texts: Iterable[str]) -> Protos:
    """Make the classes of .proto files; of each package one file, after those that it needs."""
    pool = descriptor_pool.DescriptorPool()  # its own: others may have made classes of the same names
    kinds: dict[str, int] = {}
    messages: dict[str, Any] = {}
    services = {}
    read: list[str] = []
    for text in texts:
        file = _File(text).read()
        file.dependency.extend(read)
        for path, each in _nested(file.package, file.message_type):
            kinds[path] = _Field.TYPE_MESSAGE
            kinds.update({f"{path}.{enum.name}": _Field.TYPE_ENUM for enum in each.enum_type})
        kinds.update({f"{file.package}.{enum.name}": _Field.TYPE_ENUM for enum in file.enum_type})
        _resolve(file, kinds)
        pool.Add(file)
        read.append(file.name)
        for path, each in _nested(file.package, file.message_type):
            if each.options.map_entry:
                continue
            messages[path] = message_factory.GetMessageClass(pool.FindMessageTypeByName(path))
        for service in file.service:
            services[f"{file.package}.{service.name}"] = tuple(
                Method(each.name, messages[each.input_type[1:]], messages[each.output_type[1:]], each.client_streaming)
                for each in service.method
            )
    return Protos(services, messages)


def _nested(scope: str, messages: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Each message and those inside it, with their full names."""
    for message in messages:
        path = f"{scope}.{message.name}"
        yield path, message
        yield from _nested(path, message.nested_type)


def _resolve(file: Any, kinds: Mapping[str, int]) -> None:
    """Have types be named from the root: a name is looked for in the innermost scope first."""

    def full(scope: str, name: str) -> str:
        while scope and f"{scope}.{name}" not in kinds:
            scope = scope.rpartition(".")[0]
        return f".{scope}.{name}" if scope else f".{name}"

    for path, message in _nested(file.package, file.message_type):
        for field in message.field:
            if field.type_name:
                field.type_name = full(path, field.type_name)
                field.type = kinds[field.type_name[1:]]
    for service in file.service:
        for method in service.method:
            method.input_type = full(file.package, method.input_type)
            method.output_type = full(file.package, method.output_type)


class _File:
    """Reads one file, word by word."""

    def __init__(self, text: str) -> None:
        self._words = _TOKEN.findall(_COMMENT.sub("", text))
        self._at = 0
        self._file = descriptor_pb2.FileDescriptorProto(syntax="proto3")

    def read(self) -> Any:
        """Return its descriptor, with types as they are named in the file."""
        file = self._file
        while self._at < len(self._words):
            word = self._next()
            if word == "package":
                file.package = self._next()
                file.name = f"{file.package}.proto"
                self._next()
            elif word == "message":
                self._message(file.message_type.add())
            elif word == "enum":
                self._enum(file.enum_type.add())
            elif word == "service":
                self._service(file.service.add())
            else:  # syntax, import, option
                self._pass_over()
        return file

    def _next(self) -> str:
        self._at += 1
        return str(self._words[self._at - 1])

    def _pass_over(self) -> None:
        while self._next() != ";":
            pass

    def _message(self, message: Any) -> None:
        message.name = self._next()
        self._next()
        while (word := self._next()) != "}":
            if word == "message":
                self._message(message.nested_type.add())
            elif word == "enum":
                self._enum(message.enum_type.add())
            elif word == "oneof":
                message.oneof_decl.add(name=self._next())
                self._next()
                while (inner := self._next()) != "}":
                    self._field(message, inner).oneof_index = len(message.oneof_decl) - 1
            elif word == "map":
                self._map(message)
            elif word != ";":
                self._field(message, word)

    def _field(self, message: Any, word: str) -> Any:
        label = _Field.LABEL_REPEATED if word == "repeated" else _Field.LABEL_OPTIONAL
        kind = self._next() if word == "repeated" else word
        name, _, number = self._next(), self._next(), self._next()
        self._pass_over()
        return _add(message, kind, name, number, label)

    def _map(self, message: Any) -> None:
        _, key, _, value, _, name, _, number = (self._next() for _ in range(8))
        self._pass_over()
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add(entry, key, "key", "1", _Field.LABEL_OPTIONAL)
        _add(entry, value, "value", "2", _Field.LABEL_OPTIONAL)
        _add(message, entry.name, name, number, _Field.LABEL_REPEATED)

    def _enum(self, enum: Any) -> None:
        enum.name = self._next()
        self._next()
        while (name := self._next()) != "}":
            self._next()
            enum.value.add(name=name, number=int(self._next()))
            self._pass_over()

    def _service(self, service: Any) -> None:
        service.name = self._next()
        self._next()
        while (word := self._next()) != "}":
            if word != "rpc":
                continue
            method = service.method.add(name=self._next())
            method.client_streaming, method.input_type = self._side()
            self._next()
            method.server_streaming, method.output_type = self._side()
            if self._next() == "{":
                self._next()

    def _side(self) -> tuple[bool, str]:
        """Whether there are many messages in the parentheses that come, and of which type."""
        self._next()
        word = self._next()
        streams = word == "stream"
        kind = self._next() if streams else word
        self._next()
        return streams, kind


def _add(message: Any, kind: str, name: str, number: str, label: int) -> Any:
    field = message.field.add(name=name, number=int(number), label=label)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind
    return field
