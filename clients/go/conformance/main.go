// Command conformance is the Go client behind the lines of clients/conformance.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"samovar.invalid/samovar"
)

type call struct { // a line; its options are beside its other words
	ID, Of, HoldAfter, LeaveAfter                                        int
	Call, Client, Target, Credential, Service, PermissionID, Traceparent string
	AfterSequence                                                        int64
	TLS                                                                  map[string]string
	Content                                                              []block
	Permissions                                                          any
	samovar.SendOptions
	samovar.Allow
	samovar.Deny
	ctx        context.Context
	leave      context.CancelFunc
	gate, over chan struct{} // closed by go_on, and at the end
}

type block struct {
	Text, Image, Document, Title string
	MediaType                    string `json:"media_type"`
	Times                        int
}

var (
	clients, calls sync.Map
	output         sync.Mutex
	hump           = regexp.MustCompile("([a-z0-9])([A-Z])")
	single         = map[string]string{"interrupt": "was_running", "close_session": "existed",
		"health": "status", "list_sessions": "sessions", "count": "running"}
)

func main() {
	for lines := json.NewDecoder(os.Stdin); ; {
		given, words := map[string]any{}, map[string]any{}
		if lines.Decode(&given) != nil {
			break
		}
		options, _ := given["options"].(map[string]any)
		maps.Copy(given, options)
		for name, value := range given {
			if name == "deadline" || name == "turn_timeout" {
				value = time.Duration(value.(float64) * float64(time.Second))
			}
			words[strings.ReplaceAll(name, "_", "")] = value
		}
		c := &call{gate: make(chan struct{}), over: make(chan struct{})}
		text, _ := json.Marshal(words)
		if err := json.Unmarshal(text, c); err != nil {
			panic(err)
		}
		if c.Permissions != nil {
			c.OnPermission = c.decide
		}
		carrier := propagation.MapCarrier{"traceparent": c.Traceparent}
		ctx := propagation.TraceContext{}.Extract(context.Background(), carrier)
		c.ctx, c.leave = context.WithCancel(ctx)
		calls.Store(c.ID, c)
		go c.answer()
	}
	clients.Range(func(_, client any) bool { return client.(*samovar.Client).Close() == nil })
}

func (c *call) say(name string, what any) {
	output.Lock()
	defer output.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"id": c.ID, name: what})
}

func (c *call) answer() {
	defer close(c.over)
	defer c.leave()
	done, err := c.run()
	failed := &samovar.Error{}
	if errors.As(err, &failed) {
		fields := plain(reflect.ValueOf(failed)).(map[string]any)
		more, _ := fields["failure"].(map[string]any)
		delete(fields, "failure")
		maps.Copy(fields, more)
		c.say("failed", fields)
	} else if name := single[c.Call]; name != "" {
		c.say("done", map[string]any{name: plain(reflect.ValueOf(done))})
	} else {
		c.say("done", plain(reflect.ValueOf(done))) // without more, too, if its stream was left
	}
}

func (c *call) run() (any, error) {
	found, _ := calls.Load(c.Of)
	other, _ := found.(*call)
	opened, _ := clients.Load(c.Client)
	client, _ := opened.(*samovar.Client)
	switch nothing := struct{}{}; c.Call {
	case "open":
		return nothing, c.open()
	case "close":
		return nothing, client.Close()
	case "send":
		return nothing, c.follow(client.Send(c.ctx, c.SendOptions, c.blocks()...))
	case "attach":
		options := samovar.AttachOptions{AfterSequence: c.AfterSequence, Deadline: c.Deadline}
		return nothing, c.follow(client.Attach(c.ctx, c.Session, c.TurnID, options))
	case "ask":
		return client.Ask(c.ctx, c.SendOptions, c.blocks()...)
	case "interrupt":
		return client.Interrupt(c.ctx, c.Session, c.TurnID)
	case "allow":
		return nothing, client.Allow(c.ctx, c.Session, c.PermissionID, c.Allow)
	case "deny":
		return nothing, client.Deny(c.ctx, c.Session, c.PermissionID, c.Deny)
	case "get_session":
		return client.GetSession(c.ctx, c.Session)
	case "list_sessions":
		all := []*samovar.Session{}
		for session, err := range client.ListSessions(c.ctx) {
			if err != nil {
				return nil, err
			}
			all = append(all, session)
		}
		return all, nil
	case "close_session":
		return client.CloseSession(c.ctx, c.Session)
	case "health":
		return client.Health(c.ctx, c.Service)
	case "leave":
		other.leave()
		<-other.over
		return nothing, nil
	case "go_on":
		close(other.gate)
		return nothing, nil
	}
	return runtime.NumGoroutine(), nil
}

func (c *call) open() error {
	options := []samovar.Option{
		samovar.WithDeadline(c.Deadline), samovar.WithCredential(c.Credential),
	}
	if c.TLS != nil {
		read := func(name string) []byte { data, _ := os.ReadFile(c.TLS[name]); return data }
		options = append(options, samovar.WithTLS(samovar.TLS{
			RootCertificates: read("ca"), CertificateChain: read("certificate"),
			PrivateKey: read("key"), ServerName: c.TLS["server_name"],
		}))
	}
	client, err := samovar.New(c.Target, options...)
	if err == nil {
		clients.Store(c.Client, client)
	}
	return err
}

func (c *call) blocks() (blocks []samovar.Block) {
	for _, given := range c.Content {
		data, _ := os.ReadFile(given.Image + given.Document)
		switch {
		case given.Image != "":
			blocks = append(blocks, samovar.Image{Data: data, MediaType: given.MediaType})
		case given.Document != "":
			blocks = append(blocks, samovar.Document{Data: data, Title: given.Title})
		default:
			text := strings.Repeat(given.Text, max(given.Times, 1))
			blocks = append(blocks, samovar.Text(text))
		}
	}
	return blocks
}

func (c *call) decide(
	context.Context, *samovar.PermissionRequested,
) (samovar.Decision, error) {
	given, _ := c.Permissions.(map[string]any)
	allow, allows := given["allow"].(map[string]any)
	deny, _ := given["deny"].(map[string]any)
	message, _ := deny["message"].(string)
	if allows || c.Permissions == true {
		return samovar.Allow{UpdatedInput: allow["updated_input"]}, nil
	}
	return samovar.Deny{Message: message, Interrupt: deny["interrupt"] == true}, nil
}

func (c *call) follow(turn *samovar.Turn, err error) error {
	if err != nil {
		return err
	}
	seen := 0
	for event, err := range turn.Events() {
		if err != nil {
			return err
		}
		fields := plain(reflect.ValueOf(event)).(map[string]any)
		fields["kind"] = snake(reflect.TypeOf(event).Elem().Name())
		c.say("event", fields)
		if seen++; seen == c.LeaveAfter {
			break
		}
		if seen == c.HoldAfter {
			c.say("held", true)
			<-c.gate
		}
	}
	return nil
}

func snake(name string) string {
	return strings.ToLower(hump.ReplaceAllString(name, "${1}_$2"))
}

func plain(v reflect.Value) any {
	v = reflect.Indirect(v)
	if !v.IsValid() {
		return nil
	}
	fields, list := map[string]any{}, []any{}
	switch value := v.Interface().(type) {
	case samovar.Violation:
		return []string{value.Field, value.Description}
	case codes.Code:
		return code.Code(value).String()
	case time.Time:
		return map[bool]any{false: float64(value.UnixNano()) / 1e9}[value.IsZero()]
	case time.Duration:
		return value.Seconds()
	case fmt.Stringer:
		return value.String()
	case []byte:
		return value
	}
	switch v.Kind() {
	case reflect.Slice:
		for _, each := range v.Seq2() {
			list = append(list, plain(each))
		}
		return list
	case reflect.Map:
		for key, each := range v.Seq2() {
			fields[key.String()] = plain(each)
		}
	case reflect.Struct:
		for _, field := range reflect.VisibleFields(v.Type()) {
			if !field.Anonymous {
				fields[snake(field.Name)] = plain(v.FieldByIndex(field.Index))
			}
		}
	default:
		return v.Interface()
	}
	return fields
}
