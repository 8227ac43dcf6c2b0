// The old bot's two functions, on session_lock.go and session_lock_http.go: copy this file too, and
// defer ReleaseSession. Until then a lease is renewed, for 15 minutes at most, where the old one ended.
package main

import (
	"sync"
	"time"
)

var leases sync.Map // the leases of the old functions, by conversation

func TryAcquireSession(idProspect, idDevice string) (bool, error) {
	lease, _, err := Acquire(idProspect, idDevice, "", 0, 30*time.Second)
	if lease != nil {
		leases.Store([2]string{idProspect, idDevice}, lease)
	}
	return lease != nil, err
}

// ReleaseSession returns ErrLost if the lease had already ended.
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
