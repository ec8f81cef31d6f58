//! Batches from other cores, and from this core to itself.

use std::collections::VecDeque;

use duva_net::io::Io;

use super::{
    Core,
    batch::{Batch, Locking, Message, Packed, Work},
    connection::State,
    node::{BATCH_BYTES_MAX, view},
    request::Request,
};

/// Batches on their way in, and empty ones to swap for them.
#[derive(Default)]
pub(super) struct Mail {
    arrived: VecDeque<(usize, Batch)>,
    spare: Vec<Batch>,
    /// Whether a batch could not be published for want of a free place.
    unpublished: bool,
}

impl Mail {
    /// Whether a batch waits to be published, or to be served.
    pub(super) fn has_work(&self) -> bool {
        self.unpublished || !self.arrived.is_empty()
    }
}

impl<I: Io> Core<I> {
    /// Takes everything that other cores have sent, unless nothing may leave: what would be answered waits there.
    pub(super) fn take_mail(&mut self) {
        if self.is_ahead {
            return;
        }
        if self.node.mesh.has_mail() {
            let Mail { arrived, spare, .. } = &mut self.mail;
            self.node.mesh.receive(|from, batch| {
                let mut taken = spare.pop().unwrap_or_default();
                std::mem::swap(&mut taken, batch);
                arrived.push_back((from, taken));
            });
        }
        if self.mail.arrived.is_empty() {
            return;
        }
        self.read_group_clock();
        // A batch that stops (its replies fill a batch of their own) goes on in the next turn, before the later ones.
        while let Some((from, mut batch)) = self.mail.arrived.pop_front() {
            if !self.take_batch(from, &mut batch) {
                self.mail.arrived.push_front((from, batch));
                break;
            }
            batch.clear();
            self.mail.spare.push(batch);
        }
    }

    /// Publishes this turn's batches.
    pub(super) fn send_mail(&mut self) {
        let Self { node, io, .. } = self;
        let wakes = &mut node.stats.wakes;
        let all_sent = node.mesh.publish_all(|core| {
            *wakes += 1;
            io.wake(core);
        });
        self.mail.unpublished = !all_sent;
        self.end_hold_back();
    }

    /// Lets connections go on that have what they lacked. For the others something will come that makes a turn: replies,
    /// a batch's publication, a write's or a sync's end, another core's word.
    fn end_hold_back(&mut self) {
        if self.held_back.is_empty() {
            return;
        }
        let Self { held_back, node, connections, ready, .. } = self;
        held_back.retain(|&(token, lack)| {
            if node.lacks(lack) {
                return true;
            }
            if let Some(connection) = connections.get_mut(token) {
                connection.state.remove(State::HELD_BACK);
                Self::mark_ready(connection, ready);
            }
            false
        });
    }

    /// Serves the messages of `batch` from the first unserved one on; returns whether all are served.
    fn take_batch(&mut self, from: usize, batch: &mut Batch) -> bool {
        self.node.prefetch(batch);
        let mut messages = std::mem::take(&mut batch.messages);
        let mut served = 0;
        let count = messages.len();
        while served < count && self.node.mesh.outgoing(from).replies.len() < BATCH_BYTES_MAX {
            let message = std::mem::take(&mut messages[served]);
            served += 1;
            match message {
                Message::Request { token, sequence, packed, is_ordered } => {
                    self.node.serve(from, token, sequence, is_ordered, &mut view(batch, &packed));
                }
                Message::NearRequest { token, sequence, packed, floor } => {
                    self.node.floor = Some(floor);
                    self.node.serve(from, token, sequence, false, &mut view(batch, &packed));
                    self.node.floor = None;
                }
                Message::Observed { token, observed } => self.note_observed(token, observed),
                Message::Reply { token, sequence, bytes } => {
                    self.node.outstanding[from] -= 1;
                    self.complete(token, sequence, &batch.replies[bytes], false);
                }
                Message::Part { gather, locking, work: Work::Admin(request), .. } => {
                    debug_assert!(locking == Locking::None);
                    let reply = self.administer(request);
                    let answer = super::batch::Answer::Admin(Box::new(reply));
                    let origin = super::node::Origin::Gather { core: from, gather, release: false };
                    self.node.respond(origin, answer, &[]);
                }
                Message::Part { gather, work: Work::GiveBack, .. } => self.node.give_back(from, gather),
                Message::Part { gather, work, packed: None, .. } => self.node.take_writes(from, gather, work),
                Message::Part { gather, locking, work, packed } => {
                    let packed: Packed = packed.expect("a part that executes has a request");
                    let request: Request<'_> = view(batch, &packed);
                    self.node.take_part(from, gather, locking, work, request);
                }
                Message::PartReply { gather, answer, bytes } => {
                    self.node.take_answer(gather, answer, &batch.replies[bytes]);
                }
                Message::Release(transaction) => self.node.release(transaction),
                Message::Journal { is_full } => self.node.note_journal(from, is_full),
                // The turn is what it is for: see `end_hold_back`.
                Message::Relief => {}
                Message::Save(message) => self.node.take_save_message(from, message),
                Message::Connection { socket, is_unix } => self.adopt(socket, is_unix),
                Message::Peer { from, header, bytes } => {
                    self.node.accept_frame(from, header, &batch.bytes[bytes]);
                }
                Message::PeerSilenced { node } => self.node.peer_is_silenced(node),
                Message::PeerConnection { socket, peer } => self.adopt_peer(socket, peer),
                Message::Served => panic!("a message is served once"),
            }
        }
        messages.drain(..served);
        batch.messages = messages;
        batch.messages.is_empty()
    }
}
