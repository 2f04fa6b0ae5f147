package samovar

import (
	"fmt"
	"time"

	pb "samovar.invalid/samovar/samovarv1"
)

// Session is a session as the service tells of it.
type Session struct {
	// SessionID is the session's name.
	SessionID string
	// State says where the session is in its life.
	State State
	// Profile is the profile that the session was made with.
	Profile string
	// Model is the model that the session was made with; empty for the profile's.
	Model string
	// ActiveTurnID is the running turn; empty if there is none.
	ActiveTurnID string
	// TurnCount is the number of turns begun.
	TurnCount int64
	// Usage is what all turns used.
	Usage Usage
	// CreateTime is when the session was made.
	CreateTime time.Time
	// UpdateTime is when a turn last began or ended.
	UpdateTime time.Time
	// ExpireTime is when the service closes the session, unless a turn begins first.
	ExpireTime time.Time
}

// DailyUsage is what the caller's turns used on a day with a model.
type DailyUsage struct {
	// Day is midnight in UTC.
	Day time.Time
	// Model is empty if it is not known.
	Model string
	// Turns ended with a report.
	Turns int64
	// Usage is the sum of the reports.
	Usage Usage
	// LostTurns are those whose end is not known.
	LostTurns int64
	// LostUsage is an estimate of what the lost turns used.
	LostUsage Usage
}

func readSession(m *pb.SessionInfo) *Session {
	return &Session{
		SessionID:    m.GetSessionId(),
		State:        State(m.GetState()),
		Profile:      m.GetSpec().GetProfile(),
		Model:        m.GetSpec().GetModel(),
		ActiveTurnID: m.GetActiveTurnId(),
		TurnCount:    m.GetTurnCount(),
		Usage:        readUsage(m.GetUsage()),
		CreateTime:   at(m.GetCreateTime()),
		UpdateTime:   at(m.GetUpdateTime()),
		ExpireTime:   at(m.GetExpireTime()),
	}
}

func readDays(days []*pb.DailyUsage) ([]DailyUsage, error) {
	found := make([]DailyUsage, 0, len(days))
	for _, m := range days {
		date, err := time.Parse(time.DateOnly, m.GetDay())
		if err != nil {
			return nil, fmt.Errorf("samovar: the service names a day that is none: %w", err)
		}
		found = append(found, DailyUsage{
			Day:       date,
			Model:     m.GetModel(),
			Turns:     m.GetTurns(),
			Usage:     readUsage(m.GetUsage()),
			LostTurns: m.GetLostTurns(),
			LostUsage: readUsage(m.GetLostUsage()),
		})
	}
	return found, nil
}

// day returns a day as requests have it, empty for none.
func day(moment time.Time) string {
	if moment.IsZero() {
		return ""
	}
	return moment.UTC().Format(time.DateOnly)
}
