//! The RDB format: what snapshots, `dump.rdb` and DUMP write, and what a start and RESTORE read.
//!
//! ```text
//! "REDIS" and four digits of version
//! AUX fields, then for each database SELECTDB, RESIZEDB and its entries:
//!     [EXPIRETIME_MS] [IDLE or FREQ] type, key, value
//! EOF, and eight bytes of checksum over everything before them
//! ```
//!
//! The format lives beside the values because RESTORE is applied here, and each type knows its own form: a type is one
//! function in `value` that writes it and one that reads it. Files are another crate's matter: the writer appends to a
//! buffer that its caller drains, the reader is fed whatever pieces arrive. Invariants:
//!
//! - **Hostile bytes** are an error: never a panic, and never memory beyond a fixed multiple of the bytes
//!   that came, whatever lengths they announce.
//! - **Streams are cut anywhere**: what the reader reports does not depend on where the pieces end.
//! - Redis 7.0 reads what is written here. Versions 1 to 12 are read; types that this server does not have are
//!   refused by name.

mod checksum;
mod error;
mod input;
mod length;
mod lzf;
mod payload;
mod reader;
mod string;
mod value;
mod writer;

pub use checksum::Checksum;
pub use error::{Fault, RdbError, ReadError};
pub use payload::{PayloadError, dump_payload, restore_payload};
pub use reader::{Item, Reader, Visitor};
pub use value::LoadedValue;
pub use writer::{
    RdbOptions, write_aux, write_end, write_entry, write_header, write_resize, write_saved, write_select,
};

/// The version that is written: that of Redis 7.0, which refuses later ones. Strings are the same in all of them.
pub const WRITTEN_VERSION: u16 = 10;

/// The latest version that is read.
pub const READ_VERSION_MAX: u16 = 12;

/// What begins every stream, before its version.
const MAGIC: &[u8; 5] = b"REDIS";

/// The bytes that stand where a value's type could.
mod opcode {
    pub(super) const SLOT_INFO: u8 = 244;
    pub(super) const FUNCTION: u8 = 245;
    pub(super) const FUNCTION_DRAFT: u8 = 246;
    pub(super) const MODULE_AUX: u8 = 247;
    pub(super) const IDLE: u8 = 248;
    pub(super) const FREQUENCY: u8 = 249;
    pub(super) const AUX: u8 = 250;
    pub(super) const RESIZE: u8 = 251;
    pub(super) const EXPIRE_MS: u8 = 252;
    pub(super) const EXPIRE_SECONDS: u8 = 253;
    pub(super) const SELECT: u8 = 254;
    pub(super) const END: u8 = 255;
}

#[cfg(test)]
mod tests;
