//! Shared by the tests: private databases, the service as a child process, an HTTP client.

mod command;
mod database;
mod endpoint;
mod group;
pub mod old_program;
mod process;
mod proxy;
mod raw_request;
mod reply;
mod requests;
mod rows;
mod schema;
mod service;
mod session;
mod wait;

use std::sync::Mutex;

use mysql::prelude::{FromRow, Queryable};
use session_lock::testing::DATABASE;

pub use command::{Printed, assert_says, binary, migrate, openssl, run, run_check, run_serve};
pub use database::{DatabaseServer, Engine, MariaDb};
pub use endpoint::{Endpoint, Stream, connect_from, free_port, unix_socket};
pub use group::Group;
pub use process::{KillOnDrop, signal};
pub use proxy::{Fault, Proxy};
pub use raw_request::{CLOSE, HEALTHZ, UPGRADE, raw_get, raw_post, raw_post_head};
pub use reply::Reply;
pub use requests::http_agent;
pub use rows::{age, write};
pub use schema::Schema;
pub use service::Service;
pub use session::Session;
pub use wait::{SetOnDrop, TIMEOUT, eventually};

pub const TABLE: &str = "ai_whatsapp_session_nodepath";

pub const MESSAGE_TABLE: &str = "session_lock_message";

/// The path of a test, and the test.
pub type Test<F = fn(&World)> = (&'static str, F);

/// Lists a module's tests: a test that is not listed is dead code, which clippy refuses.
macro_rules! tests {
    (as $test:ty; $($name:ident),+ $(,)?) => {
        pub const TESTS: &[$test] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),+];
    };
    ($($name:ident),+ $(,)?) => {
        $crate::world::tests![as $crate::world::Test; $($name),+];
    };
}
pub(crate) use tests;

/// The service on one of the two databases.
pub struct World {
    pub engine: Engine,
    pub service: Service,
    pub database: DatabaseServer,
    /// Held while a test reads from the database who waits for a row lock.
    row_lock_query: Mutex<()>,
}

impl World {
    pub fn start(engine: Engine) -> Self {
        let database = DatabaseServer::start_migrated(engine, &[]);
        let service = Service::start(&database.url(DATABASE), &[]);
        Self { engine, service, database, row_lock_query: Mutex::new(()) }
    }

    /// Starts another service on the same table, with these flags.
    pub fn serve(&self, flags: &[&str]) -> Service {
        Service::start(&self.database.url(DATABASE), flags)
    }

    /// Starts another service on the same table, with these flags, that reaches the database
    /// through a proxy.
    pub fn serve_through_proxy(&self, flags: &[&str]) -> (Proxy, Service) {
        let proxy = Proxy::start(self.database.address());
        let service = Service::start(&proxy.url(DATABASE), flags);
        (proxy, service)
    }

    /// Creates a private empty schema on the same server.
    pub fn schema(&self) -> Schema<'_> {
        Schema::create(&self.database)
    }

    /// Creates a private schema with the tables.
    pub fn own_table(&self) -> Schema<'_> {
        let schema = self.schema();
        migrate(&schema.url());
        schema
    }

    /// Creates a private schema with the tables, and starts a service on it.
    pub fn own_service(&self, flags: &[&str]) -> (Schema<'_>, Service) {
        let schema = self.own_table();
        let service = Service::start(&schema.url(), flags);
        (schema, service)
    }

    pub fn sql(&self, sql: impl AsRef<str>) {
        write(&mut self.database.connect(), sql.as_ref());
    }

    pub fn rows<T: FromRow>(&self, sql: impl AsRef<str>) -> Vec<T> {
        self.database.connect().query(sql.as_ref()).unwrap()
    }
}
