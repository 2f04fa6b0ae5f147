package samovar

import "strconv"

// StartMode says how a turn got its process. A number that is not known is kept.
type StartMode int32

// Values of StartMode.
const (
	StartModeUnspecified StartMode = iota // never sent
	StartModeWarm                         // the session's own process was alive
	StartModeSpare                        // a prepared process was waiting
	StartModeCold                         // a process was started for the new session
	StartModeResumed                      // a process was started with the session's transcript
)

// String returns the name in lower case.
func (m StartMode) String() string {
	return name(m, "unspecified", "warm", "spare", "cold", "resumed")
}

// Outcome says how a turn ended. A number that is not known is kept.
type Outcome int32

// Values of Outcome.
const (
	OutcomeUnspecified  Outcome = iota // never sent
	OutcomeCompleted                   // the agent finished on its own
	OutcomeInterrupted                 // the turn was stopped
	OutcomeLimitReached                // a limit of the turn or of the profile was reached
	OutcomeFailed                      // the agent reported a failure
)

// String returns the name in lower case.
func (o Outcome) String() string {
	return name(o, "unspecified", "completed", "interrupted", "limit_reached", "failed")
}

// FailureCause says why a turn failed. A number that is not known is kept: treat it as
// FailureCauseOther.
type FailureCause int32

// Values of FailureCause.
const (
	FailureCauseUnspecified     FailureCause = iota // the turn did not fail
	FailureCauseOther                               // none of the others
	FailureCauseAuthentication                      // the model's API refuses the credential
	FailureCausePermission                          // the credential may not use the model
	FailureCauseBilling                             // the account cannot be billed
	FailureCauseRateLimited                         // wait, then send a new turn
	FailureCauseOverloaded                          // the model's API has no capacity
	FailureCauseUpstream                            // the model's API failed
	FailureCauseNetwork                             // the model's API could not be reached
	FailureCauseInvalidRequest                      // the model's API rejected the content
	FailureCauseRequestTooLarge                     // a request or a file has too many bytes
	FailureCauseContextTooLong                      // the conversation has too many tokens
	FailureCauseModelNotFound                       // the model does not exist
	FailureCauseResultInvalid                       // the result lacks the form of the profile
)

// String returns the name in lower case.
func (c FailureCause) String() string {
	return name(c, "unspecified", "other", "authentication", "permission", "billing",
		"rate_limited", "overloaded", "upstream", "network", "invalid_request",
		"request_too_large", "context_too_long", "model_not_found", "result_invalid")
}

// Resolution says how a permission request ended. A number that is not known is kept.
type Resolution int32

// Values of Resolution.
const (
	ResolutionUnspecified Resolution = iota // never sent
	ResolutionAllowed                       // the caller allowed it
	ResolutionDenied                        // the caller denied it
	ResolutionExpired                       // no answer came in time
	ResolutionWithdrawn                     // the agent no longer asks
)

// String returns the name in lower case.
func (r Resolution) String() string {
	return name(r, "unspecified", "allowed", "denied", "expired", "withdrawn")
}

// State says where a session is in its life. A number that is not known is kept.
type State int32

// Values of State.
const (
	StateUnspecified   State = iota // never sent
	StateWarm                       // a process is alive and waits for a turn
	StateRunning                    // a turn is running or waits for a process
	StateInputRequired              // a turn waits for the answer to a permission request
	StateSuspended                  // no process is alive; the next turn starts one
	StateClosed                     // the session is closed
)

// String returns the name in lower case.
func (s State) String() string {
	return name(s, "unspecified", "warm", "running", "input_required", "suspended", "closed")
}

// Health is the health of a service, in the words of grpc.health.v1.
type Health int32

// Values of Health.
const (
	HealthUnknown        Health = iota // it is not known
	HealthServing                      // the service serves
	HealthNotServing                   // the service does not serve
	HealthUnknownService               // there is no such service
)

// String returns the name in lower case.
func (h Health) String() string {
	return name(h, "unknown", "serving", "not serving", "unknown service")
}

// name returns the name of a number, or unknown and the number.
func name[N ~int32](number N, names ...string) string {
	if number >= 0 && int(number) < len(names) {
		return names[number]
	}
	return "unknown_" + strconv.Itoa(int(number))
}
