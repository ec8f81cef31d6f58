//! The command line of `duva-tools journal`.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use duva_persist::format::Position;

use super::{Failure, dump::Selection, folder::Folder};

/// What the subcommand for journals is called.
pub(crate) const NAME: &str = "journal";

pub(super) const LIST: &str = "list";
pub(super) const VERIFY: &str = "verify";
pub(super) const DUMP: &str = "dump";
pub(super) const STAT: &str = "stat";

const DIRECTORY: &str = "DIR";
const FOLDER_NAME: &str = "appenddirname";
const SHARD: &str = "shard";
const CORE: &str = "core";
const FROM: &str = "from";
const LIMIT: &str = "limit";
const WIDTH: &str = "width";

/// The command line's description.
pub(crate) fn command() -> Command {
    let subcommand = |name, about| {
        let directory = Arg::new(DIRECTORY)
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("The server's data directory, or the folder of the journal in it");
        let folder_name = Arg::new(FOLDER_NAME)
            .long(FOLDER_NAME)
            .value_name("NAME")
            .default_value("appendonlydir")
            .help("The name of the journal's folder in DIR");
        Command::new(name).about(about).arg(directory).arg(folder_name)
    };
    let option = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let dump = subcommand(DUMP, "Prints the journal, one line a record")
        .arg(option(SHARD, "N", "Only records of this shard").value_parser(value_parser!(u16)))
        .arg(option(CORE, "N", "Only the journals of this core").value_parser(value_parser!(u16)))
        .arg(
            option(FROM, "SEQ:OFFSET", "Only what lies at or behind this place").value_parser(parse_position),
        )
        .arg(option(LIMIT, "N", "At most so many records").value_parser(value_parser!(u64)))
        .arg(
            option(WIDTH, "COLUMNS", "Columns that a command may take before it is cut")
                .default_value("160")
                .value_parser(value_parser!(usize)),
        );
    Command::new(NAME)
        .about("Journals and the shards' snapshots: what they hold, and whether they are sound")
        .after_help("The directory is only read. The exit status is 1 if the journal is damaged, 2 if it cannot be read.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(subcommand(LIST, "Lists the manifest, segments and snapshots"))
        .subcommand(subcommand(VERIFY, "Checks everything that a start checks, and says what would be lost"))
        .subcommand(dump)
        .subcommand(subcommand(STAT, "Counts what the journal holds"))
}

/// The folder that is asked for.
pub(super) fn folder(matches: &ArgMatches) -> Result<Folder, Failure> {
    let directory: &PathBuf = matches.get_one(DIRECTORY).expect("it is required");
    let name: &String = matches.get_one(FOLDER_NAME).expect("it has a default");
    Folder::find(directory, Path::new(name))
}

/// What `dump` is asked for.
pub(super) fn selection(matches: &ArgMatches) -> Selection {
    Selection {
        shard: matches.get_one(SHARD).copied(),
        core: matches.get_one(CORE).copied(),
        from: matches.get_one(FROM).copied().unwrap_or_default(),
        limit: matches.get_one(LIMIT).copied().unwrap_or(u64::MAX),
        width: matches.get_one(WIDTH).copied().expect("it has a default"),
    }
}

fn parse_position(text: &str) -> Result<Position, String> {
    let numbers = text
        .split_once(':')
        .and_then(|(sequence, offset)| Some(Position::new(sequence.parse().ok()?, offset.parse().ok()?)));
    numbers
        .ok_or_else(|| "it is a segment's number, a colon, and an offset in bytes, such as 3:4096".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn positions_are_two_numbers() {
        assert_eq!(parse_position("3:4096"), Ok(Position::new(3, 4096)));
        for wrong in ["", "3", "3:", ":1", "-1:0", "4294967296:0", "1:2:3"] {
            assert!(parse_position(wrong).is_err(), "{wrong}");
        }
    }
}
