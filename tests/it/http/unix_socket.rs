//! Services that listen on a Unix socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use session_lock::testing::DATABASE;

use super::keep_alive::ask_healthz;
use crate::world::{World, run, tests, unix_socket};

tests![a_unix_socket_serves_whom_its_mode_lets_in, a_file_that_is_no_socket_is_not_replaced,];

fn a_unix_socket_serves_whom_its_mode_lets_in(world: &World) {
    let (folder, listen) = unix_socket();
    let path = folder.path().join("lock.sock");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let mut service = world.serve(&["--listen", &listen]);
    assert_eq!(mode(), 0o660);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
    ask_healthz(&mut *service.endpoint.connect()).unwrap();
    // A second service does not replace the socket of a running service.
    let url = world.database.url(DATABASE);
    let second = run(&["serve", "--listen", &listen, "--database-url", &url]);
    assert_eq!(second.status, Some(1), "{second:?}");
    assert!(second.err.contains("another session-lock"), "{second:?}");
    // A service replaces the socket of a service that was killed.
    service.signal("-KILL");
    service.wait();
    assert!(path.exists());
    let mut service = world.serve(&["--listen", &listen, "--socket-mode", "0606"]);
    assert_eq!(mode(), 0o606);
    ask_healthz(&mut *service.endpoint.connect()).unwrap();
    assert_eq!(service.stop(), Some(0));
    assert!(!path.exists(), "it removes its socket");
}

fn a_file_that_is_no_socket_is_not_replaced(world: &World) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "precious").unwrap();
    let listen = format!("unix:{}", file.path().display());
    let refused =
        run(&["serve", "--listen", &listen, "--database-url", &world.database.url(DATABASE)]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.err.contains("is not a socket"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}
