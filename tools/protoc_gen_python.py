"""A protoc plugin for the Python stubs, which come only inside grpcio-tools' own protoc.

Reads a `CodeGeneratorRequest` from stdin and writes the response to stdout: the files that a plain
run of that protoc makes, for the oldest protobuf that callers may have.
"""

import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc

FileProto = descriptor_pb2.FileDescriptorProto
MessageProto = descriptor_pb2.DescriptorProto
FieldProto = descriptor_pb2.FieldDescriptorProto

#: The oldest protobuf that accepts the stubs. Its own protoc (grpcio-tools 1.80.0) makes the same
#: code of these protos as that of 7.35.1 does, except for this number.
OLDEST = (6, 31, 1)
_COMMENT = re.compile(r"^(# Protobuf Python Version: ).*$", re.MULTILINE)
_CHECK = re.compile(r"(_runtime_version\.Domain\.PUBLIC,\n)(?: +\d+,\n){3}")


def main() -> None:
    """Answer one request."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    for file in request.proto_file:
        forget_derived_names(fields(file.message_type))
    wanted = set(request.file_to_generate)
    served = [file.name for file in request.proto_file if file.service and file.name in wanted]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        descriptors = out / "descriptors.binpb"
        files = descriptor_pb2.FileDescriptorSet(file=request.proto_file)
        descriptors.write_bytes(files.SerializeToString())
        source = f"--descriptor_set_in={descriptors}"
        failed = protoc.main(["", source, f"--python_out={out}", *sorted(wanted)])
        # A file without services has no gRPC stubs worth keeping.
        if served and not failed:
            failed = protoc.main(["", source, f"--grpc_python_out={out}", *served])
        if failed:
            response.error = "protoc failed"
        for path in sorted(out.rglob("*.py")):
            name = path.relative_to(out).as_posix()
            response.file.add(name=name, content=for_oldest(path.read_text()))
    sys.stdout.buffer.write(response.SerializeToString())


def for_oldest(stub: str) -> str:
    """Return a generated file in the form that the oldest protobuf accepts."""
    stub = _COMMENT.sub(rf"\g<1>{'.'.join(map(str, OLDEST))}", stub)
    return _CHECK.sub(r"\1" + "".join(f"    {part},\n" for part in OLDEST), stub)


def fields(messages: Iterable[MessageProto]) -> Iterable[FieldProto]:
    """Yield every field of some messages and of those inside them."""
    for message in messages:
        yield from message.field
        yield from fields(message.nested_type)


def forget_derived_names(every: Iterable[FieldProto]) -> None:
    """Remove the JSON names that follow from the fields' own.

    protoc passes all of them to plugins. Its own generators know only those that a proto spells
    out, and protobuf refuses a second descriptor of one file that differs in this alone.
    """
    for field in every:
        first, *rest = field.name.split("_")
        if field.json_name == first + "".join(word[:1].upper() + word[1:] for word in rest):
            field.ClearField("json_name")


if __name__ == "__main__":
    main()
