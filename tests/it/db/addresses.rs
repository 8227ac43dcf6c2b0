//! Names with several addresses.

use std::process::Command;

use rustix::process::geteuid;
use session_lock::testing::DATABASE;

use super::tls::{Authority, with_authority};
use crate::world::{DatabaseServer, Printed, World, assert_says, binary, tests};

tests![
    a_name_is_tried_address_by_address_until_one_answers,
    with_tls_the_certificate_is_compared_with_the_name,
];

/// Nothing listens at the other addresses: the databases of these tests listen only on 127.0.0.1.
const HOSTS: &str = "::1 several.test\n127.0.0.2 several.test\n127.0.0.1 several.test\n\
    ::1 database.test\n127.0.0.3 database.test\n127.0.0.1 database.test\n\
    ::1 nothing.test\n127.0.0.2 nothing.test\n127.0.0.1 localhost\n";

/// Runs `check` where names have these addresses.
fn check(url: &str) -> Printed {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, HOSTS).unwrap();
    let script = format!(
        "mount --bind {} /etc/hosts && exec {} check --database-url '{url}'",
        hosts.display(),
        binary()
    );
    // A private mount namespace. Users other than root also need a user namespace for it.
    let namespace = if geteuid().is_root() { "-m" } else { "-rm" };
    Command::new("unshare").args([namespace, "sh", "-c", &script]).output().unwrap().into()
}

fn url(server: &DatabaseServer, name: &str) -> String {
    server.url(DATABASE).replace("127.0.0.1", name)
}

fn a_name_is_tried_address_by_address_until_one_answers(world: &World) {
    let found = check(&url(&world.database, "several.test"));
    assert_eq!(found.status, Some(0), "{found:?}");
    let nothing = check(&url(&world.database, "nothing.test"));
    assert_eq!(nothing.status, Some(1), "{nothing:?}");
    assert_says(
        &nothing.out,
        &["cannot be reached", "nothing.test", "127.0.0.2: ", "is it running"],
    );
}

fn with_tls_the_certificate_is_compared_with_the_name(world: &World) {
    let authority = Authority::new();
    let server = authority.start_server(world.engine);
    let url = |name| with_authority(&url(&server, name), &authority.path("ca.pem"));
    let found = check(&url("database.test"));
    assert_eq!(found.status, Some(0), "{found:?}");
    // The certificate also names 127.0.0.1, which is the address of this name.
    let other = check(&url("several.test"));
    assert_eq!(other.status, Some(1), "{other:?}");
    assert_says(&other.out, &["problem  tls", "not valid for name \"several.test\""]);
    let nothing = check(&url("nothing.test"));
    assert_says(&nothing.out, &["cannot be reached", "nothing.test", "is it running"]);
}
