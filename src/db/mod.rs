//! The database: pooled connections, statements from `sql/`, kinds of errors, health.

mod connect;
mod connection;
mod error;
mod health;
mod kill;
mod pool;
mod refusal;
mod statement;
mod table;

pub use connection::{Connection, PacketError, Reply, SYSDATE_IS_NOW, columns};
pub use error::{ErrorKind, Unusable, cause, refusal};
pub use health::{ConnectionId, HANGING_WRITES};
pub use pool::{Database, Pooled};
pub use refusal::{SECRET_DIGITS, TLS};
pub use statement::{
    PACKET_LEAST_BYTES, PACKET_MAX_BYTES, Packet, Statement, Value, Values, quoted,
};
pub use table::{MESSAGE_TABLE, Table};
