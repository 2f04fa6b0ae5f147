package samovar

// Kind says what a failed call is about, and with that what to do next. It is the reason of the
// contract in lower case, or one of the kinds that the client makes itself. A Kind is an error, so
// that errors.Is(err, SessionBusy) is true for an *Error of that kind.
type Kind string

// Error returns the kind's own word.
func (k Kind) Error() string { return string(k) }

// Kinds of failures that the service reports: the values of ErrorReason.
const (
	// CredentialInvalid: get a new credential.
	CredentialInvalid Kind = "credential_invalid"
	// ScopeMissing: ask the operator for the scope Metadata["scope"].
	ScopeMissing Kind = "scope_missing"
	// TenantDisabled: ask the operator.
	TenantDisabled Kind = "tenant_disabled"
	// RequestInvalid: fix the fields that Violations names.
	RequestInvalid Kind = "request_invalid"
	// SessionNotFound: send with the session's name, and Create not false, to make it.
	SessionNotFound Kind = "session_not_found"
	// TurnNotFound: the turn never began. Send it.
	TurnNotFound Kind = "turn_not_found"
	// PermissionNotFound: the request is over. Drop the answer.
	PermissionNotFound Kind = "permission_not_found"
	// IDTaken: choose another id; Metadata["differs"] names the fields that differ.
	IDTaken Kind = "id_taken"
	// SessionBusy: wait for the turn Metadata["turnId"], attach to it, or interrupt it.
	SessionBusy Kind = "session_busy"
	// Misconfigured: tell the operator.
	Misconfigured Kind = "misconfigured"
	// EventsExpired: attach after Metadata["oldestSequence"] minus 1, if it is there.
	EventsExpired Kind = "events_expired"
	// QueueFull: repeat the call after RetryDelay.
	QueueFull Kind = "queue_full"
	// QuotaExceeded: free some of the quota, ask for more, or wait RetryDelay if it is set.
	QuotaExceeded Kind = "quota_exceeded"
	// NoProcess: repeat the call after RetryDelay.
	NoProcess Kind = "no_process"
	// SessionElsewhere: repeat the call after RetryDelay; it may reach the right replica.
	SessionElsewhere Kind = "session_elsewhere"
	// Draining: repeat the call after RetryDelay; another replica answers.
	Draining Kind = "draining"
	// TurnWithdrawn: a caller asked for it. Do nothing.
	TurnWithdrawn Kind = "turn_withdrawn"
	// TurnLost: the turn began and its end is unknown. Decide whether to send a new one.
	TurnLost Kind = "turn_lost"
	// ReaderTooSlow: read faster; the stream could not be joined again in time.
	ReaderTooSlow Kind = "reader_too_slow"
	// Internal: report Metadata["traceId"].
	Internal Kind = "internal"
	// TranscriptLost: close the session; the next turn begins a new conversation.
	TranscriptLost Kind = "transcript_lost"
)

// Kinds of failures that the client makes.
const (
	// UnrecognizedReason is a reason of a later service. Go by Reason, Code and RetryDelay.
	UnrecognizedReason Kind = "unrecognized"
	// CallBroken is a status that the service did not make: the call broke on its way, and what
	// happened is unknown. Send with the same turn id.
	CallBroken Kind = "call_broken"
	// DeadlineExceeded means that the deadline of the call or of its context passed.
	DeadlineExceeded Kind = "deadline_exceeded"
	// ClientClosed means that the client was closed before or during the call.
	ClientClosed Kind = "client_closed"
	// TurnFailed means that the agent reported a failure; Failure says which.
	TurnFailed Kind = "turn_failed"
	// InvalidArgument is a value that the client refuses without asking the service.
	InvalidArgument Kind = "invalid_argument"
)

// known has the kinds that the service reports, each by its reason.
var known = byReason(
	CredentialInvalid, ScopeMissing, TenantDisabled, RequestInvalid, SessionNotFound,
	TurnNotFound, PermissionNotFound, IDTaken, SessionBusy, Misconfigured, EventsExpired,
	QueueFull, QuotaExceeded, NoProcess, SessionElsewhere, Draining, TurnWithdrawn, TurnLost,
	ReaderTooSlow, Internal, TranscriptLost,
)
