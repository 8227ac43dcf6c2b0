#!/bin/sh
# session-lock for POSIX sh, with curl 7.55 or later and no jq: copy this file into the bot's
# folder, and source it. Each function stores the JSON answer in $session_lock_answer. It returns 0
# for yes, 1 for no (held, duplicate, lost), and 2 for no answer or a refusal, which it prints. A
# shell has one lease at a time.

# session_lock_acquire DEVICE PROSPECT [MESSAGE_ID [WAIT_MS [TTL_MS]]]; a ttl of 3 s or more
session_lock_acquire() {
    session_lock_message=${3-}
    session_lock_ttl_ms=${5:-30000}
    session_lock_session="\"id_device\":$(session_lock_quote "$1"),\"id_prospect\":$(session_lock_quote "$2")"
    session_lock_digits=$(head -c 4096 /dev/urandom | LC_ALL=C tr -dc 0-9 | cut -c 1-20)
    session_lock_session="$session_lock_session,\"owner_token\":\"$session_lock_digits\""
    session_lock_ask acquire granted "$(session_lock_name_message "$session_lock_message")\
,\"wait_ms\":${4:-0},\"ttl_ms\":$session_lock_ttl_ms" $((${4:-0} / 1000 + 10)) || return
    session_lock_shell=$(exec sh -c 'echo $PPID') # in a subshell, $$ is its parent
    (session_lock_keep) </dev/null >/dev/null 2>&1 &
    session_lock_keeper=$!
}

# Renews the lease in the background until its release, its loss, or the end of the shell.
session_lock_keep() {
    while sleep $((session_lock_ttl_ms / 3000)) && kill -0 "$session_lock_shell"; do
        session_lock_renew || [ $? -ne 1 ] || break
    done
}

session_lock_renew() {
    session_lock_ask renew renewed ",\"ttl_ms\":$session_lock_ttl_ms"
}

# session_lock_commit [RESULT [MESSAGE_ID]]; the result is a string, such as the id of the reply
session_lock_commit() {
    session_lock_ask commit committed "$(session_lock_record "$@")"
}

# session_lock_release [RESULT [MESSAGE_ID]]; with the arguments of a commit, it also records the message
session_lock_release() {
    [ -z "${session_lock_keeper-}" ] || kill "$session_lock_keeper" 2>/dev/null || :
    session_lock_keeper=
    session_lock_answer='{"released":false,"reason":"lost"}'
    [ -n "${session_lock_session-}" ] || return 1 # there was no acquire
    session_lock_ask release released "${1+$(session_lock_record "$@")}"
}

session_lock_record() {
    session_lock_name_message "${2:-$session_lock_message}"
    [ -z "${1-}" ] || printf ',"result":%s' "$(session_lock_quote "$1")"
}

session_lock_name_message() { [ -z "$1" ] || printf ',"message_id":%s' "$(session_lock_quote "$1")"; }

session_lock_quote() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

# session_lock_ask OPERATION YES [FIELDS [TIMEOUT]]: repeats the same body, so the same owner token,
# until the server answers yes or no. Tokens are passed through descriptors, because other users can
# see arguments. curl -q reads no ~/.curlrc.
session_lock_ask() {
    session_lock_url=${SESSION_LOCK_URL:-http://127.0.0.1:7099}
    while [ "$session_lock_url" != "${session_lock_url%/}" ]; do session_lock_url=${session_lock_url%/}; done
    # A proxy could read the API token in plain HTTP, and cannot reach this machine's loopback.
    case $session_lock_url/ in
    http:* | https://127.* | https://localhost[:/]* | 'https://[::1]'*) session_lock_direct='*' ;;
    *) session_lock_direct=${no_proxy-${NO_PROXY-}} ;;
    esac
    for session_lock_try in 1 2 3 4 5 6; do
        session_lock_file=$(mktemp)
        session_lock_head=$(curl -q -sS -m "${4:-10}" --noproxy "$session_lock_direct" \
            -D - -o "$session_lock_file" -w '%{http_code}' -H @/dev/fd/3 --data-binary @- \
            "$session_lock_url/v1/$1" 3<<HEADER <<BODY
Authorization: Bearer ${SESSION_LOCK_API_TOKEN-}
HEADER
{$session_lock_session${3-}}
BODY
        ) || session_lock_head=000
        session_lock_status=${session_lock_head##*[!0-9]}
        session_lock_answer=$(cat "$session_lock_file")
        rm -f "$session_lock_file"
        case $session_lock_status$session_lock_answer in
        "200{"*"\"$2\":true"*"}") return 0 ;;
        "409{"*"\"$2\":false"*"}") return 1 ;;
        000* | 200* | 409* | 5*) [ $session_lock_try -lt 6 ] || break ;; # no answer, or not the server's
        *) break ;;
        esac
        session_lock_after=$(printf '%s\n' "$session_lock_head" | tr -d ' \r' | grep -i '^retry-after:[0-9][0-9]*$') || :
        case ${session_lock_after##*:} in
        '') sleep 1 ;;
        [0-5]) sleep "${session_lock_after##*:}" ;;
        *) sleep 5 ;; # no longer, whatever a gateway says
        esac
    done
    echo "session-lock: ${session_lock_status#000} ${session_lock_answer:-no answer}" >&2
    return 2
}

case $0 in *session_lock.sh) # takes acquire, renew, commit r-17, release from standard input
    while read -r operation result message; do
        case $operation in
        acquire) session_lock_acquire "$@" ;;
        *) "session_lock_$operation" ${result:+"$result"} ${message:+"$message"} ;;
        esac
        printf '%s\n' "$session_lock_answer"
    done ;;
esac
