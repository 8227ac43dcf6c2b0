// session-lock for Go 1.19 or later: copy this file and session_lock_http.go into the bot, and
// change their package to the bot's. The old bot's two functions are in session_lock_old.go.
package main

import (
	"context"
	"time"
)

// Lease is renewed in the background until it is released, lost or expired. Then its context ends.
type Lease struct {
	context.Context
	end     context.CancelFunc
	expiry  *time.Timer
	attempt Fields
	ttl     time.Duration
}

// Acquire returns a lease if it is "granted". The message id may be empty. If the lease is lost before
// a late answer is here, the answer is "held".
func Acquire(idProspect, idDevice, messageID string, wait, ttl time.Duration) (*Lease, Fields, error) {
	attempt := newAttempt(idProspect, idDevice)
	wanted := Fields{"wait_ms": wait.Milliseconds(), "ttl_ms": ttl.Milliseconds()}
	if messageID != "" {
		wanted["message_id"] = messageID
	}
	answer, sent, err := attempt.ask("acquire", wanted)
	if answer["granted"] != true {
		return nil, answer, err
	}
	// A late answer, such as after a wait, does not say when the lease began: renew it.
	if time.Since(sent) > ttl/10 {
		var renewed Fields
		renewed, sent, err = attempt.ask("renew", Fields{"ttl_ms": ttl.Milliseconds()})
		if err != nil {
			return nil, nil, err
		}
		if renewed["renewed"] != true {
			return nil, Fields{"granted": false, "reason": "held", "remaining_ms": 0, "waiters": 0}, nil
		}
		answer["remaining_ms"] = renewed["remaining_ms"]
	}
	ctx, end := context.WithCancel(context.Background())
	lease := &Lease{ctx, end, time.AfterFunc(remaining(answer)-time.Since(sent), end), attempt, ttl}
	go func() {
		for time.Sleep(ttl / 3); ctx.Err() == nil; time.Sleep(ttl / 3) {
			lease.Renew()
		}
	}()
	return lease, answer, nil
}

func (l *Lease) Renew() (Fields, error) {
	answer, sent, err := l.attempt.ask("renew", Fields{"ttl_ms": l.ttl.Milliseconds()})
	if answer["renewed"] == true {
		l.expiry.Reset(remaining(answer) - time.Since(sent))
	} else if err == nil {
		l.end()
	}
	return answer, err
}

func remaining(answer Fields) time.Duration {
	ms, _ := answer["remaining_ms"].(float64)
	return time.Duration(ms) * time.Millisecond
}

// Commit must be called right before the reply is sent: unless it is "committed", send nothing.
func (l *Lease) Commit(messageID string, result any) (Fields, error) {
	answer, _, err := l.attempt.ask("commit", Fields{"message_id": messageID, "result": result})
	return answer, err
}

func (l *Lease) Release() (Fields, error) {
	l.end()
	answer, _, err := l.attempt.ask("release", Fields{})
	return answer, err
}

// ReleaseAnswered records the message too: send before it, for at least one reply.
func (l *Lease) ReleaseAnswered(messageID string, result any) (Fields, error) {
	l.end()
	answer, _, err := l.attempt.ask("release", Fields{"message_id": messageID, "result": result})
	return answer, err
}
