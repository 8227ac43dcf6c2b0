//! Sockets: the listener, the connections that it accepted, and system calls without a safe
//! interface.

mod connections;
mod listener;
pub mod sockets;

pub use connections::{
    ClientSocket, Connections, cut_off_socket, open_sockets, shut_down, shut_down_all,
};
pub use listener::{Listen, Listener, UNIX_PREFIX, set_timeouts};
