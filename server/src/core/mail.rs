//! Batches from other cores, and from this core to itself.

use duva_net::io::Io;

use super::{
    Core,
    batch::{Batch, Locking, Message, Packed, Work},
    node::view,
    request::Request,
};

/// Batches on their way in, and empty ones to swap for them.
#[derive(Default)]
pub(super) struct Mail {
    arrived: Vec<(usize, Batch)>,
    spare: Vec<Batch>,
    /// Whether a batch could not be published for want of a free place.
    unpublished: bool,
}

impl Mail {
    /// Whether a batch waits to be published.
    pub(super) fn has_unpublished(&self) -> bool {
        self.unpublished
    }
}

impl<I: Io> Core<I> {
    /// Takes everything that other cores have sent.
    pub(super) fn take_mail(&mut self) {
        if !self.node.mesh.has_mail() {
            return;
        }
        let mut mail = std::mem::take(&mut self.mail);
        let Mail { arrived, spare, .. } = &mut mail;
        self.node.mesh.receive(|from, batch| {
            let mut taken = spare.pop().unwrap_or_default();
            std::mem::swap(&mut taken, batch);
            arrived.push((from, taken));
        });
        for (from, mut batch) in mail.arrived.drain(..) {
            self.take_batch(from, &mut batch);
            batch.clear();
            mail.spare.push(batch);
        }
        self.mail = mail;
        // Replies made room.
        for token in std::mem::take(&mut self.held_back) {
            if let Some(connection) = self.connections.get_mut(token) {
                Self::mark_ready(connection, &mut self.ready);
            }
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
    }

    fn take_batch(&mut self, from: usize, batch: &mut Batch) {
        self.node.prefetch(batch);
        let mut messages = std::mem::take(&mut batch.messages);
        for message in messages.drain(..) {
            match message {
                Message::Request { token, sequence, packed } => {
                    self.node.serve(from, token, sequence, &mut view(batch, &packed));
                }
                Message::Reply { token, sequence, bytes } => {
                    self.node.outstanding[from] -= 1;
                    self.complete(token, sequence, &batch.bytes[bytes], false);
                }
                Message::Part { gather, locking, work: Work::Admin(request), .. } => {
                    debug_assert!(locking == Locking::None);
                    let reply = self.administer(request);
                    let answer = super::batch::Answer::Admin(Box::new(reply));
                    let origin = super::node::Origin::Gather { core: from, gather, release: false };
                    self.node.respond(origin, answer, &[]);
                }
                Message::Part { gather, locking, work, packed } => {
                    let packed: Packed = packed.expect("a part that executes has a request");
                    let request: Request<'_> = view(batch, &packed);
                    self.node.take_part(from, gather, locking, work, request);
                }
                Message::PartReply { gather, answer, bytes } => {
                    self.node.take_answer(from, gather, answer, &batch.bytes[bytes]);
                }
                Message::Release(transaction) => self.node.release(transaction),
                Message::Connection { socket, is_unix } => self.adopt(socket, is_unix),
            }
        }
        batch.messages = messages;
    }
}
