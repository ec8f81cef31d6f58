//! What programs and tests around Duva share.

pub mod linearizability;
