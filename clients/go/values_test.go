package samovar

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "samovar.invalid/samovar/samovarv1"
)

// Every reason of the contract is a kind of its own.
func TestEveryReasonIsAKind(t *testing.T) {
	if len(known) != len(pb.ErrorReason_name)-1 {
		t.Errorf("%d reasons are known of %d", len(known), len(pb.ErrorReason_name)-1)
	}
	for number, name := range pb.ErrorReason_name {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if kind := known[reason]; number != 0 && string(kind) != strings.ToLower(reason) {
			t.Errorf("%s is %q", reason, kind)
		}
	}
}

// Every value of the contract's enums has its name, and others have their number.
func TestEveryValueHasItsName(t *testing.T) {
	for _, enum := range []struct {
		names  map[int32]string
		prefix string
		shown  func(int32) string
	}{
		{pb.TurnStarted_StartMode_name, "START_MODE_",
			func(n int32) string { return StartMode(n).String() }},
		{pb.TurnFinished_Outcome_name, "OUTCOME_",
			func(n int32) string { return Outcome(n).String() }},
		{pb.TurnFinished_FailureCause_name, "FAILURE_CAUSE_",
			func(n int32) string { return FailureCause(n).String() }},
		{pb.PermissionResolved_Resolution_name, "RESOLUTION_",
			func(n int32) string { return Resolution(n).String() }},
		{pb.SessionInfo_State_name, "STATE_",
			func(n int32) string { return State(n).String() }},
	} {
		for number, name := range enum.names {
			want := strings.ToLower(strings.TrimPrefix(name, enum.prefix))
			if shown := enum.shown(number); shown != want {
				t.Errorf("%s is %q", name, shown)
			}
		}
		if shown := enum.shown(99); shown != "unknown_99" {
			t.Errorf("an unknown value is %q", shown)
		}
		if shown := enum.shown(-1); shown != "unknown_-1" {
			t.Errorf("an unknown value is %q", shown)
		}
	}
}

// Every kind of event is read; a kind of a later service is not.
func TestEveryKindOfEventIsRead(t *testing.T) {
	kinds := (&pb.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for index := range kinds.Len() {
		message := &pb.Event{Sequence: 7}
		message.ProtoReflect().Mutable(kinds.Get(index))
		event := read(message)
		if event == nil || event.Common().Sequence != 7 {
			t.Errorf("%s is read as %v", kinds.Get(index).Name(), event)
		}
	}
	if event := read(&pb.Event{}); event != nil {
		t.Errorf("no kind is read as %v", event)
	}
}

// A status is ours by the domain of its ErrorInfo only.
func TestStatusOfAnotherDomain(t *testing.T) {
	info := &errdetails.ErrorInfo{Domain: "elsewhere", Reason: "SESSION_BUSY"}
	made, err := status.New(codes.FailedPrecondition, "busy").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	if failed := errorOf(made.Err()); failed.Kind != CallBroken || failed.Reason != "" {
		t.Errorf("it is %v", failed)
	}
	late := refused(codes.FailedPrecondition, "TOO_TUESDAY", -1)
	if failed := errorOf(late); failed.Kind != UnrecognizedReason {
		t.Errorf("it is %v", failed)
	}
}

// What is not set is not sent, and what is set makes the session.
func TestRequests(t *testing.T) {
	request, err := (&SendOptions{}).request([]Block{Text("Hello")})
	if err != nil {
		t.Fatal(err)
	}
	want := &pb.SendRequest{
		TurnId:       request.GetTurnId(),
		Content:      []*pb.Content{{Kind: &pb.Content_Text{Text: "Hello"}}},
		EventOptions: &pb.EventOptions{Partial: true},
	}
	if !proto.Equal(request, want) {
		t.Errorf("the request is %v", request)
	}
	for _, given := range []struct {
		options SendOptions
		makes   bool
	}{
		{SendOptions{Session: "s"}, true},
		{SendOptions{Session: "s", Create: Bool(false)}, false},
		{SendOptions{Session: "s", Create: Bool(false), Model: "m"}, true},
		{SendOptions{Labels: map[string]string{"a": "b"}}, true},
		{SendOptions{Create: Bool(true)}, false},
	} {
		request, err := given.options.request(nil)
		if err != nil || (request.GetSpec() != nil) != given.makes {
			t.Errorf("%+v: %v, %v", given.options, request.GetSpec(), err)
		}
	}
}

// Values without a meaning are refused before anything is sent.
func TestRefusedValues(t *testing.T) {
	client, err := New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	for _, given := range []struct {
		options SendOptions
		block   Block
		kind    Kind
	}{
		{SendOptions{PermissionPolicy: "maybe"}, Text("x"), InvalidArgument},
		{SendOptions{Deadline: -1}, Text("x"), RequestInvalid},
		{SendOptions{TurnTimeout: -1}, Text("x"), RequestInvalid},
		{SendOptions{MaxAgentSteps: -1}, Text("x"), RequestInvalid},
		{SendOptions{}, Text("\xff"), InvalidArgument},
		{SendOptions{}, nil, InvalidArgument},
		{SendOptions{}, Text(strings.Repeat("x", maxRequest)), RequestInvalid},
	} {
		if _, err := client.Ask(t.Context(), given.options, given.block); !errors.Is(err, given.kind) {
			t.Errorf("the error is %v, not %s", err, given.kind)
		}
	}
	if _, err := client.Attach(t.Context(), "", "t", AttachOptions{AfterSequence: -1}); err == nil {
		t.Error("a negative sequence is taken")
	}
	if _, err := client.GetSession(t.Context(), "\xff"); !errors.Is(err, InvalidArgument) {
		t.Errorf("the error is %v", err)
	}
	err = client.Allow(t.Context(), "", "p", Allow{UpdatedInput: func() {}})
	if !errors.Is(err, InvalidArgument) {
		t.Errorf("the error is %v", err)
	}
}

// Bounds that only mean "more than enough" are those of the wire.
func TestLargeBounds(t *testing.T) {
	options := SendOptions{TurnTimeout: 1<<63 - 1, MaxAgentSteps: 1<<63 - 1}
	limits, err := options.limits()
	if err != nil || limits.GetMaxAgentSteps() != 1<<31-1 ||
		limits.GetTurnTimeout().AsDuration() != longest {
		t.Errorf("the limits are %v, %v", limits, err)
	}
}

// Turn ids are random UUIDs in lower case.
func TestTurnIDs(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if first, second := newID(), newID(); first == second || !form.MatchString(first) {
		t.Errorf("the ids are %s and %s", first, second)
	}
}

// An answer is the result, or the blocks of the main agent where the result was cut.
func TestAnswers(t *testing.T) {
	delta := func(message string, index int32, text, parent string) Event {
		return &TextDelta{
			Head: Head{ParentToolUseID: parent}, MessageID: message, BlockIndex: index, Text: text,
		}
	}
	events := []Event{
		&TurnStarted{SessionID: "s", TurnID: "t"},
		delta("m", 0, "kept ", ""), delta("m", 1, "void", ""), delta("m", 2, "void", ""),
		delta("n", 1, "other", "tool"),
		&BlocksAbandoned{MessageID: "m", FromBlockIndex: 1},
		delta("n", 0, "a", ""), delta("n", 0, "b", ""),
	}
	for _, given := range []struct {
		end  TurnFinished
		text string
	}{
		{TurnFinished{Outcome: OutcomeCompleted, Result: "whole"}, "whole"},
		{TurnFinished{Outcome: OutcomeInterrupted}, "kept ab"},
		{TurnFinished{Result: "ke", ResultTruncatedBytes: 5}, "kept ab"},
	} {
		made := assembly{blocks: map[blockID]*[]string{}}
		for _, event := range append(events, &given.end) {
			made.take(event)
		}
		answer, err := made.answer()
		if err != nil || answer.Text != given.text || answer.Session != "s" || answer.TurnID != "t" {
			t.Errorf("the answer is %+v, %v", answer, err)
		}
	}
}

// The agent's failure is an error with what it reported.
func TestAgentFails(t *testing.T) {
	delay := time.Second
	made := assembly{finished: &TurnFinished{
		Outcome: OutcomeFailed, Errors: []string{"a", "b"}, UpstreamStatus: 529,
		UpstreamRetryDelay: &delay, FailureCause: FailureCauseOverloaded,
	}}
	_, err := made.answer()
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != TurnFailed {
		t.Fatalf("the error is %v", err)
	}
	if failed.Message != "a; b" || failed.Failure.UpstreamStatus != 529 ||
		failed.Failure.FailureCause != FailureCauseOverloaded {
		t.Errorf("it is %+v", failed.Failure)
	}
	if _, err := new(assembly).answer(); !errors.Is(err, CallBroken) {
		t.Errorf("without an end it is %v", err)
	}
}
