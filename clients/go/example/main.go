// Command example holds a conversation: each argument is a message, and its answer is printed as
// it comes.
//
//	go run ./example "Say hello" "Say it again"
//
// SAMOVAR_TARGET names the service, SAMOVAR_API_KEY a credential.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"samovar.invalid/samovar"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := converse(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// converse sends messages in one session, one after another.
func converse(ctx context.Context, messages []string) error {
	client, err := samovar.New(
		os.Getenv("SAMOVAR_TARGET"),
		samovar.WithCredential(os.Getenv("SAMOVAR_API_KEY")),
		samovar.WithDeadline(10*time.Minute),
	)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	options := samovar.SendOptions{Session: "example", OnPermission: refuse}
	for _, message := range messages {
		turn, err := client.Send(ctx, options, samovar.Text(message))
		if err != nil {
			return err
		}
		if err := show(turn); errors.Is(err, samovar.SessionBusy) {
			return fmt.Errorf("another turn is running in this session: %w", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// show prints a turn as it comes. Leaving the loop early would interrupt the turn.
func show(turn *samovar.Turn) error {
	for event, err := range turn.Events() {
		if err != nil {
			return err
		}
		switch event := event.(type) {
		case *samovar.TextDelta:
			if event.ParentToolUseID == "" {
				fmt.Print(event.Text)
			}
		case *samovar.ToolUse:
			fmt.Printf("[%s]\n", event.ToolName)
		case *samovar.TurnFinished:
			fmt.Printf("\n(%s, %d tokens)\n", event.Outcome, event.Usage.OutputTokens)
		}
	}
	return nil
}

// refuse denies what needs permission, because no person is there to ask.
func refuse(_ context.Context, asked *samovar.PermissionRequested) (samovar.Decision, error) {
	fmt.Printf("[%s is denied]\n", asked.ToolName)
	return samovar.Deny{Message: "nobody is there to allow it"}, nil
}
