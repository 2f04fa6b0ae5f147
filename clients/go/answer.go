package samovar

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
)

// Answer is what a turn came to.
type Answer struct {
	// Text is the final text, whole.
	Text string
	// TurnID is the turn's id.
	TurnID string
	// Session is the session's name.
	Session string
	// Outcome says how the turn ended.
	Outcome Outcome
	// Usage is what the turn used.
	Usage Usage
	// Timings say where the time went.
	Timings Timings
}

// Ask runs a turn and returns its answer. It fails as Send and Turn.Events do, and with the kind
// TurnFailed if the agent failed.
func (c *Client) Ask(ctx context.Context, options SendOptions, message ...Block) (*Answer, error) {
	turn, err := c.Send(ctx, options, message...)
	if err != nil {
		return nil, err
	}
	made := assembly{session: turn.Session(), turnID: turn.ID(), blocks: map[blockID]*[]string{}}
	for event, err := range turn.Events() {
		if err != nil {
			return nil, err
		}
		made.take(event)
	}
	return made.answer()
}

// blockID names a text block.
type blockID struct {
	message string
	index   int32
}

// assembly makes an answer of a turn's events.
type assembly struct {
	session, turnID string
	blocks          map[blockID]*[]string // the pieces of each
	order           []blockID
	finished        *TurnFinished
}

// take adds the next event.
func (a *assembly) take(event Event) {
	switch event := event.(type) {
	case *TurnStarted:
		a.session, a.turnID = event.SessionID, event.TurnID
	case *TurnFinished:
		a.finished = event
	case *TextDelta:
		if event.ParentToolUseID != "" {
			return // of a sub-agent
		}
		which := blockID{event.MessageID, event.BlockIndex}
		if a.blocks[which] == nil {
			a.blocks[which] = &[]string{}
			a.order = append(a.order, which)
		}
		pieces := a.blocks[which]
		*pieces = append(*pieces, event.Text)
	case *BlocksAbandoned:
		a.abandon(event)
	}
}

// abandon forgets blocks that are void.
func (a *assembly) abandon(event *BlocksAbandoned) {
	kept := a.order[:0]
	for _, which := range a.order {
		if which.message == event.MessageID && which.index >= event.FromBlockIndex {
			delete(a.blocks, which)
		} else {
			kept = append(kept, which)
		}
	}
	a.order = kept
}

// text returns what the blocks contain.
func (a *assembly) text() string {
	var text strings.Builder
	for _, which := range a.order {
		for _, piece := range *a.blocks[which] {
			text.WriteString(piece)
		}
	}
	return text.String()
}

// answer returns the answer of a turn that ended, or the failure of the agent.
func (a *assembly) answer() (*Answer, error) {
	end := a.finished
	if end == nil {
		return nil, &Error{
			Kind: CallBroken, Code: codes.Unknown, Message: "the stream ended before its turn",
		}
	}
	if end.Outcome == OutcomeFailed {
		return nil, &Error{
			Kind:          TurnFailed,
			Code:          codes.Unknown,
			Message:       or(strings.Join(end.Errors, "; "), "the turn failed"),
			PromptWritten: true,
			Failure: &Failure{
				Errors:             end.Errors,
				UpstreamStatus:     end.UpstreamStatus,
				UpstreamRetryDelay: end.UpstreamRetryDelay,
				FailureCause:       end.FailureCause,
			},
		}
	}
	text := end.Result
	if end.ResultTruncatedBytes > 0 || text == "" {
		text = a.text() // a result that was cut is whole in the deltas
	}
	return &Answer{text, a.turnID, a.session, end.Outcome, end.Usage, end.Timings}, nil
}
