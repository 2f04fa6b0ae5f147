package samovar

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"time"

	pb "samovar.invalid/samovar/samovarv1"
)

// Turn is the stream of a turn's events. Nothing is called before its events are read.
type Turn struct {
	rejoin
	ctx          context.Context
	onPermission func(context.Context, *PermissionRequested) (Decision, error)
	begun        atomic.Bool
}

// AttachOptions say how a turn is followed.
type AttachOptions struct {
	// AfterSequence is the last event that is not wanted; 0 for all events.
	AfterSequence int64
	// Deadline bounds the call with all its repetitions; 0 for the client's.
	Deadline time.Duration
}

// Send returns a turn to run with a message: a Text, or several blocks. The turn begins when its
// Events are read, within the context.
//
// A refusal that says when to repeat is repeated until the deadline, with the same turn id. A
// stream that breaks is joined again where it broke. The error is of the kind InvalidArgument or
// RequestInvalid.
func (c *Client) Send(ctx context.Context, options SendOptions, message ...Block) (*Turn, error) {
	request, err := options.request(message)
	if err != nil {
		return nil, err
	}
	end, err := c.earliest(ctx, options.Deadline)
	if err != nil {
		return nil, err
	}
	turn := &Turn{
		rejoin: rejoin{
			client: c, session: options.Session, turnID: request.GetTurnId(), send: request,
			end: end,
		},
		ctx:          ctx,
		onPermission: options.OnPermission,
	}
	return turn, nil
}

// Attach returns a turn to follow: one that waits, runs or ended not long ago. It has no effect on
// the turn. An empty session stands for "default". Reading its Events can fail with the kinds
// TurnNotFound, EventsExpired, and whatever ended the turn.
func (c *Client) Attach(
	ctx context.Context, session, turnID string, options AttachOptions,
) (*Turn, error) {
	if options.AfterSequence < 0 {
		return nil, violation("after_sequence", "must not be negative")
	}
	end, err := c.earliest(ctx, options.Deadline)
	if err != nil {
		return nil, err
	}
	turn := &Turn{
		rejoin: rejoin{
			client: c, session: session, turnID: turnID, sequence: options.AfterSequence,
			end: end,
		},
		ctx: ctx,
	}
	return turn, checked(turn.attach())
}

// ID returns the turn's id.
func (t *Turn) ID() string { return t.turnID }

// Session returns the session's name.
func (t *Turn) Session() string { return or(t.session, defaultSession) }

// Events yields each event once and in order, until the turn has ended or an error, which comes
// last: an *Error, the context's own if it was cancelled, or that of OnPermission. Leaving the loop
// or cancelling the context cancels the call, which interrupts a turn that was sent without
// KeepRunning. The events can be read once; a second loop has none.
func (t *Turn) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if t.begun.Swap(true) {
			return
		}
		if err := t.run(func(event Event) bool { return yield(event, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

// run gives the events of all calls that the turn takes.
func (t *Turn) run(give func(Event) bool) error {
	for {
		ended, err := t.once(give)
		if ended {
			return err
		}
		failed := t.client.failure(t.ctx, err)
		broken, ok := failed.(*Error)
		if !ok {
			return failed // the context's
		}
		pause, again := t.pause(broken)
		if !again {
			return t.last(failed)
		}
		if err := t.wait(pause); err != nil {
			return err
		}
	}
}

// once makes one call and gives its events. It returns true and what the turn ends with; or false
// and what broke the call.
func (t *Turn) once(give func(Event) bool) (bool, error) {
	ctx, cancel := t.bounded()
	defer cancel()
	next, err := t.open(ctx)
	for err == nil {
		var messages []*pb.Event
		if messages, err = next(); err != nil {
			break
		}
		for _, event := range t.take(messages) {
			if err := t.decide(ctx, event); err != nil {
				return true, err
			}
			if !give(event) {
				return true, nil
			}
		}
	}
	if err == io.EOF || t.finished {
		return true, nil // after the last event it does not matter how a call ended
	}
	return false, err
}

// bounded returns the context of a call, with its deadline.
func (t *Turn) bounded() (context.Context, context.CancelFunc) {
	if t.end.IsZero() {
		return context.WithCancel(t.ctx)
	}
	return context.WithDeadline(t.ctx, t.end)
}

// open begins a call: Send before the first event, Attach after one. It returns a function that
// returns some events at a time.
func (t *Turn) open(ctx context.Context) (func() ([]*pb.Event, error), error) {
	if t.client.isClosed() {
		return nil, closedError()
	}
	ctx = t.client.outgoing(ctx, t.session)
	if t.send != nil && !t.joined {
		stream, err := t.client.turns.Send(ctx, t.send)
		return func() ([]*pb.Event, error) {
			response, err := stream.Recv()
			return response.GetEvents(), err
		}, err
	}
	stream, err := t.client.turns.Attach(ctx, t.attach())
	return func() ([]*pb.Event, error) {
		response, err := stream.Recv()
		return response.GetEvents(), err
	}, err
}

// decide answers an event that is a permission request, if there is a callback.
func (t *Turn) decide(ctx context.Context, event Event) error {
	asked, ok := event.(*PermissionRequested)
	if !ok || t.onPermission == nil {
		return nil
	}
	decision, err := t.onPermission(ctx, asked)
	if err != nil {
		return err
	}
	if decision == nil {
		return refusal("OnPermission returned no decision")
	}
	err = t.client.answer(ctx, t.session, asked.PermissionID, decision)
	if errors.Is(err, PermissionNotFound) {
		return nil // it expired, or another client was first
	}
	return err
}

// wait waits before the next call, and returns what ends the turn meanwhile.
func (t *Turn) wait(pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.client.closed:
		return closedError()
	case <-t.ctx.Done():
		return t.last(t.client.failure(t.ctx, t.ctx.Err()))
	}
}
