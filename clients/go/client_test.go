package samovar

import (
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	pb "samovar.invalid/samovar/samovarv1"
)

// A credential goes over TLS or stays on this machine.
func TestCredentialNeedsTLS(t *testing.T) {
	for target, sent := range map[string]bool{
		"":                           true,
		"127.0.0.1:50051":            true,
		"127.8.9.1:50051":            true,
		"localhost":                  true,
		"LOCALHOST:1":                true,
		"[::1]:50051":                true,
		"dns:///localhost:1":         true,
		"unix:/run/samovar.sock":     true,
		"samovar.test:50051":         false,
		"10.1.2.3:50051":             false,
		"127.0.0.1.test:1":           false,
		"localhost.test:1":           false,
		"dns://10.1.2.3/localhost:1": false,
		"dns:///a.test:1":            false,
		"127.0.0.1:1\nx":             false,
	} {
		client, err := New(target, WithCredential("key"))
		if (err == nil) != sent || (err != nil && !errors.Is(err, InvalidArgument)) {
			t.Errorf("%q: %v", target, err)
		}
		if client != nil {
			_ = client.Close()
		}
		client, err = New("samovar.test:50051", WithCredential("key"), WithTLS(TLS{}))
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
	}
}

// PEM files without what they should have are refused when the client is made.
func TestUnusableTLS(t *testing.T) {
	for _, given := range []TLS{
		{RootCertificates: []byte("no certificate")},
		{CertificateChain: []byte("no certificate"), PrivateKey: []byte("no key")},
		{PrivateKey: []byte("a key without a certificate")},
	} {
		if _, err := New("", WithTLS(given)); !errors.Is(err, InvalidArgument) {
			t.Errorf("the error is %v", err)
		}
	}
	if _, err := New("", WithDeadline(-1)); !errors.Is(err, RequestInvalid) {
		t.Errorf("the error is %v", err)
	}
}

// Calls carry the session, the credential and the active span.
func TestMetadata(t *testing.T) {
	script := &scripted{}
	client := play(t, script, WithCredential("key"))
	if _, err := client.Interrupt(t.Context(), "s", "t"); err != nil {
		t.Fatal(err)
	}
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	})
	traced := trace.ContextWithSpanContext(t.Context(), span)
	if _, err := client.Interrupt(traced, "", "t"); err != nil {
		t.Fatal(err)
	}
	const parent = "00-01000000000000000000000000000000-0200000000000000-01"
	for index, want := range []map[string]string{
		{"session-id": "s", "authorization": "Bearer key", "traceparent": ""},
		{"session-id": "default", "authorization": "Bearer key", "traceparent": parent},
	} {
		for name, value := range want {
			found := append(script.metadata[index].Get(name), "")
			if found[0] != value || len(found) > 2 {
				t.Errorf("%s is %q", name, found)
			}
		}
	}
}

// Sessions are listed page by page, and no page is read after the loop was left.
func TestListing(t *testing.T) {
	script := &scripted{}
	client := play(t, script)
	var names string
	for session, err := range client.ListSessions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names += session.SessionID
	}
	if names != "ss1s2" {
		t.Errorf("the sessions are %s", names)
	}
	for range client.ListSessions(t.Context()) {
		break
	}
	if calls := len(script.seen()); calls != 4 {
		t.Errorf("%d pages were read", calls)
	}
}

// Usage is read by day; zero days are left to the service.
func TestUsage(t *testing.T) {
	script := &scripted{}
	client := play(t, script)
	last := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)
	days, err := client.Usage(t.Context(), time.Time{}, last)
	if err != nil || len(days) != 1 || days[0].Turns != 2 || days[0].Day.Day() != 30 {
		t.Errorf("the days are %+v, %v", days, err)
	}
	request := script.seen()[0].(*pb.GetUsageRequest)
	if request.GetFirstDay() != "" || request.GetLastDay() != "2026-11-30" {
		t.Errorf("the request is %v", request)
	}
	if _, err := readDays([]*pb.DailyUsage{{Day: "Friday"}}); err == nil {
		t.Error("a day that is none is taken")
	}
}

// Health is that of turns by default; no service at all is a failure.
func TestHealth(t *testing.T) {
	client := play(t, &scripted{})
	health, err := client.Health(t.Context(), "")
	if err != nil || health != HealthNotServing || health.String() != "not serving" {
		t.Errorf("the health is %v, %v", health, err)
	}
	nobody, err := New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nobody.Close() }()
	if _, err := nobody.Health(t.Context(), ""); !errors.Is(err, CallBroken) {
		t.Errorf("the error is %v", err)
	}
}
