//! A database with TLS and its own certificate.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use session_lock::testing::DATABASE;
use tempfile::TempDir;

use crate::world::{
    DatabaseServer, Engine, Proxy, Service, Session, World, assert_says, binary, openssl, run,
    run_check, run_serve, tests,
};

tests![
    a_database_is_reached_with_tls_and_only_with_its_own_authority,
    a_certificate_that_is_refused_ends_serve_but_not_below_systemd,
    a_database_without_tls_is_refused_when_it_is_required,
    a_database_with_tls_only_says_so,
    tls_settings_that_cannot_work_are_one_clear_line,
];

/// An authority that signed a server's certificate for 127.0.0.1 and `database.test`.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        authority.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database -keyout server.key -out server.csr");
        std::fs::write(authority.path("ext"), "subjectAltName=IP:127.0.0.1,DNS:database.test")
            .unwrap();
        authority.openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem");
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        openssl(self.0.path(), arguments);
    }

    pub fn start_server(&self, engine: Engine) -> DatabaseServer {
        let option = |name: &str, file: &str| format!("--ssl-{name}={}", self.path(file).display());
        let options =
            [option("ca", "ca.pem"), option("cert", "server.pem"), option("key", "server.key")];
        DatabaseServer::start_migrated(engine, &options.each_ref().map(String::as_str))
    }
}

pub fn with_authority(url: &str, path: &Path) -> String {
    format!("{url}?require_ssl=true&root_cert_path={}", path.display())
}

fn a_database_is_reached_with_tls_and_only_with_its_own_authority(world: &World) {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let server = authority.start_server(world.engine);
    let mut admin = server.connect();
    admin.query_drop("CREATE USER bot@'127.0.0.1' REQUIRE SSL").unwrap();
    admin.query_drop(format!("GRANT ALL ON {DATABASE}.* TO bot@'127.0.0.1'")).unwrap();
    let url = server.url(DATABASE).replace("root@", "bot@");

    // This user can log in only with TLS.
    let service = Service::start(&with_authority(&url, &authority.path("ca.pem")), &[]);
    let session = Session::new();
    let token = service.hold(&session);
    assert_eq!(service.release(&session, &token).status, 200);

    let plain = run_check(&url);
    assert_eq!(plain.status, Some(1), "{plain:?}");
    assert!(plain.out.contains("login"), "{plain:?}");

    for url in [
        with_authority(&url, &other_authority.path("ca.pem")),
        // The authorities that browsers trust.
        format!("{url}?require_ssl=true"),
    ] {
        let refused = run_check(&url);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        let said = refused.out + &refused.err;
        assert!(said.contains("certificate"), "{said}");
    }
}

fn a_certificate_that_is_refused_ends_serve_but_not_below_systemd(world: &World) {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let server = authority.start_server(world.engine);
    let proxy = Proxy::start(server.address());
    let url = with_authority(&proxy.url(DATABASE), &other_authority.path("ca.pem"));
    let refused = run_serve(&url);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert_says(
        &refused.err,
        &["problem  tls", "the server's certificate is refused", "root_cert_path"],
    );

    // If the service ended, systemd would restart it each second, and the database would block this
    // machine.
    let before = proxy.connections();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _systemd = UnixDatagram::bind(&path).unwrap();
    let mut service = Service::spawn(
        Command::new(binary()).args(["serve", "--database-url", &url]).env("NOTIFY_SOCKET", &path),
    );
    service.wait_for_line("not ready: the server's certificate is refused");
    thread::sleep(Duration::from_secs(6));
    assert!(service.try_wait().is_none());
    service.get("/readyz").assert_refused(503, "unavailable");
    // The pauses are 0.5, 1, 2 and 4 s. The first attempts run in parallel.
    let tries = proxy.connections() - before;
    assert!((2..=8).contains(&tries), "{tries} tries");
    let said = |part: &str| service.log().iter().filter(|line| line.contains(part)).count();
    assert_eq!(said("certificate"), 1, "{:#?}", service.log());
    assert_eq!(said("retrying"), 1, "{:#?}", service.log());
}

fn a_database_without_tls_is_refused_when_it_is_required(world: &World) {
    let authority = Authority::new();
    let option = match world.engine {
        Engine::MariaDb(_) => "--skip-ssl",
        Engine::MySql => "--tls-version=",
    };
    let server = DatabaseServer::start(world.engine, &[option]);
    let url = with_authority(&server.url(DATABASE), &authority.path("ca.pem"));
    let refused = run(&["migrate", "--database-url", &url]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.err.contains("secure connection"), "{refused:?}");
    let refused = run_serve(&url);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert_says(&refused.err, &["problem  tls", "offers no secure connection", "require_ssl"]);
}

fn a_database_with_tls_only_says_so(world: &World) {
    let authority = Authority::new();
    let server = authority.start_server(world.engine);
    let mut admin = server.connect();
    admin.query_drop("CREATE USER bot@'127.0.0.1' IDENTIFIED BY 'pw'").unwrap();
    admin.query_drop(format!("GRANT ALL ON {DATABASE}.* TO bot@'127.0.0.1'")).unwrap();
    admin.query_drop("SET GLOBAL require_secure_transport = 1").unwrap();
    let url = server.url(DATABASE).replace("root@", "bot:pw@");
    let plain = run_serve(&url);
    assert_eq!(plain.status, Some(1), "{plain:?}");
    // MariaDB before 11 only reports that access is denied, so the topic is `login`.
    assert_says(&plain.err, &["problem  ", "require_ssl=true"]);
    let checked = run_check(&with_authority(&url, &authority.path("ca.pem")));
    assert_eq!(checked.status, Some(0), "{checked:?}");
}

fn tls_settings_that_cannot_work_are_one_clear_line(world: &World) {
    let url = world.database.url(DATABASE);
    for (query, said) in [
        ("require_ssl=yes", "neither true nor false"),
        ("root_cert_path=/nowhere/ca.pem", "/nowhere/ca.pem"),
    ] {
        let refused = run(&["check", "--database-url", &format!("{url}?{query}")]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.err.contains(said), "{refused:?}");
        assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
    }
}
