// session-lock for Go 1.19 or later: copy this file and session_lock_http.go into the bot, and
// change their package to the bot's. The old bot's two functions are at the end.
package main

import (
	"context"
	"sync"
	"time"
)

// Lease is renewed in the background until it is released or lost; then its context ends.
type Lease struct {
	context.Context
	end     context.CancelFunc
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
	lease := &Lease{ctx, end, attempt, ttl}
	go func() {
		for time.Sleep(ttl / 3); ctx.Err() == nil; time.Sleep(ttl / 3) {
			lease.Renew()
		}
	}()
	return lease, answer, nil
}

func (l *Lease) Renew() (Fields, error) {
	answer, err := l.attempt.ask("renew", Fields{"ttl_ms": l.ttl.Milliseconds()})
	if answer["renewed"] != true {
		l.end()
	}
	return answer, err
}

// Commit comes right before the sending: unless it is "committed", send nothing.
func (l *Lease) Commit(messageID string, result any) (Fields, error) {
	return l.attempt.ask("commit", Fields{"message_id": messageID, "result": result})
}

func (l *Lease) Release() (Fields, error) {
	l.end()
	return l.attempt.ask("release", Fields{})
}

var leases sync.Map // of the old functions, by conversation

func TryAcquireSession(idProspect, idDevice string) (bool, error) {
	lease, _, err := Acquire(idProspect, idDevice, "", 0, 30*time.Second)
	if lease != nil {
		leases.Store([2]string{idProspect, idDevice}, lease)
	}
	return lease != nil, err
}

// ReleaseSession says ErrLost if the lease had ended before.
func ReleaseSession(idProspect, idDevice string) error {
	lease, found := leases.LoadAndDelete([2]string{idProspect, idDevice})
	if !found {
		return ErrLost
	}
	answer, err := lease.(*Lease).Release()
	if err == nil && answer["released"] != true {
		err = ErrLost
	}
	return err
}
