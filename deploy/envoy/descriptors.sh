#!/bin/sh
# Writes what Envoy needs to know of the contract to speak JSON: descriptors.sh PYTHON FILE
#
# PYTHON has grpc_tools and googleapis-common-protos (`make test` sets up such a .venv). With
# google.rpc, so that a refusal's details are JSON, too.
set -eu
cd "$(dirname "$0")/../.."
site=$("$1" -c 'import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parents[1])')
"$1" -m grpc_tools.protoc --include_imports --descriptor_set_out="$2" -Iprotos -I"$site" \
  protos/samovar/v1/*.proto "$site/google/rpc/status.proto" "$site/google/rpc/error_details.proto"
