package samovar_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"samovar.invalid/samovar"
)

func ExampleClient_Ask() {
	client, err := samovar.New(samovar.DefaultTarget, samovar.WithDeadline(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	options := samovar.SendOptions{Session: "mine"}
	answer, err := client.Ask(context.Background(), options, samovar.Text("Say hello"))
	var failed *samovar.Error
	switch {
	case errors.Is(err, samovar.SessionBusy):
		fmt.Println("another turn is running")
	case errors.As(err, &failed) && failed.RetryDelay != nil:
		fmt.Println("try again in", *failed.RetryDelay)
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(answer.Text)
	}
}

func ExampleClient_Send() {
	client, err := samovar.New(samovar.DefaultTarget)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	turn, err := client.Send(context.Background(), samovar.SendOptions{}, samovar.Text("Hello"))
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range turn.Events() {
		if err != nil {
			log.Fatal(err)
		}
		if delta, ok := event.(*samovar.TextDelta); ok {
			fmt.Print(delta.Text)
		}
	}
}
