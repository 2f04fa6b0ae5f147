package samovar

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "samovar.invalid/samovar/samovarv1"
)

// sequences returns the numbers of events.
func sequences(events []Event) []int64 {
	var found []int64
	for _, event := range events {
		found = append(found, event.Common().Sequence)
	}
	return found
}

func wantSequences(t *testing.T, events []Event, err error, last int64) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for index, sequence := range sequences(events) {
		if sequence != int64(index)+1 {
			t.Fatalf("the events are %v", sequences(events))
		}
	}
	if int64(len(events)) != last {
		t.Fatalf("there are %d events, not %d", len(events), last)
	}
}

// A stream that breaks is joined after its last event, and repeated events are given once.
func TestStreamGoesOn(t *testing.T) {
	script := &scripted{steps: []step{
		{events: []*pb.Event{started(), said(2, "a")}, end: cut()},
		{events: []*pb.Event{said(2, "a"), said(3, "b")}, end: cut()},
		{events: []*pb.Event{finished(4, "ab")}},
	}}
	client := play(t, script, WithDeadline(bound))
	turn, err := client.Send(t.Context(), SendOptions{Session: "s"}, Text("Hello"))
	events, err := collect(turn, err)
	wantSequences(t, events, err, 4)
	requests := script.seen()
	for index, after := range []int64{2, 3} {
		attach := requests[index+1].(*pb.AttachRequest)
		if attach.GetAfterSequence() != after || attach.GetTurnId() != turn.ID() {
			t.Errorf("the request is %v", attach)
		}
	}
}

// A call that breaks before its first event is sent again with the same id.
func TestSendIsRepeated(t *testing.T) {
	whole := step{events: []*pb.Event{started(), finished(2, "")}}
	again := refused(codes.Unavailable, "NO_PROCESS", time.Millisecond)
	script := &scripted{steps: []step{{end: cut()}, {end: again}, whole}}
	client := play(t, script)
	events, err := collect(client.Send(
		t.Context(), SendOptions{Deadline: bound}, Text("Hello")))
	wantSequences(t, events, err, 2)
	requests := script.seen()
	first := requests[0].(*pb.SendRequest).GetTurnId()
	if last := requests[2].(*pb.SendRequest).GetTurnId(); first == "" || last != first {
		t.Errorf("the ids are %q and %q", first, last)
	}
}

// Without a deadline a refusal is the caller's, with its delay.
func TestRefusalIsTold(t *testing.T) {
	again := refused(codes.Unavailable, "NO_PROCESS", time.Second)
	client := play(t, &scripted{steps: []step{{end: again}}})
	_, err := collect(client.Send(t.Context(), SendOptions{}, Text("Hello")))
	var failed *Error
	if !errors.As(err, &failed) || !errors.Is(err, NoProcess) || errors.Is(err, SessionBusy) {
		t.Fatalf("the error is %v", err)
	}
	if failed.RetryDelay == nil || *failed.RetryDelay != time.Second {
		t.Errorf("the delay is %v", failed.RetryDelay)
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the code is %v", status.Code(err))
	}
}

// Leaving the loop cancels the call and leaves no goroutine.
func TestLeavingCancels(t *testing.T) {
	held := step{events: []*pb.Event{started()}, hold: true}
	script := &scripted{steps: []step{held, held, held}}
	client := play(t, script)
	var before int
	for turns := range 3 {
		turn, err := client.Send(t.Context(), SendOptions{}, Text("Hello"))
		if err != nil {
			t.Fatal(err)
		}
		for range turn.Events() {
			break
		}
		<-script.left
		for range turn.Events() {
			t.Error("a turn that was left has an event")
		}
		if turns == 0 {
			before = runtime.NumGoroutine() // with those of the connection
		}
	}
	for end := time.Now().Add(bound); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// A cancelled context ends the loop with the context's own error.
func TestContextIsCancelled(t *testing.T) {
	held := step{events: []*pb.Event{started()}, hold: true}
	script := &scripted{steps: []step{held}}
	client := play(t, script)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	turn, err := client.Send(ctx, SendOptions{}, Text("Hello"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err = range turn.Events() {
		cancel()
	}
	if err != context.Canceled {
		t.Errorf("the error is %v", err)
	}
	<-script.left
}

// A deadline, of the options or of the context, is the kind DeadlineExceeded.
func TestDeadline(t *testing.T) {
	held := step{events: []*pb.Event{started()}, hold: true}
	client := play(t, &scripted{steps: []step{held, held}})
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, given := range []struct {
		ctx     context.Context
		options SendOptions
	}{
		{t.Context(), SendOptions{Deadline: 50 * time.Millisecond}},
		{short, SendOptions{}},
	} {
		_, err := collect(client.Send(given.ctx, given.options, Text("Hello")))
		if !errors.Is(err, DeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	}
}

// At the deadline, what failed before is reported.
func TestDeadlineTellsWhatFailedBefore(t *testing.T) {
	late := status.Error(codes.DeadlineExceeded, "late")
	script := &scripted{steps: []step{
		{events: []*pb.Event{started()}, end: cut()},
		{end: refused(codes.Unavailable, "NO_PROCESS", time.Millisecond)},
		{end: late},
	}}
	client := play(t, script, WithDeadline(bound))
	_, err := collect(client.Send(t.Context(), SendOptions{}, Text("Hello")))
	if !errors.Is(err, NoProcess) {
		t.Errorf("the error is %v", err)
	}
}

// A closed client ends its streams, during a call and during a pause, and refuses later calls.
func TestClosedClient(t *testing.T) {
	pausing := step{end: refused(codes.Unavailable, "NO_PROCESS", bound/2)}
	held := step{events: []*pb.Event{started()}, hold: true}
	for _, each := range []step{pausing, held} {
		script := &scripted{steps: []step{each}}
		client := play(t, script, WithDeadline(bound))
		go func() {
			for len(script.seen()) == 0 {
				runtime.Gosched()
			}
			_ = client.Close()
		}()
		_, err := collect(client.Send(t.Context(), SendOptions{}, Text("Hello")))
		if !errors.Is(err, ClientClosed) {
			t.Errorf("the error is %v", err)
		}
		if _, err := client.GetSession(t.Context(), ""); !errors.Is(err, ClientClosed) {
			t.Errorf("the error is %v", err)
		}
	}
}

// The callback's answer is sent before the event is yielded; one that is too late is ignored.
func TestCallback(t *testing.T) {
	turn := step{events: []*pb.Event{started(), asked(2), finished(3, "")}}
	gone := refused(codes.NotFound, "PERMISSION_NOT_FOUND", -1)
	for _, answer := range []error{nil, gone} {
		script := &scripted{steps: []step{turn}, respond: answer}
		client := play(t, script)
		options := SendOptions{Session: "s", OnPermission: func(
			_ context.Context, asked *PermissionRequested,
		) (Decision, error) {
			return Allow{UpdatedInput: map[string]string{"file_path": asked.ToolName}}, nil
		}}
		events, err := collect(client.Send(t.Context(), options, Text("Hello")))
		wantSequences(t, events, err, 3)
		sent := script.seen()[1].(*pb.RespondRequest)
		const changed = `{"file_path":"Write"}`
		if sent.GetSessionId() != "s" || sent.GetPermissionId() != "p" ||
			sent.GetAllow().GetUpdatedInputJson() != changed {
			t.Errorf("the answer is %v", sent)
		}
	}
}

// What the callback returns as an error ends the turn, whatever it is, and is not tried again.
func TestCallbackFails(t *testing.T) {
	broken := &Error{Kind: CallBroken, Code: codes.Unavailable}
	for _, given := range []error{errors.New("no"), broken, context.Canceled} {
		turn := step{events: []*pb.Event{started(), asked(2)}, hold: true}
		script := &scripted{steps: []step{turn}}
		client := play(t, script, WithDeadline(bound))
		options := SendOptions{OnPermission: func(
			context.Context, *PermissionRequested,
		) (Decision, error) {
			return nil, given
		}}
		_, err := collect(client.Send(t.Context(), options, Text("Hello")))
		if err != given {
			t.Errorf("the error is %v", err)
		}
		<-script.left
	}
}
