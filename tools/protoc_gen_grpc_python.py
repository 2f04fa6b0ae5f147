"""A protoc plugin for gRPC's Python stubs, which come only inside grpcio-tools' own protoc.

Reads a `CodeGeneratorRequest` from stdin and writes the response to stdout.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def main() -> None:
    """Answers one request."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with_services = [file.name for file in request.proto_file if file.service]
    names = [name for name in request.file_to_generate if name in with_services]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        descriptors = out / "descriptors.binpb"
        files = descriptor_pb2.FileDescriptorSet(file=request.proto_file)
        descriptors.write_bytes(files.SerializeToString())
        arguments = ["", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}", *names]
        if protoc.main(arguments):
            response.error = "protoc failed"
        for path in sorted(out.rglob("*.py")):
            name = path.relative_to(out).as_posix()
            response.file.add(name=name, content=path.read_text())
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
