//! Sockets: the listener, the connections that it accepted, and system calls without a safe
//! interface.

mod connections;
mod listener;
pub mod sockets;

pub use connections::{Connections, cut_off, cut_off_socket, shut_down};
pub use listener::{Listen, Listener, UNIX_PREFIX, set_timeouts};
