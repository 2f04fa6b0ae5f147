package samovar

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "samovar.invalid/samovar/samovarv1"
)

// watched returns a turn of a client whose clock the test moves.
func watched(end time.Duration) (*rejoin, *time.Time) {
	now := time.Unix(1000, 0)
	client := &Client{closed: make(chan struct{}), clock: func() time.Time { return now }}
	turn := &rejoin{client: client, send: &pb.SendRequest{}}
	if end > 0 {
		turn.end = now.Add(end)
	}
	return turn, &now
}

// Pauses double from 0.1 s to 5 s, each times 0.5 to 1.
func TestPausesGrow(t *testing.T) {
	turn, _ := watched(time.Hour)
	turn.client.heard.Store(true)
	whole := firstPause
	for range 10 {
		pause, again := turn.pause(&Error{Kind: CallBroken, Code: codes.Unavailable})
		if !again || pause < whole/2 || pause > whole {
			t.Fatalf("the pause is %v of %v", pause, whole)
		}
		whole = min(2*whole, longestPause)
	}
	turn.take([]*pb.Event{started()})
	if pause := turn.growing(); pause > firstPause {
		t.Errorf("the pause after an event is %v", pause)
	}
}

// Without a deadline a stream is joined for 60 s; a service never heard from is not looked for.
func TestTimeToJoinAgain(t *testing.T) {
	broken := &Error{Kind: CallBroken, Code: codes.Internal}
	for _, given := range []struct {
		name         string
		end, longest time.Duration
		heard        bool
	}{
		{"no deadline", 0, noDeadline, true},
		{"a deadline", time.Hour, time.Hour, true},
		{"never heard", time.Hour, firstContact, false},
		{"never heard, soon", time.Second, time.Second, false},
		{"never heard, no deadline", 0, 0, false},
	} {
		turn, now := watched(given.end)
		turn.client.heard.Store(given.heard)
		began := *now
		for again := true; again; {
			var pause time.Duration
			pause, again = turn.pause(broken)
			if again {
				*now = now.Add(pause)
			}
		}
		took := now.Sub(began)
		if took > given.longest || took < given.longest-longestPause {
			t.Errorf("%s: tried for %v of %v", given.name, took, given.longest)
		}
	}
}

// What may be repeated, before and after the first event.
func TestWhatIsRepeated(t *testing.T) {
	soon := time.Millisecond
	for _, given := range []struct {
		name          string
		err           Error
		before, after bool
	}{
		{"broken", Error{Kind: CallBroken, Code: codes.Unknown}, true, true},
		{"not broken", Error{Kind: CallBroken, Code: codes.ResourceExhausted}, false, false},
		{"late", Error{Kind: DeadlineExceeded, Code: codes.DeadlineExceeded}, false, false},
		{"ours", Error{Kind: Internal, Reason: "INTERNAL", Code: codes.Internal}, false, false},
		{"slow", Error{Kind: ReaderTooSlow, Reason: "READER_TOO_SLOW"}, true, true},
		{"refused", Error{Kind: NoProcess, Reason: "NO_PROCESS", RetryDelay: &soon}, true, true},
		{"written", Error{Kind: NoProcess, RetryDelay: &soon, PromptWritten: true}, false, false},
	} {
		for _, joined := range []bool{false, true} {
			turn, _ := watched(time.Hour)
			turn.joined = joined
			_, again := turn.pause(&given.err)
			if want := map[bool]bool{false: given.before, true: given.after}[joined]; again != want {
				t.Errorf("%s, joined %v: repeated %v", given.name, joined, again)
			}
		}
	}
}

// A refusal is repeated after its delay unless the deadline comes first.
func TestDelayOfRefusal(t *testing.T) {
	delay := time.Minute
	refusal := &Error{Kind: QueueFull, Reason: "QUEUE_FULL", RetryDelay: &delay}
	turn, _ := watched(time.Hour)
	if pause, again := turn.pause(refusal); !again || pause != delay {
		t.Errorf("the pause is %v", pause)
	}
	if late := turn.last(&Error{Kind: DeadlineExceeded}); !errors.Is(late, QueueFull) {
		t.Errorf("at the deadline it is %v", late)
	}
	turn, _ = watched(time.Minute)
	if _, again := turn.pause(refusal); again {
		t.Error("a delay as long as the deadline is waited for")
	}
}
