//! A private MariaDB or MySQL server in a temporary folder, for `dev` and for the tests.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use tempfile::TempDir;

/// How long the server may take to start. On a slow disk, it needs most of this time.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Pause between attempts to connect while the server starts.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// The name of the database that is created on the server.
pub const DATABASE: &str = "session_lock";

/// The variable that names the folder of temporary tables. Each server needs its own folder:
/// MariaDB empties the folder at its start, and a server whose temporary tables are deleted
/// crashes.
const TEMPORARY: &str = "TMPDIR";

/// Runs the server. When this process ends, is killed, or closes the pipe, the script stops the
/// server and deletes its folder. $1 is the folder, and the other arguments are the server's
/// command. A server that takes more than 20 s to stop is killed: its data is no longer needed.
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

/// A private server, which runs until this is dropped.
pub struct PrivateDatabase {
    keeper: Child,
    folder: TempDir,
    command: Vec<OsString>,
}

impl PrivateDatabase {
    /// Starts the server that is installed, MariaDB or MySQL.
    pub fn start_installed() -> Result<Self, String> {
        let program = find_program("mariadbd").or_else(|| find_program("mysqld"));
        let program =
            program.ok_or("no mariadbd or mysqld is installed: apt-get install mariadb-server")?;
        Self::start(&program, &["--skip-networking"])
    }

    /// Starts this `mariadbd` or `mysqld`, with additional options.
    pub fn start(program: &Path, options: &[&str]) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("session-lock-").tempdir();
        let folder =
            folder.map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        initialize(program, folder.path())?;
        let path = folder.path().display();
        let paths = [format!("--socket={path}/socket"), format!("--pid-file={path}/pid")];
        let mut command = vec![program.into()];
        command.extend(common_options(folder.path()).into_iter().chain(paths).map(OsString::from));
        command.extend(options.iter().map(OsString::from));
        let mut database = Self { keeper: keep(folder.path(), &command)?, folder, command };
        database.wait_until_ready()?;
        Ok(database)
    }

    /// Starts the server again on the same data, after it has ended.
    pub fn restart(&mut self) -> Result<(), String> {
        // The keeper deletes the folder if the pipe is closed before the keeper has ended.
        let stdin = self.keeper.stdin.take();
        let _ = self.keeper.wait();
        drop(stdin);
        self.keeper = keep(self.folder.path(), &self.command)?;
        self.wait_until_ready()
    }

    pub fn url(&self) -> String {
        format!("mysql://root@localhost/{DATABASE}?socket={}/socket", self.folder().display())
    }

    /// The folder with the server's data, socket, log and pid.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + START_TIMEOUT;
        let url = self.url().replace(DATABASE, "");
        loop {
            let created = mysql::Conn::new(url.as_str()).and_then(|mut connection| {
                // `migrate` uses this character set for the ids, which have letters of any
                // language.
                let charset = "CHARACTER SET utf8mb4";
                connection.query_drop(format!("CREATE DATABASE IF NOT EXISTS {DATABASE} {charset}"))
            });
            let Err(error) = created else { return Ok(()) };
            let has_ended = self.keeper.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || Instant::now() > until {
                let log = std::fs::read_to_string(self.folder().join("server.log"));
                let log = log.unwrap_or_default();
                return Err(format!("the private database does not start: {error}\n{log}"));
            }
            thread::sleep(CONNECT_INTERVAL);
        }
    }
}

impl Drop for PrivateDatabase {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Starts the server in its own process group, which Ctrl-C does not reach: the service ends first,
/// and then stops the server.
fn keep(folder: &Path, command: &[OsString]) -> Result<Child, String> {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(folder).args(command).env(TEMPORARY, folder);
    keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.process_group(0).spawn().map_err(|error| format!("cannot run sh: {error}"))
}

/// Creates the system tables.
fn initialize(program: &Path, folder: &Path) -> Result<(), String> {
    let version = Command::new(program).arg("--version").output();
    let version = version.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let is_mariadb = String::from_utf8_lossy(&version.stdout).contains("MariaDB");
    let (installer, options): (_, &[&str]) = if is_mariadb {
        // An installer in the server's folder has the server's version.
        let own = program.with_file_name("mariadb-install-db");
        let installer = Some(own).filter(|own| own.is_file());
        (
            installer
                .or_else(|| find_program("mariadb-install-db"))
                .ok_or("mariadb-install-db is missing: apt-get install mariadb-server")?,
            // --force skips the lookup of the machine's own name.
            &["--auth-root-authentication-method=normal", "--force", "--skip-test-db"],
        )
    } else {
        (program.to_owned(), &["--initialize-insecure"])
    };
    let mut install = Command::new(installer);
    install.args(common_options(folder)).args(options).env(TEMPORARY, folder).stdin(Stdio::null());
    let error = "the private database cannot be set up";
    let output = install.output().map_err(|cause| format!("{error}: {cause}"))?;
    if output.status.success() {
        return Ok(());
    }
    let log = [output.stdout, output.stderr].concat();
    Err(format!("{error} ({}):\n{}", output.status, String::from_utf8_lossy(&log)))
}

/// The options of the server and of its installer. `--no-defaults` must be the first one.
fn common_options(folder: &Path) -> Vec<String> {
    let mut options =
        vec!["--no-defaults".to_owned(), format!("--datadir={}/data", folder.display())];
    // Without this option, database servers refuse to run as root.
    options.extend(rustix::process::getuid().is_root().then(|| "--user=root".to_owned()));
    options
}

/// Finds a program on PATH or in Debian's folders for servers, which PATH may lack.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(servers);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
