"""The names of exported spans, attributes, metrics and their labels.

Names of the semantic conventions are copied from the tags below, because they still change and
the SDK's constants change with them:

* RPC and general: open-telemetry/semantic-conventions v1.45.0, stable.
* Generative AI: open-telemetry/semantic-conventions-genai v0.1.0, development. Its page on
  clients that invoke an agent was not available: `invoke_agent` and `execute_tool`, spans and
  durations, are those of v1.41.1 of the former and of `model/gen-ai/metrics.yaml` of the
  latter at 004902b8cb70aa5ae6ca4ae07132b7daabcd3e10.
"""

SCHEMA = "https://opentelemetry.io/schemas/1.45.0"
SCOPE = "samovard"

# General.
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
USER_AGENT_ORIGINAL = "user_agent.original"
NETWORK_PEER_ADDRESS = "network.peer.address"
PROCESS_PID = "process.pid"
PROCESS_EXECUTABLE_NAME = "process.executable.name"

# RPC.
RPC_SYSTEM_NAME = "rpc.system.name"
GRPC = "grpc"
RPC_METHOD = "rpc.method"
RPC_METHOD_ORIGINAL = "rpc.method_original"
RPC_STATUS_CODE = "rpc.status_code"
#: Codes that set a server span's status to error; all others leave it unset.
SERVER_ERRORS = frozenset(
    {
        "UNKNOWN",
        "DEADLINE_EXCEEDED",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
    }
)

# Generative AI.
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_AGENT_VERSION = "gen_ai.agent.version"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
#: All input tokens, including those read from and written to the cache.
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_TOKEN_MODALITY = "gen_ai.token.modality"
CHAT = "chat"
INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
ANTHROPIC = "anthropic"

# Ours: spans.
WAIT = "samovar.wait"
PROCESS_START = "samovar.process.start"

# Ours: attributes.
TENANT_ID = "samovar.tenant.id"
SESSION_ID = "samovar.session.id"
SESSION_LABEL = "samovar.session.label."  # and its key
TURN_ID = "samovar.turn.id"
START_MODE = "samovar.start_mode"
ERROR_REASON = "samovar.error.reason"
ERROR_CAUSE = "samovar.error.cause"
PROMPT_WRITTEN = "samovar.prompt_written"
RPC_ATTEMPT = "samovar.rpc_attempt"
EVENTS = "samovar.events"
RESPONSES = "samovar.responses"
BYTES = "samovar.bytes"
WRITE_BLOCKED = "samovar.write_blocked"
PART = "samovar.part."
WAIT_REASON = "samovar.wait.reason"
WAIT_RESULT = "samovar.wait.result"
QUEUE_DEPTH = "samovar.queue.depth"
START_REASON = "samovar.start.reason"
START_WAITED = "samovar.start.waited"
PROFILE = "samovar.profile"
RESUMED = "samovar.resumed"
ISOLATION = "samovar.isolation"  # also the name of a metric
PROCESS_ID = "samovar.process.id"
OUTCOME = "samovar.outcome"
FAILURE_CAUSE = "samovar.failure.cause"
FAILURE_TEXT = "samovar.failure.text"
STEPS = "samovar.steps"
COST_USD = "samovar.cost_usd"
USAGE_ESTIMATED = "samovar.usage_estimated"

# Metrics.
CALL_DURATION = "rpc.server.call.duration"
TURN_DURATION = "samovar.turn.duration"
TIME_TO_FIRST_TEXT = "samovar.turn.time_to_first_text"
STAGE_DURATION = "samovar.turn.stage.duration"
PART_DURATION = "samovar.turn.part.duration"
TURN_RUNNING = "samovar.turn.running"
TURN_WAITING = "samovar.turn.waiting"
MAX_WAIT = "samovar.turn.max_wait"
TURN_FINISHED = "samovar.turn.finished"
TURN_REFUSED = "samovar.turn.refused"
TURN_COST = "samovar.turn.cost"
EVENTS_COUNT = "samovar.events"
RESPONSES_COUNT = "samovar.responses"
RESPONSE_BYTES = "samovar.response.bytes"
PROCESS_COUNT = "samovar.process.count"
PROCESS_MEMORY = "samovar.process.memory"
SESSION_COUNT = "samovar.session.count"
REMOVAL_PENDING = "samovar.removal.pending"
CERTIFICATE_EXPIRY = "samovar.certificate.expiry"
TRANSITIONS = "samovar.process.transitions"
START_DURATION = "samovar.process.start.duration"
FRAMES_DROPPED = "samovar.frames.dropped"
STORE_DURATION = "samovar.store.duration"
BROKER_REQUESTS = "samovar.broker.requests"
BROKER_TOKENS = "samovar.broker.tokens"
BROKER_FIRST_BYTE = "samovar.broker.time_to_first_byte"
LOOP_LAG = "samovar.loop.lag"
INCIDENTS = "samovar.incidents"
AUDIT_DOWN = "samovar.audit.down"
DROPPED = "samovar.telemetry.dropped"
LOG_DROPPED = "samovar.log.dropped"
INVOKE_AGENT_DURATION = "gen_ai.invoke_agent.duration"
EXECUTE_TOOL_DURATION = "gen_ai.execute_tool.duration"
#: Counters of all tokens that turns used; input includes the cache.
TOKENS_USED = {
    "all_input": "gen_ai.client.inference.usage.input_tokens",
    "output": "gen_ai.client.inference.usage.output_tokens",
    "cache_read": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.client.inference.usage.cache_write.input_tokens",
}
#: Histograms of the tokens of one request to the model.
TOKENS_OF_REQUEST = {
    "all_input": "gen_ai.client.inference.operation.input_tokens",
    "output": "gen_ai.client.inference.operation.output_tokens",
}

# Old names, exported beside the new ones for one release if `telemetry.old_names` is set.
OLD_STATUS_CODE = "rpc.response.status_code"
OLD_USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
OLD_TOKEN_USAGE = "gen_ai.client.token.usage"
OLD_TOKEN_TYPE = "gen_ai.token.type"
