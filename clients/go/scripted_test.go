package samovar

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "samovar.invalid/samovar/samovarv1"
)

// bound is the longest that a test waits for anything.
const bound = 20 * time.Second

// step is what the server does in one call of Send or Attach: it sends events, then ends.
type step struct {
	events []*pb.Event
	end    error
	hold   bool // ends with the call only
}

// scripted is a server that plays one step for each call.
type scripted struct {
	pb.UnimplementedSessionServer
	healthpb.UnimplementedHealthServer

	mu       sync.Mutex
	steps    []step
	requests []any
	metadata []metadata.MD
	respond  error
	left     chan struct{} // gets one for each held call that ended
}

// play runs the server and returns a client of it.
func play(t *testing.T, script *scripted, options ...Option) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	script.left = make(chan struct{}, 8)
	server := grpc.NewServer()
	pb.RegisterSessionServer(server, script)
	healthpb.RegisterHealthServer(server, script)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	client, err := New(listener.Addr().String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		server.Stop()
		<-done
	})
	return client
}

func (s *scripted) keep(ctx context.Context, request any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, request)
	found, _ := metadata.FromIncomingContext(ctx)
	s.metadata = append(s.metadata, found)
}

// seen returns the requests so far.
func (s *scripted) seen() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]any{}, s.requests...)
}

func (s *scripted) next(ctx context.Context, request any, send func(*pb.Event) error) error {
	s.keep(ctx, request)
	s.mu.Lock()
	now := step{end: status.Error(codes.FailedPrecondition, "the script is over")}
	if len(s.steps) > 0 {
		now, s.steps = s.steps[0], s.steps[1:]
	}
	s.mu.Unlock()
	for _, event := range now.events {
		if err := send(event); err != nil {
			return err
		}
	}
	if now.hold {
		<-ctx.Done()
		s.left <- struct{}{}
		return status.FromContextError(ctx.Err()).Err()
	}
	return now.end
}

func (s *scripted) Send(
	request *pb.SendRequest, stream grpc.ServerStreamingServer[pb.SendResponse],
) error {
	return s.next(stream.Context(), request, func(event *pb.Event) error {
		return stream.Send(&pb.SendResponse{Events: []*pb.Event{event}})
	})
}

func (s *scripted) Attach(
	request *pb.AttachRequest, stream grpc.ServerStreamingServer[pb.AttachResponse],
) error {
	return s.next(stream.Context(), request, func(event *pb.Event) error {
		return stream.Send(&pb.AttachResponse{Events: []*pb.Event{event}})
	})
}

func (s *scripted) Respond(
	ctx context.Context, request *pb.RespondRequest,
) (*pb.RespondResponse, error) {
	s.keep(ctx, request)
	return &pb.RespondResponse{}, s.respond
}

func (s *scripted) Interrupt(
	ctx context.Context, request *pb.InterruptRequest,
) (*pb.InterruptResponse, error) {
	s.keep(ctx, request)
	return &pb.InterruptResponse{WasRunning: true}, nil
}

func (s *scripted) ListSessions(
	ctx context.Context, request *pb.ListSessionsRequest,
) (*pb.ListSessionsResponse, error) {
	s.keep(ctx, request)
	sessions := []*pb.SessionInfo{{SessionId: "s" + request.GetPageToken()}}
	after := map[string]string{"": "1", "1": "2"}[request.GetPageToken()]
	return &pb.ListSessionsResponse{Sessions: sessions, NextPageToken: after}, nil
}

func (s *scripted) GetUsage(
	ctx context.Context, request *pb.GetUsageRequest,
) (*pb.GetUsageResponse, error) {
	s.keep(ctx, request)
	used := &pb.DailyUsage{Day: "2026-11-30", Model: "m", Turns: 2}
	return &pb.GetUsageResponse{Days: []*pb.DailyUsage{used}}, nil
}

func (s *scripted) Check(
	ctx context.Context, request *healthpb.HealthCheckRequest,
) (*healthpb.HealthCheckResponse, error) {
	s.keep(ctx, request)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
}

func started() *pb.Event {
	kind := &pb.TurnStarted{SessionId: "default", TurnId: "t"}
	return &pb.Event{Sequence: 1, Kind: &pb.Event_TurnStarted{TurnStarted: kind}}
}

func said(sequence int64, text string) *pb.Event {
	kind := &pb.TextDelta{MessageId: "m", Text: text}
	return &pb.Event{Sequence: sequence, Kind: &pb.Event_TextDelta{TextDelta: kind}}
}

func asked(sequence int64) *pb.Event {
	kind := &pb.PermissionRequested{PermissionId: "p", ToolName: "Write"}
	return &pb.Event{
		Sequence: sequence, Kind: &pb.Event_PermissionRequested{PermissionRequested: kind},
	}
}

func finished(sequence int64, result string) *pb.Event {
	kind := &pb.TurnFinished{Outcome: pb.TurnFinished_OUTCOME_COMPLETED, Result: result}
	return &pb.Event{Sequence: sequence, Kind: &pb.Event_TurnFinished{TurnFinished: kind}}
}

// cut is the status of a call that broke on its way.
func cut() error { return status.Error(codes.Unavailable, "cut") }

// refused is a status of the service, to be repeated after a delay unless that is negative.
func refused(code codes.Code, reason string, delay time.Duration) error {
	info := &errdetails.ErrorInfo{Domain: domain, Reason: reason}
	details := []protoadapt.MessageV1{info}
	if delay >= 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	made, err := status.New(code, "it is "+reason).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return made.Err()
}

// collect returns the events of a turn and its error.
func collect(turn *Turn, err error) ([]Event, error) {
	if err != nil {
		return nil, err
	}
	var events []Event
	for event, err := range turn.Events() {
		if err != nil {
			return events, err
		}
		events = append(events, event)
	}
	return events, nil
}
