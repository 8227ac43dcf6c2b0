package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// A demonstration, not to copy: takes acquire, renew, alive, "commit r-17", release and "release r-17" from
// stdin.
func main() {
	arguments := append(os.Args[1:], "", "", "")
	idDevice, idProspect, messageID := arguments[0], arguments[1], arguments[2]
	wait, _ := time.ParseDuration(arguments[3] + "ms")
	ttl, err := time.ParseDuration(arguments[4] + "ms")
	if err != nil {
		ttl = 30 * time.Second
	}
	var lease *Lease
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var answer any
		words := append(strings.Fields(lines.Text()), "", "")
		if lease == nil && words[0] != "acquire" {
			fmt.Println(`{"reason":"lost"}`)
			continue
		}
		switch words[0] {
		case "acquire":
			lease, answer, err = Acquire(idProspect, idDevice, messageID, wait, ttl)
		case "renew":
			answer, err = lease.Renew()
		case "alive":
			answer = lease.Err() == nil
		case "commit":
			answer, err = lease.Commit(messageID, words[1])
		case "release":
			if words[1] == "" {
				answer, err = lease.Release()
				break
			}
			if words[2] != "" {
				messageID = words[2]
			}
			answer, err = lease.ReleaseAnswered(messageID, words[1])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		line, _ := json.Marshal(answer)
		fmt.Println(string(line))
	}
}
