"""gRPC and protobuf; nothing else imports either."""
