package samovar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"regexp"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// DefaultTarget is where a samovard listens by default.
const DefaultTarget = "127.0.0.1:50051"

// defaultSession is the name of the session of calls that name none.
const defaultSession = "default"

// local matches targets on this machine, in the forms that gRPC accepts.
var local = regexp.MustCompile(
	`(?i)^(unix(-abstract)?:.*` +
		`|(dns:(///)?)?(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?)$`)

// TLS is what a client trusts and shows, as the contents of PEM files. The zero value trusts the
// system's authorities.
type TLS struct {
	// RootCertificates are the authorities to trust; empty for the system's.
	RootCertificates []byte
	// CertificateChain is a certificate to show, with PrivateKey; empty for none.
	CertificateChain []byte
	// PrivateKey is the key of the certificate to show.
	PrivateKey []byte
	// ServerName is expected in the service's certificate; empty for the name in the target.
	ServerName string
}

// config returns the settings of Go's own TLS.
func (t TLS) config() (*tls.Config, error) {
	config := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if len(t.RootCertificates) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(t.RootCertificates) {
			return nil, refusal("there is no certificate in the root certificates")
		}
	}
	if len(t.CertificateChain) > 0 || len(t.PrivateKey) > 0 {
		pair, err := tls.X509KeyPair(t.CertificateChain, t.PrivateKey)
		if err != nil {
			return nil, refusal("the certificate and its key cannot be used: %v", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// dialOptions returns gRPC's options for both connections of a client.
func dialOptions(target string, secured *TLS) ([]grpc.DialOption, error) {
	trust := insecure.NewCredentials()
	if secured != nil {
		config, err := secured.config()
		if err != nil {
			return nil, err
		}
		trust = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(trust),
		// Retries are this client's: a stock retry would not know what was already read.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
		// By default gRPC looks for a lost service after 1 s, then at intervals of up to 2 min;
		// until then each call fails at once.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 5 * time.Second,
			},
			MinConnectTimeout: 20 * time.Second,
		}),
	}
	if local.MatchString(target) {
		// A proxy on another machine would look for the service on its own machine.
		options = append(options, grpc.WithNoProxy())
	}
	return options, nil
}

// outgoing returns the context of a call for a session.
func (c *Client) outgoing(ctx context.Context, session string) context.Context {
	pairs := []string{"session-id", or(session, defaultSession)}
	if c.credential != "" {
		pairs = append(pairs, "authorization", "Bearer "+c.credential)
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		parent := fmt.Sprintf("00-%s-%s-%s", span.TraceID(), span.SpanID(), span.TraceFlags())
		pairs = append(pairs, "traceparent", parent)
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}
