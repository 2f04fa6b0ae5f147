package samovar

import "time"

// Event is something that happened in a turn: a *TurnStarted, *AgentInfo, *TextDelta,
// *ThinkingDelta, *BlocksAbandoned, *ToolUse, *ToolResult, *PermissionRequested,
// *PermissionResolved, *UsageUpdated, *Notice, *TurnFinished or *Unrecognized. Use a type switch,
// and ignore a type that you do not know.
type Event interface {
	// Common returns the fields of every event.
	Common() *Head
}

// Head has the fields of every event.
type Head struct {
	// Sequence is the number of the event in its turn, from 1.
	Sequence int64
	// Time is when the service read the event from the process.
	Time time.Time
	// ParentToolUseID names the tool call whose sub-agent the event came from; empty for the main
	// agent.
	ParentToolUseID string
	// RawJSON is the agent's own line, if it was asked for and is allowed.
	RawJSON []byte
}

// Common returns the fields of every event.
func (h *Head) Common() *Head { return h }

// Usage has tokens, and the agent's own estimate of their cost.
type Usage struct {
	// InputTokens are without those of the cache.
	InputTokens int64
	// OutputTokens are those of the answer.
	OutputTokens int64
	// CacheReadInputTokens were read from the cache.
	CacheReadInputTokens int64
	// CacheCreationInputTokens were written to the cache.
	CacheCreationInputTokens int64
	// CostUSD is in US dollars.
	CostUSD float64
}

// Timings are the times at which a turn reached each stage; zero if it did not.
type Timings struct {
	// ReceiveTime is when the request arrived.
	ReceiveTime time.Time
	// AdmitTime is when the turn was admitted.
	AdmitTime time.Time
	// ProcessReadyTime is when the turn held a live process.
	ProcessReadyTime time.Time
	// PromptWriteTime is when the message was written to the process.
	PromptWriteTime time.Time
	// FirstEventTime is when the process answered with anything.
	FirstEventTime time.Time
	// FirstTextTime is when the first piece of text was read.
	FirstTextTime time.Time
	// FinishTime is when the process reported the result.
	FinishTime time.Time
	// PermissionWait is how long a permission request was open, nil if none was.
	PermissionWait *time.Duration
}

// TurnStarted is the first event: the message was written to a process.
type TurnStarted struct {
	Head
	// SessionID is the session's name.
	SessionID string
	// TurnID is the turn's id.
	TurnID string
	// StartMode says how the turn got its process.
	StartMode StartMode
	// ProcessID is a unique and opaque id of the process.
	ProcessID string
	// PID is the id of the process on the service's machine.
	PID int64
	// ProcessTurn is the number of the turn within the process, from 1.
	ProcessTurn int64
}

// AgentInfo is the agent's description of itself.
type AgentInfo struct {
	Head
	// Model is the model in use.
	Model string
	// AgentVersion is the version of the agent program.
	AgentVersion string
	// Tools are the names of the available tools.
	Tools []string
}

// TextDelta is a piece of a text block. The pieces with the same MessageID and BlockIndex make the
// block, unless BlocksAbandoned revokes it.
type TextDelta struct {
	Head
	// MessageID is the agent's message.
	MessageID string
	// BlockIndex is the block within the message.
	BlockIndex int32
	// Text is the piece.
	Text string
}

// ThinkingDelta is a piece of a thinking block, assembled as those of TextDelta.
type ThinkingDelta struct {
	Head
	// MessageID is the agent's message.
	MessageID string
	// BlockIndex is the block within the message.
	BlockIndex int32
	// Text is the piece.
	Text string
}

// BlocksAbandoned revokes blocks of a message: forget their deltas.
type BlocksAbandoned struct {
	Head
	// MessageID is the agent's message.
	MessageID string
	// FromBlockIndex is the first void block; later ones are void, too.
	FromBlockIndex int32
}

// ToolUse is a tool call.
type ToolUse struct {
	Head
	// ToolUseID is the id of the call in later events.
	ToolUseID string
	// ToolName is the tool.
	ToolName string
	// InputJSON is a JSON object, unless bytes were cut off.
	InputJSON string
	// InputTruncatedBytes were cut off the end of InputJSON.
	InputTruncatedBytes int64
}

// ToolResult is the result of a tool call.
type ToolResult struct {
	Head
	// ToolUseID is the call.
	ToolUseID string
	// Text has the text parts of the result.
	Text string
	// TextTruncatedBytes were cut off the end of Text.
	TextTruncatedBytes int64
	// IsError is true if the tool failed or was not allowed to run.
	IsError bool
}

// PermissionRequested is a tool call that waits for Allow or Deny.
type PermissionRequested struct {
	Head
	// PermissionID names the request.
	PermissionID string
	// ToolUseID is the call.
	ToolUseID string
	// ToolName is the tool.
	ToolName string
	// InputJSON is a JSON object, unless bytes were cut off.
	InputJSON string
	// InputTruncatedBytes were cut off the end of InputJSON.
	InputTruncatedBytes int64
	// Title is a sentence for a user. May be empty.
	Title string
	// Reason says why permission is needed. May be empty.
	Reason string
	// ExpireTime is when the request is denied if it is not answered.
	ExpireTime time.Time
}

// PermissionResolved is the end of a permission request.
type PermissionResolved struct {
	Head
	// PermissionID names the request.
	PermissionID string
	// Resolution says how it ended.
	Resolution Resolution
}

// UsageUpdated is what the turn has used so far.
type UsageUpdated struct {
	Head
	Usage
}

// Notice is something worth showing.
type Notice struct {
	Head
	// Code is a stable name in kebab-case, such as rate-limited. Values may be added.
	Code string
	// Message is a text for users.
	Message string
}

// TurnFinished is the last event of a turn whose end is known.
type TurnFinished struct {
	Head
	// Outcome says how the turn ended.
	Outcome Outcome
	// Result is the final answer; Ask returns it whole even if it was cut.
	Result string
	// ResultTruncatedBytes were cut off the end of Result; the deltas contain them.
	ResultTruncatedBytes int64
	// StopReason is the agent's own word for why it stopped.
	StopReason string
	// Errors are sentences for users, empty unless the turn failed.
	Errors []string
	// UpstreamStatus is the HTTP status of the failed call of the model's API, 0 if none.
	UpstreamStatus int
	// UpstreamRetryDelay is how long to wait before the next turn, nil if unknown.
	UpstreamRetryDelay *time.Duration
	// Usage is what the turn used.
	Usage Usage
	// UsageByModel is the same, by model.
	UsageByModel map[string]Usage
	// AgentSteps are the steps of the main agent.
	AgentSteps int32
	// Timings say where the time went.
	Timings Timings
	// FailureCause says why the turn failed.
	FailureCause FailureCause
}

// Unrecognized is a line of the agent that the service has no event for.
type Unrecognized struct {
	Head
	// Type is the line's type.
	Type string
	// Subtype is the line's subtype. May be empty.
	Subtype string
}
