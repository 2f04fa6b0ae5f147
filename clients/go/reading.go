package samovar

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "samovar.invalid/samovar/samovarv1"
)

// read returns the event in a message, nil for a kind that is not known.
func read(e *pb.Event) Event {
	head := Head{e.GetSequence(), at(e.GetTime()), e.GetParentToolUseId(), e.GetRawJson()}
	switch kind := e.GetKind().(type) {
	case *pb.Event_TurnStarted:
		return readStarted(head, kind.TurnStarted)
	case *pb.Event_AgentInfo:
		m := kind.AgentInfo
		return &AgentInfo{head, m.GetModel(), m.GetAgentVersion(), m.GetTools()}
	case *pb.Event_TextDelta:
		m := kind.TextDelta
		return &TextDelta{head, m.GetMessageId(), m.GetBlockIndex(), m.GetText()}
	case *pb.Event_ThinkingDelta:
		m := kind.ThinkingDelta
		return &ThinkingDelta{head, m.GetMessageId(), m.GetBlockIndex(), m.GetText()}
	case *pb.Event_BlocksAbandoned:
		m := kind.BlocksAbandoned
		return &BlocksAbandoned{head, m.GetMessageId(), m.GetFromBlockIndex()}
	case *pb.Event_ToolUse:
		return readToolUse(head, kind.ToolUse)
	case *pb.Event_ToolResult:
		return readToolResult(head, kind.ToolResult)
	case *pb.Event_PermissionRequested:
		return readRequested(head, kind.PermissionRequested)
	case *pb.Event_PermissionResolved:
		m := kind.PermissionResolved
		return &PermissionResolved{head, m.GetPermissionId(), Resolution(m.GetResolution())}
	case *pb.Event_UsageUpdated:
		return &UsageUpdated{head, readUsage(kind.UsageUpdated)}
	case *pb.Event_Notice:
		return &Notice{head, kind.Notice.GetCode(), kind.Notice.GetMessage()}
	case *pb.Event_TurnFinished:
		return readFinished(head, kind.TurnFinished)
	case *pb.Event_Unrecognized:
		return &Unrecognized{head, kind.Unrecognized.GetType(), kind.Unrecognized.GetSubtype()}
	}
	return nil
}

func readStarted(head Head, m *pb.TurnStarted) Event {
	return &TurnStarted{
		Head:        head,
		SessionID:   m.GetSessionId(),
		TurnID:      m.GetTurnId(),
		StartMode:   StartMode(m.GetStartMode()),
		ProcessID:   m.GetProcessId(),
		PID:         m.GetPid(),
		ProcessTurn: m.GetProcessTurn(),
	}
}

func readToolUse(head Head, m *pb.ToolUse) Event {
	return &ToolUse{
		Head:                head,
		ToolUseID:           m.GetToolUseId(),
		ToolName:            m.GetToolName(),
		InputJSON:           m.GetInputJson(),
		InputTruncatedBytes: m.GetInputTruncatedBytes(),
	}
}

func readToolResult(head Head, m *pb.ToolResult) Event {
	return &ToolResult{
		Head:               head,
		ToolUseID:          m.GetToolUseId(),
		Text:               m.GetText(),
		TextTruncatedBytes: m.GetTextTruncatedBytes(),
		IsError:            m.GetIsError(),
	}
}

func readRequested(head Head, m *pb.PermissionRequested) Event {
	return &PermissionRequested{
		Head:                head,
		PermissionID:        m.GetPermissionId(),
		ToolUseID:           m.GetToolUseId(),
		ToolName:            m.GetToolName(),
		InputJSON:           m.GetInputJson(),
		InputTruncatedBytes: m.GetInputTruncatedBytes(),
		Title:               m.GetTitle(),
		Reason:              m.GetReason(),
		ExpireTime:          at(m.GetExpireTime()),
	}
}

func readFinished(head Head, m *pb.TurnFinished) Event {
	byModel := make(map[string]Usage, len(m.GetUsageByModel()))
	for model, usage := range m.GetUsageByModel() {
		byModel[model] = readUsage(usage)
	}
	return &TurnFinished{
		Head:                 head,
		Outcome:              Outcome(m.GetOutcome()),
		Result:               m.GetResult(),
		ResultTruncatedBytes: m.GetResultTruncatedBytes(),
		StopReason:           m.GetStopReason(),
		Errors:               m.GetErrors(),
		UpstreamStatus:       int(m.GetUpstreamStatus()),
		UpstreamRetryDelay:   length(m.GetUpstreamRetryDelay()),
		Usage:                readUsage(m.GetUsage()),
		UsageByModel:         byModel,
		AgentSteps:           m.GetAgentSteps(),
		Timings:              readTimings(m.GetTimings()),
		FailureCause:         FailureCause(m.GetFailureCause()),
	}
}

func readTimings(m *pb.TurnTimings) Timings {
	return Timings{
		ReceiveTime:      at(m.GetReceiveTime()),
		AdmitTime:        at(m.GetAdmitTime()),
		ProcessReadyTime: at(m.GetProcessReadyTime()),
		PromptWriteTime:  at(m.GetPromptWriteTime()),
		FirstEventTime:   at(m.GetFirstEventTime()),
		FirstTextTime:    at(m.GetFirstTextTime()),
		FinishTime:       at(m.GetFinishTime()),
		PermissionWait:   length(m.GetPermissionWait()),
	}
}

func readUsage(m *pb.Usage) Usage {
	return Usage{
		InputTokens:              m.GetInputTokens(),
		OutputTokens:             m.GetOutputTokens(),
		CacheReadInputTokens:     m.GetCacheReadInputTokens(),
		CacheCreationInputTokens: m.GetCacheCreationInputTokens(),
		CostUSD:                  m.GetCostUsd(),
	}
}

// at returns a time, zero if it is absent.
func at(moment *timestamppb.Timestamp) time.Time {
	if moment == nil {
		return time.Time{}
	}
	return moment.AsTime()
}

// length returns a duration, nil if it is absent.
func length(duration *durationpb.Duration) *time.Duration {
	if duration == nil {
		return nil
	}
	found := duration.AsDuration()
	return &found
}
