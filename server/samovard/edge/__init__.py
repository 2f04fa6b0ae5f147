"""gRPC and protobuf; no other package imports either."""
