//! Bytes and kernel: the ring, sockets, buffers, request parsing and the cross-core mesh.
//!
//! This crate knows nothing of commands, keys or replies: it delivers bytes and plain argument ranges, and takes
//! bytes back.

#[cfg(not(loom))]
pub mod files;
#[cfg(not(loom))]
pub mod io;
pub mod mesh;
#[cfg(not(loom))]
pub mod resp;
#[cfg(not(loom))]
pub mod ring;
#[cfg(not(loom))]
mod socket;

#[cfg(not(loom))]
pub use socket::Listener;
