//! A database that is reached with TLS, with a certificate of its own.

use std::path::{Path, PathBuf};

use mysql::prelude::Queryable;
use session_lock::testing::DATABASE;
use tempfile::TempDir;

use crate::world::{
    DatabaseServer, Engine, Service, Session, World, openssl, run, run_check, tests,
};

tests![
    a_database_is_reached_with_tls_and_only_with_its_own_authority,
    a_database_without_tls_is_refused_when_it_is_required,
    tls_settings_that_cannot_work_are_one_clear_line,
];

/// An authority that signed a server's certificate for 127.0.0.1.
struct Authority(TempDir);

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        authority.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database -keyout server.key -out server.csr");
        std::fs::write(authority.path("ext"), "subjectAltName=IP:127.0.0.1").unwrap();
        authority.openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        openssl(self.0.path(), arguments);
    }

    fn start_server(&self, engine: Engine) -> DatabaseServer {
        let option = |name: &str, file: &str| format!("--ssl-{name}={}", self.path(file).display());
        let options =
            [option("ca", "ca.pem"), option("cert", "server.pem"), option("key", "server.key")];
        DatabaseServer::start_migrated(engine, &options.each_ref().map(String::as_str))
    }
}

fn with_authority(url: &str, path: &Path) -> String {
    format!("{url}?require_ssl=true&root_cert_path={}", path.display())
}

fn a_database_is_reached_with_tls_and_only_with_its_own_authority(world: &World) {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let server = authority.start_server(world.engine);
    let mut admin = server.connect();
    admin.query_drop("CREATE USER bot@'127.0.0.1' REQUIRE SSL").unwrap();
    admin.query_drop(format!("GRANT ALL ON {DATABASE}.* TO bot@'127.0.0.1'")).unwrap();
    let url = server.url(DATABASE).replace("root@", "bot@");

    // This user can log in with TLS only.
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
