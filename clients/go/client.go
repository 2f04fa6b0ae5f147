package samovar

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	pb "samovar.invalid/samovar/samovarv1"
)

const (
	// controlDeadline bounds calls beside turns.
	controlDeadline = 30 * time.Second
	// turnService is the service whose health is that of turns.
	turnService = "samovar.v1.Session"
)

// Client is a client of a samovard. It is safe for use by several goroutines at once, and has two
// connections: one for turns, and one for all other calls, because a connection with a hundred
// open streams takes no other call.
type Client struct {
	credential string
	secured    *TLS
	deadline   time.Duration

	turns, control         pb.SessionClient
	turnsConn, controlConn *grpc.ClientConn
	heard                  atomic.Bool // whether the service ever answered
	closing                sync.Once
	closed                 chan struct{}
	clock                  func() time.Time
}

// Option is a setting of a client.
type Option func(*Client)

// WithCredential sends an API key or a JSON Web Token as a bearer, over TLS or within this machine
// only.
func WithCredential(credential string) Option {
	return func(c *Client) { c.credential = credential }
}

// WithTLS encrypts the connections.
func WithTLS(secured TLS) Option {
	return func(c *Client) { c.secured = &secured }
}

// WithDeadline bounds each turn that sets no deadline of its own. Without it there is no bound but
// that of the context.
func WithDeadline(deadline time.Duration) Option {
	return func(c *Client) { c.deadline = deadline }
}

// New returns a client of the service at a target: "host:port" or "unix:/path"; empty for
// DefaultTarget. It connects at the first call. The error is of the kind InvalidArgument.
func New(target string, options ...Option) (*Client, error) {
	client := &Client{closed: make(chan struct{}), clock: time.Now}
	for _, option := range options {
		option(client)
	}
	target = or(target, DefaultTarget)
	if client.credential != "" && client.secured == nil && !local.MatchString(target) {
		return nil, refusal("a credential is only sent over TLS or within this machine")
	}
	if client.deadline < 0 {
		return nil, violation("deadline", "must be above 0")
	}
	dial, err := dialOptions(target, client.secured)
	if err != nil {
		return nil, err
	}
	if client.turnsConn, err = grpc.NewClient(target, dial...); err != nil {
		return nil, refusal("the target %q cannot be used: %v", target, err)
	}
	if client.controlConn, err = grpc.NewClient(target, dial...); err != nil {
		_ = client.turnsConn.Close()
		return nil, refusal("the target %q cannot be used: %v", target, err)
	}
	client.turns = pb.NewSessionClient(client.turnsConn)
	client.control = pb.NewSessionClient(client.controlConn)
	return client, nil
}

// Close ends what is open and closes the connections. Open streams and later calls fail with the
// kind ClientClosed. It may be called again.
func (c *Client) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		_ = c.turnsConn.Close()
		_ = c.controlConn.Close()
	})
	return nil
}

// Interrupt interrupts a turn, and reports whether it was still running. An empty session stands
// for "default".
func (c *Client) Interrupt(ctx context.Context, session, turnID string) (bool, error) {
	request := &pb.InterruptRequest{SessionId: session, TurnId: turnID}
	response, err := call(ctx, c, session, request, c.control.Interrupt)
	return response.GetWasRunning(), err
}

// Allow lets the tool run that a PermissionRequested asks about. The error is of the kind
// PermissionNotFound if the request is over; the same answer may be repeated.
func (c *Client) Allow(ctx context.Context, session, permissionID string, answer Allow) error {
	return c.answer(ctx, session, permissionID, answer)
}

// Deny keeps the tool from running, and fails as Allow does.
func (c *Client) Deny(ctx context.Context, session, permissionID string, answer Deny) error {
	return c.answer(ctx, session, permissionID, answer)
}

// answer sends the answer to a permission request.
func (c *Client) answer(ctx context.Context, session, id string, decision Decision) error {
	request, err := decision.respond(session, id)
	if err != nil {
		return err
	}
	_, err = call(ctx, c, session, request, c.control.Respond)
	return err
}

// GetSession returns a session. The error is of the kind SessionNotFound if there is none.
func (c *Client) GetSession(ctx context.Context, session string) (*Session, error) {
	request := &pb.GetSessionRequest{SessionId: session}
	response, err := call(ctx, c, session, request, c.control.GetSession)
	if err != nil {
		return nil, err
	}
	return readSession(response.GetSession()), nil
}

// ListSessions yields the caller's sessions, most recently used first, page by page. It ends with
// the first error.
func (c *Client) ListSessions(ctx context.Context) iter.Seq2[*Session, error] {
	return func(yield func(*Session, error) bool) {
		for request := (&pb.ListSessionsRequest{}); ; {
			page, err := call(ctx, c, "", request, c.control.ListSessions)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, session := range page.GetSessions() {
				if !yield(readSession(session), nil) {
					return
				}
			}
			if page.GetNextPageToken() == "" {
				return
			}
			request = &pb.ListSessionsRequest{PageToken: page.GetNextPageToken()}
		}
	}
}

// CloseSession ends a session for good, with its conversation, and reports whether there was one.
// It has no default, because closing deletes.
func (c *Client) CloseSession(ctx context.Context, session string) (bool, error) {
	request := &pb.CloseSessionRequest{SessionId: session}
	response, err := call(ctx, c, session, request, c.control.CloseSession)
	return response.GetSession() != nil, err
}

// Usage returns what the caller's turns used, by day in UTC and model. Both days are included. A
// zero last day is today, and a zero first day is 30 days before the last.
func (c *Client) Usage(ctx context.Context, first, last time.Time) ([]DailyUsage, error) {
	request := &pb.GetUsageRequest{FirstDay: day(first), LastDay: day(last)}
	response, err := call(ctx, c, "", request, c.control.GetUsage)
	if err != nil {
		return nil, err
	}
	return readDays(response.GetDays())
}

// Health returns the health of a service; an empty name asks whether turns are served.
func (c *Client) Health(ctx context.Context, service string) (Health, error) {
	request := &healthpb.HealthCheckRequest{Service: or(service, turnService)}
	check := healthpb.NewHealthClient(c.controlConn).Check
	response, err := call(ctx, c, "", request, check)
	return Health(response.GetStatus()), err
}

// call makes a call beside turns, within its deadline, and returns its error as one of ours.
func call[Request proto.Message, Response any](
	ctx context.Context,
	c *Client,
	session string,
	request Request,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
) (Response, error) {
	var nothing Response
	if c.isClosed() {
		return nothing, closedError()
	}
	if err := checked(request); err != nil {
		return nothing, err
	}
	bounded, cancel := context.WithTimeout(ctx, controlDeadline)
	defer cancel()
	response, err := method(c.outgoing(bounded, session), request)
	if err != nil {
		return nothing, c.failure(ctx, err)
	}
	return response, nil
}

// isClosed reports whether Close was called.
func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// failure returns the error of a call: that of its context if the caller cancelled it, else an
// *Error.
func (c *Client) failure(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == context.Canceled:
		return ctx.Err()
	case c.isClosed():
		return closedError()
	default:
		return errorOf(err)
	}
}
