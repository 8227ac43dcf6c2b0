//! Calls on sockets that other libraries own, for which there is no safe interface. All unsafe code
//! of the project is here.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::net::RecvFlags;

/// The file with this number, to be inspected and duplicated.
pub fn borrow<'a>(number: RawFd) -> BorrowedFd<'a> {
    // Safety: nothing is written or closed through this descriptor. If the number is closed
    // meanwhile or given to another file, calls fail or describe that file.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Whether the peer of an idle connection has closed it or has sent anything, such as the reason
/// why it is about to close it.
pub fn is_closed_by_peer(number: RawFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let mut byte = [0_u8; 1];
    let peeked = rustix::net::recv(borrow(number), &mut byte[..], flags);
    !matches!(peeked, Err(rustix::io::Errno::AGAIN))
}

/// How many bytes a connection has received since its start.
pub fn received_bytes(socket: BorrowedFd) -> Option<u64> {
    // Safety: all zeros is a valid `tcp_info`, of which the kernel fills as much as it knows, and
    // no more than the length that it is given. No library reads it.
    let (info, result) = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
        let result = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        (info, result)
    };
    (result == 0).then_some(info.tcpi_bytes_received)
}
