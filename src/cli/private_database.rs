//! A private MariaDB or MySQL server in a temporary folder, for trying the service out and for
//! its tests.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use tempfile::TempDir;

/// How long the server may take to start; a slow disk needs some of it.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks whether it has started.
const START_PAUSE: Duration = Duration::from_millis(50);

/// The database that is created in it.
pub const DATABASE: &str = "session_lock";

/// Where a server keeps its temporary tables. It must be a server's own: MariaDB begins by deleting
/// all that it finds there, and another server that loses its tables so crashes.
const TEMPORARY: &str = "TMPDIR";

/// Runs the server and ends it, with its folder, when this process closes its end of a pipe:
/// also when it is killed. $1 is the folder, the rest the server's command. A server that takes
/// more than 20 s to end is killed: nobody needs its data.
const KEEPER: &str = r#"
folder=$1; shift
exec 3<&0
"$@" </dev/null >"$folder/server.log" 2>&1 &
server=$!
(
    read -r _ <&3
    : >"$folder/ending"
    kill "$server"
    kill -CONT "$server"
    for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 2; done
    kill -KILL "$server"
) &
reader=$!
wait "$server"
kill "$reader" 2>/dev/null
[ -e "$folder/ending" ] && rm -rf "$folder"
"#;

/// A running private server. It ends when this is dropped.
pub struct PrivateDatabase {
    keeper: Child,
    folder: TempDir,
    command: Vec<OsString>,
}

impl PrivateDatabase {
    /// Starts the server that is installed, MariaDB or MySQL.
    pub fn start_installed() -> Result<Self, String> {
        let program = ["mariadbd", "mysqld"].iter().find_map(|name| find_program(name));
        let program =
            program.ok_or("no mariadbd or mysqld is installed: apt-get install mariadb-server")?;
        Self::start(&program, &["--skip-networking"])
    }

    /// Starts this `mariadbd` or `mysqld`, with these options besides its own.
    pub fn start(program: &Path, options: &[&str]) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("session-lock-").tempdir();
        let folder =
            folder.map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        initialize(program, folder.path())?;
        let mut command = vec![program.into(), "--no-defaults".into()];
        command.extend(user_option().map(OsString::from));
        command.push(path_option("--datadir", &folder.path().join("data")));
        command.push(path_option("--socket", &folder.path().join("socket")));
        command.push(path_option("--pid-file", &folder.path().join("pid")));
        command.extend(options.iter().map(OsString::from));
        let mut database = Self { keeper: keep(folder.path(), &command)?, folder, command };
        database.wait_until_ready()?;
        Ok(database)
    }

    /// Starts a server again that has ended, on the data that it left.
    pub fn restart(&mut self) -> Result<(), String> {
        // Open until the keeper has ended: closed, it would tell it to remove the folder.
        let stdin = self.keeper.stdin.take();
        let _ = self.keeper.wait();
        drop(stdin);
        self.keeper = keep(self.folder.path(), &self.command)?;
        self.wait_until_ready()
    }

    /// How to reach it: through its socket.
    pub fn url(&self) -> String {
        format!(
            "mysql://root@localhost/{DATABASE}?socket={}",
            self.folder.path().join("socket").display()
        )
    }

    /// Where its data, socket, log and pid are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + START_PATIENCE;
        let url = self.url().replace(DATABASE, "");
        loop {
            let connected =
                mysql::Conn::new(mysql::Opts::from_url(&url).map_err(|error| error.to_string())?);
            let created = connected.and_then(|mut conn| {
                conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {DATABASE}"))
            });
            let Err(error) = created else { return Ok(()) };
            let ended = self.keeper.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() > until {
                let log = std::fs::read_to_string(self.folder.path().join("server.log"))
                    .unwrap_or_default();
                return Err(format!("the private database does not start: {error}\n{log}"));
            }
            thread::sleep(START_PAUSE);
        }
    }
}

impl Drop for PrivateDatabase {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Starts the server, with a keeper that ends it with us.
fn keep(folder: &Path, command: &[OsString]) -> Result<Child, String> {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(folder).args(command);
    // Ctrl-C is for us, who end the server in good order.
    keeper
        .env(TEMPORARY, folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    keeper.spawn().map_err(|error| format!("cannot run sh: {error}"))
}

fn initialize(program: &Path, folder: &Path) -> Result<(), String> {
    let version = Command::new(program).arg("--version").output();
    let version = version.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let data = folder.join("data");
    let mut install = if String::from_utf8_lossy(&version.stdout).contains("MariaDB") {
        let tool = find_program("mariadb-install-db");
        let mut install = Command::new(
            tool.ok_or("mariadb-install-db is missing: apt-get install mariadb-server")?,
        );
        install.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            // Where the machine's own name cannot be looked up.
            "--force",
            "--skip-test-db",
        ]);
        install
    } else {
        let mut install = Command::new(program);
        install.args(["--no-defaults", "--initialize-insecure"]);
        install
    };
    install.args(user_option()).arg(path_option("--datadir", &data));
    let log_path = folder.join("install.log");
    let log = File::create(&log_path).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) =
        log.map_err(|error| format!("cannot write {}: {error}", log_path.display()))?;
    let status =
        install.env(TEMPORARY, folder).stdin(Stdio::null()).stdout(out).stderr(err).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            Err(format!("the private database cannot be set up ({status}):\n{log}"))
        }
        Err(error) => Err(format!("the private database cannot be set up: {error}")),
    }
}

/// Database servers refuse to run as root unless they are told to.
fn user_option() -> Option<&'static str> {
    rustix::process::getuid().is_root().then_some("--user=root")
}

fn path_option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

/// Looks along PATH, and where Debian keeps servers, which is not on every user's PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(OsStr::new(name))).find(|program| program.is_file())
}
