package samovar

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	pb "samovar.invalid/samovar/samovarv1"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// firstContact is how long to look for a service that the client has never heard from.
	firstContact = 2 * time.Second
	// noDeadline is how long to try to join a turn again that has no deadline.
	noDeadline = 60 * time.Second
)

// rejoin is one turn as its caller sees it: a sequence of events over as many calls as it takes.
// It decides what to call next and when, and makes no call itself.
type rejoin struct {
	client   *Client
	session  string
	turnID   string
	send     *pb.SendRequest // runs the turn; nil to follow one
	sequence int64           // of the last event
	end      time.Time       // bounds everything; zero for no bound

	finished    bool // the last event was given
	joined      bool // the stream gave an event
	brokenSince time.Time
	failed      *Error // how the call before this one failed
	nextPause   time.Duration
}

// attach returns the request that follows the turn after its last event.
func (r *rejoin) attach() *pb.AttachRequest {
	return &pb.AttachRequest{
		SessionId: r.session, TurnId: r.turnID, AfterSequence: r.sequence,
	}
}

// take returns the events of a response, each once and without those of unknown kinds.
func (r *rejoin) take(events []*pb.Event) []Event {
	r.client.heard.Store(true)
	r.joined, r.brokenSince, r.failed, r.nextPause = true, time.Time{}, nil, firstPause
	found := make([]Event, 0, len(events))
	for _, message := range events {
		if message.GetSequence() <= r.sequence {
			continue
		}
		r.sequence = message.GetSequence()
		r.finished = message.GetTurnFinished() != nil
		if event := read(message); event != nil {
			found = append(found, event)
		}
	}
	return found
}

// pause returns how long to wait before the next call, and false if there must be none. A refusal
// has a delay of its own. A stream that broke is joined again after a pause that grows and varies,
// so that callers that lost a service do not come back to it all at once.
func (r *rejoin) pause(err *Error) (time.Duration, bool) {
	if err.Reason != "" {
		r.client.heard.Store(true)
	}
	refused := err.RetryDelay != nil && !err.PromptWritten
	var pause time.Duration
	var until time.Time
	switch {
	case refused && !r.joined:
		// Nothing was given: a caller that sets no deadline decides for itself.
		pause, until = *err.RetryDelay, r.end
	case refused || err.Kind == ReaderTooSlow || broke(err):
		pause, until = r.growing(), r.until()
		if err.RetryDelay != nil {
			pause = max(pause, *err.RetryDelay)
		}
	default:
		return 0, false
	}
	if until.IsZero() || !r.client.clock().Add(pause).Before(until) {
		return 0, false
	}
	r.failed = err
	return pause, true
}

// last returns what to report for an error after which no call is made. At the deadline gRPC only
// knows that time is over: what failed before says why.
func (r *rejoin) last(err error) error {
	if r.failed != nil && errors.Is(err, DeadlineExceeded) {
		return r.failed
	}
	return err
}

// growing returns the next pause of a stream that broke.
func (r *rejoin) growing() time.Duration {
	pause := max(r.nextPause, firstPause)
	r.nextPause = min(2*pause, longestPause)
	return time.Duration(float64(pause) * (0.5 + rand.Float64()/2))
}

// until returns until when a stream that broke may be joined again, zero for not at all.
func (r *rejoin) until() time.Time {
	if r.brokenSince.IsZero() {
		r.brokenSince = r.client.clock()
	}
	if r.client.heard.Load() {
		if r.end.IsZero() {
			return r.brokenSince.Add(noDeadline)
		}
		return r.end
	}
	if r.end.IsZero() {
		return time.Time{}
	}
	// Most likely there is no service: the caller should learn that soon.
	if soon := r.brokenSince.Add(firstContact); soon.Before(r.end) {
		return soon
	}
	return r.end
}

// broke reports whether a call broke on its way and the next one may get through.
func broke(err *Error) bool {
	if err.Kind != CallBroken {
		return false
	}
	switch err.Code {
	case codes.Unavailable, codes.Internal, codes.Canceled, codes.Unknown:
		return true
	}
	return false
}

// earliest returns when a call ends: after its deadline or the client's, or with its context.
func (c *Client) earliest(ctx context.Context, deadline time.Duration) (time.Time, error) {
	if deadline < 0 {
		return time.Time{}, violation("deadline", "must be above 0")
	}
	if deadline == 0 {
		deadline = c.deadline
	}
	var end time.Time
	if deadline > 0 {
		end = c.clock().Add(min(deadline, longest))
	}
	if given, ok := ctx.Deadline(); ok && (end.IsZero() || given.Before(end)) {
		end = given
	}
	return end, nil
}
