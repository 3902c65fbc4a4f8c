"""Message classes of our own .proto file, read when they are needed: no generated code that must fit a version.

The file is of a plain kind: proto3, one package, top-level messages of scalars, messages, maps and one-ofs, and unary
methods.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}
_TOKEN = re.compile(r'[\w.]+|"[^"]*"|[{}()<>;=,]')
_MAP = re.compile(r"map < string , (\w+) > (\w+) = (\d+)")
_PLAIN = re.compile(r"(repeated )?(\w+) (\w+) = (\d+)")
_METHOD = re.compile(r"rpc (\w+) \( (\w+) \) returns \( (\w+) \)")


@dataclass(frozen=True)
class Method:
    """A unary method with the classes of its request and its answer."""

    name: str
    request: Any
    answer: Any


@dataclass(frozen=True)
class Service:
    """A service of a .proto file: its full name, its methods, and all message classes by name."""

    name: str
    methods: tuple[Method, ...]
    messages: dict[str, Any]


def read_service(text: str) -> Service:
    """Make the classes of a .proto file with one service."""
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", syntax="proto3")
    methods: list[tuple[str, str, str]] = []
    service = ""
    for head, body in _blocks(re.sub(r"//[^\n]*", "", text)):
        kind, name = head[-2:]
        if kind == "service":
            service = name
            methods = [(m[1], m[2], m[3]) for each in body if (m := _METHOD.match(each))]
        else:
            _add_message(file.message_type.add(name=name), body)
    file.package = re.findall(r"^package (\w+);", text, re.MULTILINE)[0]
    # messages are named from the root
    for message in file.message_type:
        for field in [*message.field, *(each for nested in message.nested_type for each in nested.field)]:
            if field.type_name:
                field.type_name = f".{file.package}.{field.type_name}"
    pool = descriptor_pool.DescriptorPool()  # its own: others may have made classes of the same names
    pool.Add(file)
    names = [message.name for message in file.message_type]
    known = {
        each: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{each}")) for each in names
    }
    calls = tuple(Method(name, known[request], known[answer]) for name, request, answer in methods)
    return Service(f"{file.package}.{service}", calls, known)


def _blocks(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Each top-level block: its head, and its statements, of inner blocks too, whose heads stand as statements."""
    head: list[str] = []
    body: list[str] = []
    words: list[str] = []
    depth = 0
    for token in _TOKEN.findall(text):
        if token == "{":
            depth += 1
            if depth == 1:
                head, body = words, []
            else:
                body.append(" ".join(words))
            words = []
        elif token == "}":
            depth -= 1
            if depth == 0:
                yield head, body
            else:
                body.append("}")
        elif token == ";":
            if depth:
                body.append(" ".join(words))
            words = []
        else:
            words.append(token)


def _add_message(message: Any, body: list[str]) -> None:
    inside_one_of = False
    for statement in body:
        if statement.startswith("oneof "):
            message.oneof_decl.add(name=statement.split()[1])
            inside_one_of = True
        elif statement == "}":
            inside_one_of = False
        elif match := _MAP.match(statement):
            value, name, number = match.groups()
            entry = f"{name.title().replace('_', '')}Entry"
            nested = message.nested_type.add(name=entry)
            nested.options.map_entry = True
            _add_field(nested, "string", "key", 1)
            _add_field(nested, value, "value", 2)
            _add_field(message, f"{message.name}.{entry}", name, int(number), repeated=True)
        elif match := _PLAIN.match(statement):
            repeated, kind, name, number = match.groups()
            field = _add_field(message, kind, name, int(number), repeated=bool(repeated))
            if inside_one_of:
                field.oneof_index = len(message.oneof_decl) - 1


def _add_field(message: Any, kind: str, name: str, number: int, *, repeated: bool = False) -> Any:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        return message.field.add(name=name, number=number, label=label, type=_SCALARS[kind])
    return message.field.add(name=name, number=number, label=label, type=_Field.TYPE_MESSAGE, type_name=kind)
