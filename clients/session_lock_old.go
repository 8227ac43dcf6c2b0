// The old bot's two functions, on session_lock.go and session_lock_http.go: copy this file too, and
// defer ReleaseSession. Until then a lease is renewed, for 15 minutes at most, where the old one ended.
package main

import (
	"sync"
	"time"
)

var (
	mutex  sync.Mutex
	leases = map[[2]string][]*Lease{} // of the old functions, by conversation, the oldest first
)

func TryAcquireSession(idProspect, idDevice string) (bool, error) {
	lease, _, err := Acquire(idProspect, idDevice, "", 0, 30*time.Second)
	if lease != nil {
		key := [2]string{idProspect, idDevice}
		mutex.Lock()
		defer mutex.Unlock()
		leases[key] = append(leases[key], lease)
	}
	return lease != nil, err
}

// ReleaseSession returns ErrLost if the lease had already ended. If this process has several leases of
// the conversation, all but the newest are lost: it takes the oldest, and its last call the live one.
func ReleaseSession(idProspect, idDevice string) error {
	lease := takeOldest([2]string{idProspect, idDevice})
	if lease == nil {
		return ErrLost
	}
	answer, err := lease.Release()
	if err == nil && answer["released"] != true {
		err = ErrLost
	}
	return err
}

func takeOldest(key [2]string) (lease *Lease) {
	mutex.Lock()
	defer mutex.Unlock()
	if of := leases[key]; len(of) > 1 {
		lease, leases[key] = of[0], of[1:]
	} else if len(of) == 1 {
		lease = of[0]
		delete(leases, key)
	}
	return lease
}
