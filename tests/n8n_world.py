"""The programs of tests/n8n: n8n, session-lock, and a bot that counts its requests."""
import contextlib, http.client, json, os, signal, socket, sqlite3, subprocess, tempfile, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parent.parent
N8N = ROOT / "target/n8n/node_modules/.bin/n8n"
SERVER = ROOT / "target/debug/session-lock"
WORKFLOW = (ROOT / "clients/n8n.json").read_text()
SHIPPED_URL = "http://127.0.0.1:7099"
WEBHOOK = "/webhook/session-lock-bot"  # the path in clients/README.md
TOKEN = "secret"
START_S = 120  # n8n on a slow machine
N8N_ENVIRONMENT = {
    "N8N_LISTEN_ADDRESS": "127.0.0.1",
    "N8N_DIAGNOSTICS_ENABLED": "false",
    "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
    "N8N_TEMPLATES_ENABLED": "false",
    "N8N_RUNNERS_ENABLED": "false",
    "N8N_ENFORCE_SETTINGS_FILE_PERMISSIONS": "true",
    "EXECUTIONS_DATA_SAVE_ON_SUCCESS": "all",
    "NO_PROXY": "127.0.0.1",
}
FOLDER = Path(tempfile.mkdtemp(prefix="session-lock-n8n-"))
cleanup = contextlib.ExitStack()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, check, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, sqlite3.OperationalError):
            if found := check():
                return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen in {seconds} s: {what}")
        time.sleep(0.1)


def request(port, path, body=None):
    """The status of the answer to a POST of JSON, or to a GET, and its text."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=90)) as connection:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer, answer.read().decode()


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, name, *command, **environment):
        self.log = FOLDER / f"{name}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
        cleanup.callback(self.stop)

    def says(self, words, seconds=START_S):
        def look():
            assert self.child.poll() is None, f"{self.log}: {self.log.read_text()[-2000:]}"
            return words in self.log.read_text()
        eventually(f"{words!r} in {self.log}", look, seconds)

    def stop(self, by=signal.SIGTERM):
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(by)
        self.child.wait()


class SessionLock:
    """A session-lock on the private database that the first one starts."""
    database = None

    def __init__(self, *flags):
        self.port, self.flags = free_port(), flags

    def start(self):
        flags = ["--listen", f"127.0.0.1:{self.port}", *self.flags]
        if SessionLock.database:
            flags += ["--database-url", SessionLock.database]
        command = "serve" if SessionLock.database else "dev"
        self.process = Process(f"session-lock-{self.port}", SERVER, command, *flags)
        self.process.says("INFO  ready")
        if command == "dev":
            lines = self.process.log.read_text().splitlines()
            SessionLock.database = next(line for line in lines if "DATABASE_URL=" in line).split("'")[1]

    def post(self, operation, **fields):
        return json.loads(request(self.port, f"/v1/{operation}", fields)[1])

    def is_held(self, message):
        text = request(self.port, f"/v1/locks/{message['id_device']}/{message['id_prospect']}")[1]
        return json.loads(text)["held"]

    def count(self, metric):
        lines = request(self.port, "/metrics")[1].splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(metric))

    def database_process(self):
        folder = SessionLock.database.partition("socket=")[2].rpartition("/")[0]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, arguments = ((process / file).read_text() for file in ("comm", "cmdline"))
                if name.strip() in ("mariadbd", "mysqld") and folder in arguments:
                    return int(process.name)


class Bot:
    """The server that the workflow's two placeholders call: it counts the calls, and answers as the
    case needs."""

    def __init__(self):
        self.calls, self.behaviour, bot = [], {}, self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path, query = urlsplit(self.path).path, urlsplit(self.path).query
                message = parse_qs(query).get("message", [""])[0]
                bot.calls.append((path, message))
                status, answer = 200, [{"text": "a reply"}]
                if path.startswith("/status/"):
                    status, answer = int(path.split("/")[2]), {"error": {"message": "of the gateway"}}
                elif do := bot.behaviour.get((path, message)):
                    status, answer = do() or (status, answer)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def count(self, path, message):
        return self.calls.count((path, str(message["message_id"])))

    def does(self, path, message, do):
        self.behaviour[path, str(message["message_id"])] = do


class Variant:
    """A copy of the workflow with its own address and another URL of session-lock."""
    all = []

    def __init__(self, name, url, credential=None, urls={}, replace=("", "")):
        self.name, self.path = name, WEBHOOK if name == "shipped" else f"{WEBHOOK}-{name}"
        self.workflow = json.loads(WORKFLOW.replace(SHIPPED_URL, url).replace(*replace))
        self.workflow.update(name=name, id=name)
        nodes = {node["name"]: node for node in self.workflow["nodes"]}
        if name != "shipped":
            nodes["Webhook"]["webhookId"] = name
            nodes["Webhook"]["parameters"]["path"] += f"-{name}"
            for place, path in {"The bot's work": "work", "Send the reply": "send"}.items():
                asked = f"http://127.0.0.1:{bot.port}/{path}?message={{{{ $('Ids').first().json.message_id }}}}"
                parameters = {"method": "POST", "url": f"={asked}"}
                nodes[place].update(type="n8n-nodes-base.httpRequest", typeVersion=4.2, parameters=parameters)
        for node, other in urls.items():
            nodes[node]["parameters"]["url"] = nodes[node]["parameters"]["url"].replace(url, other)
        if credential:
            for node in nodes.values():
                if "/v1/" in node["parameters"].get("url", ""):
                    node["parameters"]["authentication"] = "genericCredentialType"
                    node["parameters"]["genericAuthType"] = "httpHeaderAuth"
                    node["credentials"] = {"httpHeaderAuth": {"id": credential, "name": credential}}
        Variant.all.append(self)

    def deliver(self, message):
        """The status that the provider gets."""
        start = time.monotonic()
        answer, text = request(n8n.port, self.path, message)
        return Told(answer.status, answer.headers.get("Retry-After"), text, time.monotonic() - start)

    def send(self, message, status, execution="success", words=""):
        """Delivers a message, and checks the provider's answer and n8n's execution."""
        before = n8n.last_execution()
        told = self.deliver(message)
        assert told.status == status, f"the provider gets {told}"
        [shown] = n8n.executions(self, before, 1)
        assert shown == execution, f"n8n shows {shown}, not {execution}"
        eventually(f"{words!r} in what n8n shows", lambda: words in n8n.data(before))
        return told


class Told:
    def __init__(self, status, retry_after, text, seconds):
        self.status, self.retry_after, self.text, self.seconds = status, retry_after, text, seconds

    def __repr__(self):
        return f"{self.status} {self.text!r} after {self.seconds:.1f} s, Retry-After {self.retry_after}"


class N8n:
    def __init__(self):
        self.port = free_port()
        self.environment = {**N8N_ENVIRONMENT, "N8N_USER_FOLDER": str(FOLDER), "N8N_PORT": str(self.port)}

    def command(self, *words):
        environment = {**os.environ, **self.environment}
        done = subprocess.run([N8N, *words], env=environment, text=True, capture_output=True)
        assert done.returncode == 0, f"n8n {words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def start(self, variants):
        """Imports the workflows on the command line, as a user would, and starts."""
        (FOLDER / "workflows").mkdir()
        for variant in variants:
            (FOLDER / "workflows" / f"{variant.name}.json").write_text(json.dumps(variant.workflow))
        credentials = []
        for name, token in {"right": TOKEN, "wrong": "another"}.items():
            header = {"name": "Authorization", "value": f"Bearer {token}"}
            credentials.append({"id": name, "name": name, "type": "httpHeaderAuth", "data": header})
        (FOLDER / "credentials.json").write_text(json.dumps(credentials))
        self.command("import:credentials", f"--input={FOLDER / 'credentials.json'}")
        self.command("import:workflow", "--separate", f"--input={FOLDER / 'workflows'}")
        self.command("update:workflow", "--all", "--active=true")
        self.process = Process("n8n", N8N, "start", **self.environment)
        self.process.says("Editor is now accessible")

    def look(self, statement, *values):
        with contextlib.closing(sqlite3.connect(f"file:{FOLDER}/.n8n/database.sqlite?mode=ro", uri=True)) as database:
            return database.execute(statement, values).fetchall()

    def last_execution(self):
        newest = "SELECT coalesce(max(id), 0) FROM execution_entity"
        return eventually("n8n's executions", lambda: self.look(newest))[0][0]

    def executions(self, variant, after, count):
        """The statuses of this many executions after this one, when they have ended."""
        def look():
            rows = self.look("SELECT status FROM execution_entity WHERE workflowId = ? AND id > ? "
                             "AND status NOT IN ('new', 'running', 'waiting')", variant.name, after)
            return len(rows) >= count and [status for [status] in rows]
        return eventually(f"{count} executions of {variant.name}", look, 60)

    def data(self, after):
        """The data that n8n stores about them, a little later than the status."""
        return str(self.look("SELECT data FROM execution_data WHERE executionId > ?", after))


bot, n8n = Bot(), N8n()
