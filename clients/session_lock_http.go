package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Fields of a request or of an answer, named as in session-lock's docs/api.md.
type Fields map[string]any

// verdicts names the field of each answer that says yes or no.
var verdicts = map[string]string{"acquire": "granted", "renew": "renewed", "commit": "committed", "release": "released"}

const longestPause = 5 // seconds, if a gateway's Retry-After is longer

// ErrLost says that the lease had ended before: somebody else may have answered.
var ErrLost = errors.New("session-lock: the lease is lost")

// newAttempt draws an owner token. It returns the fields that all requests for one lease share.
func newAttempt(idProspect, idDevice string) Fields {
	token, err := rand.Int(rand.Reader, new(big.Int).Exp(big.NewInt(10), big.NewInt(20), nil))
	if err != nil {
		panic(err) // this machine has no random numbers
	}
	return Fields{"id_prospect": idProspect, "id_device": idDevice, "owner_token": fmt.Sprintf("%020d", token)}
}

// ask repeats the same body, and so the same owner token, until the server answers yes or no. It
// returns when it sent what is answered.
func (attempt Fields) ask(operation string, more Fields) (answer Fields, sent time.Time, err error) {
	for name, value := range attempt {
		more[name] = value
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // a result has 512 bytes at most
	if err := encoder.Encode(more); err != nil {
		return nil, sent, err
	}
	wait, _ := more["wait_ms"].(int64)
	client := &http.Client{Timeout: time.Duration(wait)*time.Millisecond + 10*time.Second}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for try := 1; ; try++ {
		var pause time.Duration
		sent = time.Now()
		answer, pause, err = post(client, operation, body.Bytes())
		if pause == 0 || try == 6 {
			return answer, sent, err
		}
		time.Sleep(pause)
	}
}

// post returns an answer, or after what pause it makes sense to ask again.
func post(client *http.Client, operation string, body []byte) (answer Fields, pause time.Duration, err error) {
	url := os.Getenv("SESSION_LOCK_URL")
	if url == "" {
		url = "http://127.0.0.1:7099"
	}
	request, err := http.NewRequest(http.MethodPost, strings.TrimRight(url, "/")+"/v1/"+operation, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("SESSION_LOCK_API_TOKEN"))
	response, err := client.Do(request)
	if err != nil {
		return nil, time.Second, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, time.Second, err
	}
	status := response.StatusCode
	yesOrNo := status == http.StatusOK || status == http.StatusConflict
	if yesOrNo && json.Unmarshal(text, &answer) == nil && answer[verdicts[operation]] == (status == http.StatusOK) {
		return answer, 0, nil
	}
	pause = time.Second
	seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 64)
	switch {
	case status < 500 && !yesOrNo:
		pause = 0
	case err == nil && seconds > longestPause:
		pause = longestPause * time.Second
	case err == nil:
		pause = time.Duration(seconds)*time.Second + 200*time.Millisecond
	}
	return nil, pause, fmt.Errorf("session-lock: %s: %s", response.Status, bytes.TrimSpace(text))
}
