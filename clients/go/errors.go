package samovar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// domain is that of the service's reasons, in ErrorInfo.
const domain = "samovar"

// Error is a failed call. Its Kind says what to do; errors.Is compares it:
//
//	if errors.Is(err, samovar.SessionBusy) { ... }
type Error struct {
	// Kind is what the failure is about.
	Kind Kind
	// Reason is the value of ErrorReason without its prefix; empty if the service did not make
	// the status.
	Reason string
	// Code is the status code of gRPC.
	Code codes.Code
	// Message is for people.
	Message string
	// PromptWritten is true if the agent was given the message, so that tools may have run.
	PromptWritten bool
	// RetryDelay is set only if the same call may be repeated after it.
	RetryDelay *time.Duration
	// Metadata has the service's details of the reason.
	Metadata map[string]string
	// Violations are the fields of the request that are wrong.
	Violations []Violation
	// Failure is set if the Kind is TurnFailed.
	Failure *Failure
}

// Violation is a field of a request and what is wrong with it.
type Violation struct {
	// Field is the path of the field; empty for the request as a whole.
	Field string
	// Description says what is wrong.
	Description string
}

// Failure is what the agent reported of a turn that failed.
type Failure struct {
	// Errors are sentences for people.
	Errors []string
	// UpstreamStatus is the HTTP status of the failed call of the model's API, 0 if none.
	UpstreamStatus int
	// UpstreamRetryDelay is after how long the model's API takes requests again, nil if unknown.
	UpstreamRetryDelay *time.Duration
	// FailureCause is why the turn failed.
	FailureCause FailureCause
}

// Error returns the kind and the message.
func (e *Error) Error() string { return fmt.Sprintf("samovar: %s: %s", e.Kind, e.Message) }

// Is reports whether target is this error's Kind. An error of the kind DeadlineExceeded is also
// context.DeadlineExceeded.
func (e *Error) Is(target error) bool {
	if kind, ok := target.(Kind); ok {
		return kind == e.Kind
	}
	return target == context.DeadlineExceeded && e.Kind == DeadlineExceeded
}

// GRPCStatus returns the code and the message as a status of gRPC, which status.Code and
// status.Convert find.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// byReason returns kinds by the reasons of the contract.
func byReason(kinds ...Kind) map[string]Kind {
	found := make(map[string]Kind, len(kinds))
	for _, kind := range kinds {
		found[strings.ToUpper(string(kind))] = kind
	}
	return found
}

// errorOf returns gRPC's error as one of this package.
func errorOf(err error) *Error {
	if ours := (*Error)(nil); errors.As(err, &ours) {
		return ours
	}
	said := status.Convert(err)
	if errors.Is(err, context.DeadlineExceeded) {
		said = status.New(codes.DeadlineExceeded, err.Error())
	}
	made := &Error{Kind: CallBroken, Code: said.Code(), Message: said.Message()}
	info, retry, bad := details(said)
	if info.GetDomain() != domain {
		if said.Code() == codes.DeadlineExceeded {
			made.Kind = DeadlineExceeded
		}
		return made
	}
	made.Kind, made.Reason = UnrecognizedReason, info.GetReason()
	if kind, ok := known[made.Reason]; ok {
		made.Kind = kind
	}
	made.Metadata = info.GetMetadata()
	made.PromptWritten = made.Metadata["promptWritten"] == "true"
	if retry != nil {
		delay := retry.GetRetryDelay().AsDuration()
		made.RetryDelay = &delay
	}
	for _, each := range bad.GetFieldViolations() {
		made.Violations = append(made.Violations,
			Violation{Field: each.GetField(), Description: each.GetDescription()})
	}
	return made
}

// details returns what a status says besides its code and message; each may be nil.
func details(said *status.Status) (
	info *errdetails.ErrorInfo, retry *errdetails.RetryInfo, bad *errdetails.BadRequest,
) {
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.RetryInfo:
			retry = detail
		case *errdetails.BadRequest:
			bad = detail
		}
	}
	return info, retry, bad
}

// closedError returns the error of a closed client.
func closedError() *Error {
	return &Error{Kind: ClientClosed, Code: codes.Canceled, Message: "the client is closed"}
}

// refusal returns the error of a value that the client does not send.
func refusal(format string, values ...any) *Error {
	return &Error{
		Kind: InvalidArgument, Code: codes.InvalidArgument, Message: fmt.Sprintf(format, values...),
	}
}

// violation returns the error of a field that the client does not send.
func violation(field, what string) *Error {
	return &Error{
		Kind:       RequestInvalid,
		Code:       codes.InvalidArgument,
		Message:    strings.TrimSpace(field + " " + what),
		Violations: []Violation{{Field: field, Description: what}},
	}
}
