#!/bin/sh
# Generates Python from the schema into the folder $1, under the package name that it has there.
set -eu
work=$(mktemp -d)
"$BIN/python" -m grpc_tools.protoc -Iproto --python_out="$work" \
  --plugin="protoc-gen-mypy=$BIN/protoc-gen-mypy" --mypy_out=quiet:"$work" proto/fedsec/v1/*.proto
sed -i 's/^from fedsec\.v1 import/from fedsec.wire.generated import/; s/fedsec\.v1\.\([a-z]*_pb2\)/fedsec.wire.generated.\1/g' "$work"/fedsec/v1/*
cp "$work"/fedsec/v1/* "$1"
rm -r "$work"
