<?php
// session-lock for PHP 8.1 or later: copy this file into the bot. It uses PHP's own streams, and no
// extension. PHP has no threads: if the work takes longer than a third of the ttl, it must call
// renew() in time, and stop if the answer is not "renewed".
declare(strict_types=1);

namespace SessionLock;

use RuntimeException;

/** One attempt at one conversation. */
final class Lease
{
    /** The field of each answer that says yes or no. */
    private const VERDICTS =
        ['acquire' => 'granted', 'renew' => 'renewed', 'commit' => 'committed', 'release' => 'released'];
    private const LONGEST_PAUSE = 5; // s, if a gateway's Retry-After is longer
    private array $session;

    public function __construct(string $idDevice, string $idProspect, private ?string $messageId = null,
        private int $waitMs = 0, private int $ttlMs = 30000)
    {
        $ownerToken = sprintf('%010d%010d', random_int(0, 9999999999), random_int(0, 9999999999));
        $this->session = ['id_device' => $idDevice, 'id_prospect' => $idProspect, 'owner_token' => $ownerToken];
    }

    public function acquire(): array
    {
        $times = ['wait_ms' => $this->waitMs, 'ttl_ms' => $this->ttlMs];
        return $this->ask('acquire', ['message_id' => $this->messageId] + $times);
    }

    public function renew(): array
    {
        return $this->ask('renew', ['ttl_ms' => $this->ttlMs]);
    }

    public function commit(mixed $result = null, ?string $messageId = null): array
    {
        return $this->ask('commit', ['message_id' => $messageId ?? $this->messageId, 'result' => $result]);
    }

    /** With the arguments of commit(), it also records the message. */
    public function release(mixed $result = null, ?string $messageId = null): array
    {
        $messageId ??= $result === null ? null : $this->messageId;
        return $this->ask('release', ['message_id' => $messageId, 'result' => $result]);
    }

    /** Repeats the same body, and so the same owner token, until the server answers yes or no. */
    private function ask(string $operation, array $fields = []): array
    {
        if (!ini_get('allow_url_fopen')) {
            throw new RuntimeException('session-lock: session_lock.php needs allow_url_fopen = On in php.ini');
        }
        $url = rtrim(self::setting('SESSION_LOCK_URL') ?: 'http://127.0.0.1:7099', '/') . "/v1/$operation";
        $flags = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES; // a result has 512 bytes at most
        $context = stream_context_create(['http' => [
            'method' => 'POST',
            'header' => "Content-Type: application/json\r\nAuthorization: Bearer " . self::setting('SESSION_LOCK_API_TOKEN'),
            'content' => json_encode(array_filter($this->session + $fields, fn ($value) => $value !== null), $flags),
            'timeout' => $this->waitMs / 1000 + 10,
            'ignore_errors' => true, // a 409 is an answer
            'follow_location' => 0,
        ]]);
        $retryAfter = null;
        foreach ([0, 0.2, 0.5, 1, 2, 4] as $pause) {
            usleep((int) (1e6 * ($retryAfter ?? $pause)));
            error_clear_last();
            $stream = @fopen($url, 'r', false, $context);
            $text = $stream ? stream_get_contents($stream) : '';
            $head = $stream ? implode("\n", stream_get_meta_data($stream)['wrapper_data']) : '';
            $status = preg_match_all('/^HTTP\S+ (\d+)/m', $head, $match) ? (int) end($match[1]) : 0;
            $problem = $status ? "$status " . trim($text) : (error_get_last()['message'] ?? 'no answer');
            if ($status === 200 || $status === 409) {
                $answer = json_decode($text, true);
                if (($answer[self::VERDICTS[$operation]] ?? null) === ($status === 200)) {
                    return $answer;
                }
            } elseif ($status > 0 && $status < 500) {
                throw new RuntimeException("session-lock: $problem");
            }
            $seconds = preg_match('/^Retry-After: *(\d+)\s*$/im', $head, $match) ? (float) $match[1] : null;
            $retryAfter = $seconds === null ? null : min($seconds, self::LONGEST_PAUSE);
        }
        throw new RuntimeException("session-lock at $url: $problem");
    }

    /** Reads the environment: a framework that reads .env may set only $_ENV and $_SERVER. */
    private static function setting(string $name): string
    {
        return ($_ENV[$name] ?? '') ?: ($_SERVER[$name] ?? '') ?: (string) getenv($name);
    }
}

// A demonstration: takes acquire, renew, "commit r-17", release and "release r-17" from stdin.
if (PHP_SAPI === 'cli' && realpath($_SERVER['SCRIPT_FILENAME']) === __FILE__) {
    $lease = new Lease($argv[1], $argv[2], $argv[3] ?? null, (int) ($argv[4] ?? 0), (int) ($argv[5] ?? 30000));
    while ($line = fgets(STDIN)) {
        $words = explode(' ', trim($line));
        $method = array_shift($words);
        echo json_encode($lease->$method(...$words)), "\n";
    }
}
