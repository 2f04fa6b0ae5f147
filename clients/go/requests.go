package samovar

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "samovar.invalid/samovar/samovarv1"
)

const (
	// maxRequest is the size of the largest request that the service takes.
	maxRequest = 8 << 20
	// longest bounds times that only mean "more than enough".
	longest = 366 * 24 * time.Hour
)

// Block is a part of a message: a Text, an Image or a Document.
type Block interface {
	content() *pb.Content
}

// Text is plain text, not blank.
type Text string

// Image is the bytes of a PNG, JPEG, GIF or WebP file.
type Image struct {
	// Data are the bytes of the file.
	Data []byte
	// MediaType is image/png if it is empty.
	MediaType string
}

// Document is the bytes of a PDF file.
type Document struct {
	// Data are the bytes of the file.
	Data []byte
	// Title may be empty.
	Title string
	// MediaType is application/pdf if it is empty.
	MediaType string
}

func (t Text) content() *pb.Content {
	return &pb.Content{Kind: &pb.Content_Text{Text: string(t)}}
}

func (i Image) content() *pb.Content {
	return &pb.Content{Kind: &pb.Content_Image_{Image: &pb.Content_Image{
		MediaType: or(i.MediaType, "image/png"), Data: i.Data,
	}}}
}

func (d Document) content() *pb.Content {
	return &pb.Content{Kind: &pb.Content_Document_{Document: &pb.Content_Document{
		MediaType: or(d.MediaType, "application/pdf"), Data: d.Data, Title: d.Title,
	}}}
}

// PermissionPolicy says what happens when a tool needs permission.
type PermissionPolicy string

const (
	// PermissionDeny denies every request.
	PermissionDeny PermissionPolicy = "deny"
	// PermissionAsk sends a PermissionRequested and waits for its answer.
	PermissionAsk PermissionPolicy = "ask"
)

// SendOptions say how a turn is run. The zero value is a turn in the session "default" with the
// service's own settings.
type SendOptions struct {
	// Session names the conversation; empty for "default". Naming it makes it, unless Create is
	// false.
	Session string
	// Create is whether a session that does not exist is made; nil is true.
	Create *bool
	// TurnID is the turn's id and idempotency key, a UUID in lower case; empty to have one made.
	TurnID string
	// Profile is for a new session; empty for the service's.
	Profile string
	// Model is for a new session; empty for the profile's.
	Model string
	// AppendSystemPrompt is for a new session: text after the profile's system prompt.
	AppendSystemPrompt string
	// PermissionPolicy is for a new session; empty for the profile's.
	PermissionPolicy PermissionPolicy
	// Labels are for a new session.
	Labels map[string]string
	// Partial is whether text comes in pieces as it is produced; nil is true.
	Partial *bool
	// Thinking asks for ThinkingDelta events.
	Thinking bool
	// RawJSON asks for the agent's own lines, where the profile allows it.
	RawJSON bool
	// TurnTimeout bounds the time of the turn; 0 for the profile's bound.
	TurnTimeout time.Duration
	// MaxAgentSteps bounds the steps of the turn; 0 for the profile's bound.
	MaxAgentSteps int
	// KeepRunning lets the turn run on when its stream is lost, which else interrupts it.
	KeepRunning bool
	// Deadline bounds the call with all its repetitions; 0 for the client's. The deadline of the
	// context holds as well.
	Deadline time.Duration
	// OnPermission is called with each request before the event is yielded, and its answer is
	// sent. Its error ends the turn. Nil: any client may answer, with Allow or Deny.
	OnPermission func(ctx context.Context, asked *PermissionRequested) (Decision, error)
}

// Bool returns a pointer to a value, for options that are true by default.
func Bool(value bool) *bool { return &value }

// Decision is the answer to a permission request: an Allow or a Deny.
type Decision interface {
	respond(session, permissionID string) (*pb.RespondRequest, error)
}

// Allow lets a tool run.
type Allow struct {
	// UpdatedInput replaces the tool's input where the profile allows that: a value that
	// encoding/json makes an object of. Nil leaves the input as it is.
	UpdatedInput any
}

// Deny keeps a tool from running.
type Deny struct {
	// Message is passed to the agent.
	Message string
	// Interrupt also interrupts the turn.
	Interrupt bool
}

func (a Allow) respond(session, permissionID string) (*pb.RespondRequest, error) {
	changed := ""
	if a.UpdatedInput != nil {
		text, err := json.Marshal(a.UpdatedInput)
		if err != nil {
			return nil, refusal("the updated input is no JSON: %v", err)
		}
		changed = string(text)
	}
	return &pb.RespondRequest{
		SessionId:    session,
		PermissionId: permissionID,
		Decision: &pb.RespondRequest_Allow_{
			Allow: &pb.RespondRequest_Allow{UpdatedInputJson: changed},
		},
	}, nil
}

func (d Deny) respond(session, permissionID string) (*pb.RespondRequest, error) {
	return &pb.RespondRequest{
		SessionId:    session,
		PermissionId: permissionID,
		Decision: &pb.RespondRequest_Deny_{
			Deny: &pb.RespondRequest_Deny{Message: d.Message, Interrupt: d.Interrupt},
		},
	}, nil
}

// request returns the request of a turn, always with a turn id, so that it may be repeated.
func (o *SendOptions) request(blocks []Block) (*pb.SendRequest, error) {
	request := &pb.SendRequest{
		SessionId: o.Session,
		TurnId:    o.TurnID,
		EventOptions: &pb.EventOptions{
			Partial:  o.Partial == nil || *o.Partial,
			Thinking: o.Thinking,
			RawJson:  o.RawJSON,
		},
	}
	if request.TurnId == "" {
		request.TurnId = newID()
	}
	for _, block := range blocks {
		if block == nil {
			return nil, refusal("a block of the message is nil")
		}
		request.Content = append(request.Content, block.content())
	}
	var err error
	if request.Spec, err = o.spec(); err != nil {
		return nil, err
	}
	if request.Limits, err = o.limits(); err != nil {
		return nil, err
	}
	if o.KeepRunning {
		request.OnDisconnect = pb.DisconnectPolicy_DISCONNECT_POLICY_CONTINUE
	}
	return request, checked(request)
}

// checked returns the error of a request that cannot be sent.
func checked(request proto.Message) error {
	// Here, because gRPC has INTERNAL for text that is not UTF-8, as for a stream that breaks.
	data, err := proto.Marshal(request)
	if err != nil {
		return refusal("the request cannot be sent: %v", err)
	}
	if len(data) > maxRequest {
		what := fmt.Sprintf("is %d bytes, more than %d", len(data), maxRequest)
		return violation("", "the request "+what)
	}
	return nil
}

// spec returns what the session is made with, nil if it is not to be made.
func (o *SendOptions) spec() (*pb.SessionSpec, error) {
	policies := map[PermissionPolicy]pb.PermissionPolicy{
		"":             pb.PermissionPolicy_PERMISSION_POLICY_UNSPECIFIED,
		PermissionDeny: pb.PermissionPolicy_PERMISSION_POLICY_DENY,
		PermissionAsk:  pb.PermissionPolicy_PERMISSION_POLICY_ASK,
	}
	policy, ok := policies[o.PermissionPolicy]
	if !ok {
		return nil, refusal("a permission policy is deny or ask, not %q", o.PermissionPolicy)
	}
	spec := &pb.SessionSpec{
		Profile:            o.Profile,
		Model:              o.Model,
		AppendSystemPrompt: o.AppendSystemPrompt,
		PermissionPolicy:   policy,
		Labels:             o.Labels,
	}
	named := o.Session != "" && (o.Create == nil || *o.Create)
	if !named && proto.Size(spec) == 0 {
		return nil, nil
	}
	return spec, nil
}

// limits returns the bounds of the turn, nil if there are none.
func (o *SendOptions) limits() (*pb.Limits, error) {
	switch {
	case o.TurnTimeout < 0:
		return nil, violation("turn_timeout", "must be above 0")
	case o.MaxAgentSteps < 0:
		return nil, violation("max_agent_steps", "must not be negative")
	case o.TurnTimeout == 0 && o.MaxAgentSteps == 0:
		return nil, nil
	}
	limits := &pb.Limits{MaxAgentSteps: int32(min(o.MaxAgentSteps, 1<<31-1))}
	if o.TurnTimeout > 0 {
		limits.TurnTimeout = durationpb.New(min(o.TurnTimeout, longest))
	}
	return limits, nil
}

// newID returns a random UUID, of version 4.
func newID() string {
	var b [16]byte
	// It never fails (crypto/rand of Go 1.24).
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// or returns a value, or another one if it is empty.
func or(value, usual string) string {
	if value == "" {
		return usual
	}
	return value
}
