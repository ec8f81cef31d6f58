//! Feature levels: what every node of a cluster must understand before one of them may use it.
//!
//! Every node reads the others' logs and frames, so what a version adds to either would stop, or confuse, the nodes that still run
//! an earlier one. So each addition has a level, and nothing of a level leaves a node before the cluster has agreed on it.
//!
//! | level | since | what belongs to it |
//! | --- | --- | --- |
//! | 1 | 0.1.0 | every command of the table, `duva.transaction` and `duva.read`; entries that are commands (tag 1) or ticks (2); frames 1 to 8, with Raft's messages; commands of the meta group 1 to 9, and its states 1 to 3 |
//!
//! Invariants:
//!
//! - The level that is agreed on is part of the meta state, never falls, and is never above what a node of the cluster has said to
//!   speak, so what lies in logs is understood by all who may have to read it.
//! - It is raised once all nodes have said in their entries of the meta state that they speak more, and all of them are linked to the
//!   meta group's leader by processes that say so: not while a node is down that may come back with an earlier version.
//! - A node that speaks less than what is agreed on is not let in, is refused when it dials or is dialled, and does not start on a
//!   directory that knows of that.
//! - A node of a higher level than the agreed one uses nothing of it, so it can go back to its earlier version.
//!
//! **To add something** give it the next level: a row here, [`CURRENT`], and the thing itself, by `Command::of_feature_level`,
//! `Kind::feature_level`, `MetaCommand::feature_level` or [`of_entry`]. Nothing is gated that stays on its node.

use duva_engine::command::Command;

use super::{DecodeError, bytes::Reader};

/// The first level, of which all nodes are that say nothing else.
pub const FIRST: u16 = 1;

/// The level that this version speaks.
pub const CURRENT: u16 = 1;

/// The level of entries with this tag.
pub const fn of_entry(tag: u8) -> u16 {
    match tag {
        1 | 2 => FIRST,
        _ => u16::MAX,
    }
}

/// Why a node of level `own` does not belong to a cluster that has agreed on `agreed`.
pub fn too_old(agreed: u16, own: u16) -> String {
    format!(
        "the cluster has agreed on feature level {agreed}, and this node's version speaks {own}: start a version that speaks \
         {agreed}"
    )
}

/// What a client is told whose command is of level `needed`.
pub fn too_early(name: &str, needed: u16, agreed: u16) -> String {
    format!(
        "ERR '{name}' needs all nodes of the cluster to run a version of feature level {needed}; now at {agreed}"
    )
}

/// Reads a level.
pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let level = reader.u16()?;
    if level < FIRST { Err(DecodeError::Invalid("there is no feature level 0")) } else { Ok(level) }
}

/// What one core may use.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    own: u16,
    agreed: u16,
    /// Commands that are taken to be of a later level than they are.
    newer_commands: &'static [(&'static str, u16)],
    /// Whether nothing is of a later level than what is agreed on: the usual case.
    has_all: bool,
}

impl Features {
    /// Of a node that speaks `own`. Nothing is agreed on but the first level.
    pub fn new(own: u16, newer_commands: &'static [(&'static str, u16)]) -> Self {
        let mut features = Self { own, agreed: FIRST, newer_commands, has_all: false };
        features.agree(FIRST);
        features
    }

    /// The level that this node speaks.
    pub fn own(&self) -> u16 {
        self.own
    }

    /// The level that is agreed on, as far as this core knows.
    pub fn agreed(&self) -> u16 {
        self.agreed
    }

    /// Takes note that the cluster has agreed on a level.
    pub fn agree(&mut self, level: u16) {
        self.agreed = self.agreed.max(level);
        self.has_all = self.own.max(CURRENT) <= self.agreed && self.newer_commands.is_empty();
    }

    /// Whether nothing this node knows is of a later level than what is agreed on. If so, nobody need look at single commands.
    #[inline]
    pub fn has_all(&self) -> bool {
        self.has_all
    }

    /// The level of a command.
    pub fn level_of(&self, command: &Command) -> u16 {
        let newer = self.newer_commands.iter().find(|(name, _)| *name == command.name);
        newer.map_or(command.feature_level, |(_, level)| *level)
    }
}

#[cfg(test)]
mod tests {
    use duva_engine::command;

    use super::{
        super::{
            join::JoinAnswer,
            meta::{MetaCommand, MetaOutcome, MetaRefusal, MetaState, NodeInfo},
        },
        *,
    };

    fn node(number: u8, level: u16) -> NodeInfo {
        NodeInfo { id: [number; 16], host: format!("10.0.0.{number}"), port: 6379, peer_port: 16379, level }
    }

    /// Three nodes of the first level.
    fn state() -> MetaState {
        let mut state = MetaState::genesis([9; 16], 2, 77, 3, node(1, 1));
        for number in [2, 3] {
            assert_eq!(
                state.apply(&MetaCommand::AddNode(node(number, 1))),
                MetaOutcome::Node(u32::from(number))
            );
        }
        state
    }

    fn speaks(state: &mut MetaState, number: u32, level: u16) -> MetaOutcome {
        state.apply(&MetaCommand::SetNodeLevel { number, level })
    }

    #[test]
    fn a_level_is_agreed_on_once_all_nodes_speak_it() {
        let mut state = state();
        assert_eq!(state.level, FIRST);
        let too_high = MetaOutcome::Refused(MetaRefusal::LevelTooHigh);
        assert_eq!(state.apply(&MetaCommand::RaiseLevel(2)), too_high);
        assert_eq!(speaks(&mut state, 1, 2), MetaOutcome::Changed);
        assert_eq!(speaks(&mut state, 2, 3), MetaOutcome::Changed);
        assert_eq!(state.apply(&MetaCommand::RaiseLevel(2)), too_high);
        // One goes back: nothing of what it speaks was used.
        assert_eq!(speaks(&mut state, 1, 1), MetaOutcome::Changed);
        assert_eq!(speaks(&mut state, 1, 1), MetaOutcome::Unchanged);
        assert_eq!(speaks(&mut state, 3, 2), MetaOutcome::Changed);
        assert_eq!(state.apply(&MetaCommand::RaiseLevel(2)), too_high);
        assert_eq!(speaks(&mut state, 1, 2), MetaOutcome::Changed);
        assert_eq!(state.level_of_all(), 2);
        let epoch = state.epoch;
        assert_eq!(state.apply(&MetaCommand::RaiseLevel(2)), MetaOutcome::Changed);
        assert_eq!((state.level, state.epoch), (2, epoch + 1));
        assert_eq!(speaks(&mut state, 4, 2), MetaOutcome::Refused(MetaRefusal::UnknownNode));
    }

    #[test]
    fn what_is_agreed_on_never_falls_and_everybody_speaks_it() {
        let mut state = state();
        for number in 1..=3 {
            speaks(&mut state, number, 3);
        }
        assert_eq!(state.apply(&MetaCommand::RaiseLevel(3)), MetaOutcome::Changed);
        for level in [1, 2, 3] {
            assert_eq!(state.apply(&MetaCommand::RaiseLevel(level)), MetaOutcome::Unchanged);
        }
        let too_low = MetaOutcome::Refused(MetaRefusal::LevelTooLow { agreed: 3 });
        let before = state.clone();
        assert_eq!(speaks(&mut state, 2, 2), too_low);
        assert_eq!(state.apply(&MetaCommand::AddNode(node(4, 2))), too_low);
        // Nor one that is known, and comes back.
        assert_eq!(state.apply(&MetaCommand::AddNode(node(2, 1))), too_low);
        assert_eq!(state, before);
        assert_eq!(state.apply(&MetaCommand::AddNode(node(4, 5))), MetaOutcome::Node(4));
        // The node that spoke least goes, which alone raises nothing.
        assert_eq!((state.level, state.level_of_all()), (3, 3));
        assert_eq!(MetaState::genesis([9; 16], 2, 77, 3, node(1, 4)).level, 4);
    }

    #[test]
    fn states_of_the_first_level_are_as_they_were_before_there_were_levels() {
        let mut state = state();
        assert_eq!(state.encode()[0], 1);
        assert_eq!(speaks(&mut state, 2, 2), MetaOutcome::Changed);
        let bytes = state.encode();
        assert_eq!(bytes[0], 3);
        // Nobody is favoured; level 1 is agreed on; 1, 2 and 1 are spoken.
        assert_eq!(bytes[bytes.len() - 12..], [0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 1, 0]);
        assert_eq!(MetaState::decode(&bytes), Ok(state.clone()));
        let mut none_later = bytes.clone();
        let at = bytes.len() - 4;
        none_later[at] = 1;
        assert!(matches!(MetaState::decode(&none_later), Err(DecodeError::Invalid(_))));
        state.apply(&MetaCommand::Favour(Some(3)));
        assert_eq!(MetaState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn commands_have_these_bytes() {
        assert_eq!(MetaCommand::SetNodeLevel { number: 5, level: 2 }.encode(), [1, 8, 5, 0, 0, 0, 2, 0]);
        assert_eq!(MetaCommand::RaiseLevel(0x0102).encode(), [1, 9, 2, 1]);
        let (plain, later) =
            (MetaCommand::AddNode(node(7, 1)).encode(), MetaCommand::AddNode(node(7, 2)).encode());
        assert_eq!((plain[1], later[1]), (1, 7));
        assert_eq!(later[2..], [&plain[2..], &[2, 0]].concat());
        for wrong in
            [&[1, 9, 0, 0][..], &[1, 8, 5, 0, 0, 0, 0, 0], &[&later[..later.len() - 2], &[1, 0]].concat()]
        {
            assert!(matches!(MetaCommand::decode(wrong), Err(DecodeError::Invalid(_))), "{wrong:?}");
        }
    }

    #[test]
    fn who_joins_is_told_the_levels() {
        let mut state = state();
        speaks(&mut state, 1, 2);
        let snapshot = duva_raft::SnapshotMeta {
            membership: crate::core::groups::genesis_membership(),
            ..Default::default()
        };
        let answer = JoinAnswer { number: 2, state, snapshot };
        assert_eq!(JoinAnswer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn nothing_is_of_a_later_level_than_this_version_speaks() {
        for command in command::every() {
            assert!((FIRST..=CURRENT).contains(&command.feature_level), "{}", command.name);
        }
    }

    #[test]
    fn single_commands_are_looked_at_only_during_an_upgrade() {
        let append = command::lookup(b"append").expect("there is such a command");
        let mut features = Features::new(CURRENT, &[]);
        assert!(features.has_all());
        assert_eq!(features.level_of(append), FIRST);
        features = Features::new(CURRENT + 1, &[("append", CURRENT + 1)]);
        assert!(!features.has_all());
        assert_eq!((features.level_of(append), features.agreed()), (CURRENT + 1, FIRST));
        features = Features::new(CURRENT + 1, &[]);
        assert!(!features.has_all());
        features.agree(CURRENT + 1);
        features.agree(CURRENT);
        assert!(features.has_all() && features.agreed() == CURRENT + 1);
    }
}
