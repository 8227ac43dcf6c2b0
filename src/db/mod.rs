//! The database: pooled connections, statements from `sql/`, kinds of errors, health.

mod connection;
mod error;
mod health;
mod kill;
mod pool;
mod statement;
mod table;

pub use connection::{Connection, PacketError, Reply, SYSDATE_IS_NOW, Sysdate, columns};
pub use error::{ErrorKind, cause};
pub use health::ConnectionId;
pub use pool::{Database, Pooled};
pub use statement::{Packet, Statement, Value, Values, quoted};
pub use table::{MESSAGE_TABLE, Table};
