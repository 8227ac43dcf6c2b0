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

// Acquire returns a lease if it is "granted". The message id may be empty.
func Acquire(idProspect, idDevice, messageID string, wait, ttl time.Duration) (*Lease, Fields, error) {
	attempt := newAttempt(idProspect, idDevice)
	wanted := Fields{"wait_ms": wait.Milliseconds(), "ttl_ms": ttl.Milliseconds()}
	if messageID != "" {
		wanted["message_id"] = messageID
	}
	answer, err := attempt.ask("acquire", wanted)
	if answer["granted"] != true {
		return nil, answer, err
	}
	ctx, end := context.WithCancel(context.Background())
	lease := &Lease{ctx, end, time.AfterFunc(remaining(answer), end), attempt, ttl}
	go func() {
		for time.Sleep(ttl / 3); ctx.Err() == nil; time.Sleep(ttl / 3) {
			lease.Renew()
		}
	}()
	return lease, answer, nil
}

func (l *Lease) Renew() (Fields, error) {
	asked := time.Now()
	answer, err := l.attempt.ask("renew", Fields{"ttl_ms": l.ttl.Milliseconds()})
	if answer["renewed"] == true {
		l.expiry.Reset(remaining(answer) - time.Since(asked))
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
	return l.attempt.ask("commit", Fields{"message_id": messageID, "result": result})
}

func (l *Lease) Release() (Fields, error) {
	l.end()
	return l.attempt.ask("release", Fields{})
}

// ReleaseAnswered records the message too: send before it, for at least one reply.
func (l *Lease) ReleaseAnswered(messageID string, result any) (Fields, error) {
	l.end()
	return l.attempt.ask("release", Fields{"message_id": messageID, "result": result})
}
