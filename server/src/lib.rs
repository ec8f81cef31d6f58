//! The Duva server: the only place where engine and network meet.
//!
//! [`launch`] turns a configuration into running cores; [`core`] is one core's loop, generic over the world it lives
//! in; [`cluster`] is what there is to a cluster without I/O; [`commands`] are those that concern connections and the server rather than keys; [`storage`] is what is on disk
//! when a server starts.

pub mod cluster;
pub mod commands;
pub mod config;
pub mod core;
pub mod launch;
pub mod logging;
pub mod startup;
pub mod storage;
