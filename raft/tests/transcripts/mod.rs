//! What runs transcripts: a script's text, its commands, and the cluster that they are about.

#![allow(unreachable_pub, reason = "a module of test programs has no outside")]

pub mod checks;
pub mod commands;
pub mod disk;
pub mod network;
pub mod print;
pub mod replica;
pub mod script;
pub mod show;
pub mod world;
