//! How a transcript shows things: one line each, nothing that could differ from run to run.

use duva_raft::{Body, Entry, EntryKind, Membership, Message, ProposeError, ReplicaId, SnapshotMeta, Write};

/// A time or duration in milliseconds, with as many digits behind the point as it has.
pub fn time(ns: u64) -> String {
    let (whole, rest) = (ns / 1_000_000, ns % 1_000_000);
    if rest == 0 {
        return format!("{whole}ms");
    }
    format!("{whole}.{}ms", format!("{rest:06}").trim_end_matches('0'))
}

/// An entry: index/term and what it is.
pub fn entry(entry: &Entry) -> String {
    let what = match entry.kind {
        EntryKind::Empty => "empty".to_owned(),
        EntryKind::Membership => {
            let decoded = Membership::decode(&entry.payload).expect("a membership as it was encoded");
            format!("membership {}", membership(&decoded))
        }
        EntryKind::Data(_) => payload(&entry.payload),
    };
    format!("{}/{} {what}", entry.index, entry.term)
}

/// A payload, with its length in the place of what is too long to read.
pub fn payload(bytes: &[u8]) -> String {
    match bytes {
        [first, .., _] if bytes.len() > 16 => format!("{}*{}", char::from(*first), bytes.len()),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Entries in brackets.
pub fn entries(list: &[Entry]) -> String {
    format!("[{}]", list.iter().map(entry).collect::<Vec<_>>().join(", "))
}

/// A membership without its empty lists.
pub fn membership(membership: &Membership) -> String {
    let mut parts = vec![format!("voters={}", ids(&membership.voters))];
    if !membership.outgoing.is_empty() {
        parts.push(format!("outgoing={}", ids(&membership.outgoing)));
    }
    if !membership.learners.is_empty() {
        parts.push(format!("learners={}", ids(&membership.learners)));
    }
    parts.join(" ")
}

/// Ids with commas.
pub fn ids(list: &[ReplicaId]) -> String {
    list.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",")
}

/// A message as its sender shows it.
pub fn message(message: &Message) -> String {
    format!("{}->{} {} term={}{}", message.from.0, message.to.0, name(&message.body), message.term, {
        let details = details(&message.body);
        if details.is_empty() { details } else { format!(" {details}") }
    })
}

/// A message's name.
pub fn name(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "pre-vote",
        Body::PreVoteReply { .. } => "pre-vote-reply",
        Body::Vote { .. } => "vote",
        Body::VoteReply { .. } => "vote-reply",
        Body::Append { .. } => "append",
        Body::AppendReply { .. } => "append-reply",
        Body::AppendReject { .. } => "append-reject",
        Body::Heartbeat { .. } => "heartbeat",
        Body::HeartbeatReply { .. } => "heartbeat-reply",
        Body::Snapshot { .. } => "snapshot",
        Body::SnapshotReply { .. } => "snapshot-reply",
        Body::Stale => "stale",
        Body::TimeoutNow => "timeout-now",
        Body::ReadIndex { .. } => "read-index",
        Body::ReadIndexReply { .. } => "read-index-reply",
    }
}

fn details(body: &Body) -> String {
    let vote = |granted: bool| if granted { "granted" } else { "refused" }.to_owned();
    match body {
        Body::PreVote { last_index, last_term } => format!("last={last_index}/{last_term}"),
        Body::PreVoteReply { granted } | Body::VoteReply { granted } => vote(*granted),
        Body::Vote { last_index, last_term, is_transfer } => {
            format!("last={last_index}/{last_term}{}", if *is_transfer { " transfer" } else { "" })
        }
        Body::Append { prev_index, prev_term, commit, entries: list } => {
            format!("prev={prev_index}/{prev_term} commit={commit} {}", entries(list))
        }
        Body::AppendReply { match_index } => format!("match={match_index}"),
        Body::AppendReject { prev_index, hint_index, hint_term } => {
            format!("prev={prev_index} hint={hint_index}/{hint_term}")
        }
        Body::Heartbeat { commit, sent_ns, read_round } => {
            format!("commit={commit} sent={} round={read_round}", time(*sent_ns))
        }
        Body::HeartbeatReply { sent_ns, read_round } => {
            format!("sent={} round={read_round}", time(*sent_ns))
        }
        Body::Snapshot { meta, offset, bytes, is_last } => {
            format!("of {} {}", snapshot(meta), piece(*offset, bytes.len(), *is_last))
        }
        Body::SnapshotReply { index, term, next_offset } => format!("of {index}/{term} next={next_offset}"),
        // A read's number begins at random.
        Body::Stale | Body::TimeoutNow | Body::ReadIndex { .. } => String::new(),
        Body::ReadIndexReply { index, .. } => {
            format!("index={}", index.map_or("none".to_owned(), |index| index.to_string()))
        }
    }
}

/// What a snapshot stands for.
pub fn snapshot(meta: &SnapshotMeta) -> String {
    format!("{}/{} {}", meta.index, meta.term, membership(&meta.membership))
}

/// A piece of a snapshot.
pub fn piece(offset: u64, len: usize, is_last: bool) -> String {
    format!("bytes {offset}..{}{}", offset + len as u64, if is_last { " last" } else { "" })
}

/// What is to be written.
pub fn write(write: &Write) -> String {
    let mut text = format!("write #{}", write.number);
    if let Some(hard_state) = write.hard_state {
        text += &format!(" term={} vote={}", hard_state.term, optional(hard_state.vote));
    }
    if !write.entries.is_empty() {
        text += &format!(" {}", entries(&write.entries));
    }
    text
}

/// A replica, if there is one.
pub fn optional(id: Option<ReplicaId>) -> String {
    id.map_or("none".to_owned(), |id| id.0.to_string())
}

/// Why something is refused.
pub fn refusal(error: ProposeError) -> String {
    match error {
        ProposeError::NotLeader { leader } => format!("not leader (leader: {})", optional(leader)),
        ProposeError::Transferring { to } => format!("transferring to {}", to.0),
        ProposeError::Busy => "busy".to_owned(),
        ProposeError::ChangePending => "change pending".to_owned(),
        ProposeError::InvalidMembership => "invalid membership".to_owned(),
        ProposeError::NotVoter => "not a voter".to_owned(),
    }
}
