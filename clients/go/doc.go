// Package samovar is a client of Samovar, a service that keeps the processes of agents warm for
// sessions.
//
// A Client runs turns: Ask for the answer, Send for the events as they come.
//
//	client, err := samovar.New("127.0.0.1:50051")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	answer, err := client.Ask(ctx, samovar.SendOptions{Session: "mine"}, samovar.Text("Hello"))
//
// Streams that break are joined again where they broke, and give every event once. Every error of
// a call is an *Error, whose Kind says what to do, unless the caller cancelled the context: then it
// is context.Canceled.
package samovar
