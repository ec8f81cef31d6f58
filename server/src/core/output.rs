//! Replies on their way out, and the end of connections.
//!
//! One send a connection a turn, never two at once: what is written meanwhile leaves with the next one. A client that
//! does not read is not read from either, and is closed past its output buffer limit.

use duva_net::io::{Io, Token};

use super::{
    Core,
    connection::{Connection, REMOTE_WINDOW_MAX, State},
    replies::Sequence,
};

/// Unread replies up to which a connection always goes on executing.
pub(super) const CHOKE_BYTES_MIN: usize = 1 << 20;

/// Unread replies past which a connection never does. Clients that send a whole pipeline before they read its replies
/// are served as long as these fit.
const CHOKE_BYTES_MAX: usize = 32 << 20;

/// Unread replies of all connections past which [`CHOKE_BYTES_MIN`] is the limit for each.
const CHOKE_BYTES_TOTAL: usize = 256 << 20;

/// Replies of other cores larger than this are asked for a few at a time.
const LARGE_REPLY_BYTES: usize = 64 << 10;

/// How many replies that a sync has let go leave in a turn while the next sync is under way.
const LATE_SENDS: usize = 8;

/// With more of them all leave at once: large batches cost the least, and that many clients keep a core busy.
const LATE_SENDS_MAX: usize = 64;

/// Capacity that an output buffer keeps between uses.
const KEPT_OUTPUT_BYTES: usize = 64 << 10;

/// How many empty output buffers are kept.
const KEPT_OUTPUTS: usize = 256;

impl<I: Io> Core<I> {
    /// Puts a connection among those that have something to send, or to end.
    pub(super) fn mark_dirty(connection: &mut Connection, dirty: &mut Vec<Token>) {
        if !connection.state.any(State::DIRTY) {
            connection.state.insert(State::DIRTY);
            dirty.push(connection.token);
        }
    }

    /// Gives a connection that is about to write replies one of the empty buffers, if it has none.
    #[inline]
    pub(super) fn provide_output(connection: &mut Connection, spare_outputs: &mut Vec<Vec<u8>>) {
        if connection.output.capacity() == 0
            && let Some(buffer) = spare_outputs.pop()
        {
            connection.output = buffer;
        }
    }

    /// Whether a connection has too many unread replies to execute more: any, while none may leave.
    pub(super) fn is_choked(&mut self, token: Token) -> bool {
        let (total, is_ahead) = (self.unread_bytes, self.is_ahead);
        self.connections.get_mut(token).is_some_and(|connection| {
            let unread = connection.output_bytes();
            unread > CHOKE_BYTES_MAX
                || (unread > CHOKE_BYTES_MIN && total > CHOKE_BYTES_TOTAL)
                || (is_ahead && unread > 0)
        })
    }

    /// Sends what was written, in this turn and in those before in which nothing could leave. The first `prompt` dirty
    /// connections have replies from before this turn's commits: they leave now. The others' were let go by a commit, many at
    /// once; while the next sync is under way, for which nobody among them waits, they leave a few a turn, so that reads get their
    /// turn in between.
    pub(super) fn flush(&mut self, prompt: usize) {
        let is_syncing = self.node.log.as_ref().is_some_and(|log| log.is_first_syncing());
        let is_gradual = is_syncing && !self.is_stopping;
        let mut dirty = std::mem::take(&mut self.dirty);
        let late = self.late.len() + dirty.len() - prompt;
        if is_gradual && late > LATE_SENDS && late <= LATE_SENDS_MAX {
            self.late.extend(dirty.drain(prompt..));
        }
        for token in dirty.drain(..) {
            self.flush_one(token);
        }
        let leaving = if is_gradual && late <= LATE_SENDS_MAX { LATE_SENDS } else { usize::MAX };
        for _ in 0..leaving.min(self.late.len()) {
            let token = self.late.pop_front().expect("there are that many");
            self.flush_one(token);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    #[inline]
    fn flush_one(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.state.remove(State::DIRTY);
        if connection.state.any(State::CLOSING) {
            return self.finish_closing(token);
        }
        let unread = connection.unread_bytes();
        self.unread_bytes = self.unread_bytes + unread - connection.counted_bytes;
        connection.counted_bytes = unread;
        if unread as u64 > self.output_limit_bytes && self.is_past_output_limit(token) {
            return self.close(token);
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.state.any(State::SENDING) {
            return;
        }
        if connection.output.is_empty() {
            return self.end_if_done(token);
        }
        let output = std::mem::take(&mut connection.output);
        connection.state.insert(State::SENDING);
        connection.sending_bytes = output.len();
        let socket = connection.socket;
        self.io.send(token, socket, output, 0);
    }

    /// Closes a connection that has nothing left to do and was to close then.
    fn end_if_done(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let waits = State::READY.and(State::FENCED).and(State::HELD_BACK);
        let is_quiet = connection.replies.is_empty() && !connection.state.any(waits);
        let is_last = connection.state.any(State::CLOSE_AFTER_REPLY.and(State::END_OF_INPUT));
        if is_quiet && is_last {
            self.close(token);
        }
    }

    pub(super) fn on_sent(&mut self, token: Token, mut buffer: Vec<u8>, result: Result<usize, i32>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match result {
            Ok(sent) if sent < connection.sending_bytes && sent > 0 => {
                self.node.stats.output_bytes += sent as u64;
                connection.active_ms = self.node.executor.now_ms;
                connection.sending_bytes -= sent;
                let offset = buffer.len() - connection.sending_bytes;
                let socket = connection.socket;
                self.io.send(token, socket, buffer, offset);
                return;
            }
            Ok(sent) => {
                self.node.stats.output_bytes += sent as u64;
                connection.active_ms = self.node.executor.now_ms;
            }
            Err(_) => {}
        }
        connection.state.remove(State::SENDING);
        connection.sending_bytes = 0;
        let unread = connection.unread_bytes();
        self.unread_bytes = self.unread_bytes + unread - connection.counted_bytes;
        connection.counted_bytes = unread;
        buffer.clear();
        if buffer.capacity() <= KEPT_OUTPUT_BYTES && self.spare_outputs.len() < KEPT_OUTPUTS {
            self.spare_outputs.push(buffer);
        }
        if let Err(errno) = result {
            tracing::debug!(id = connection.id, errno, "sending failed");
            return self.close(token);
        }
        if connection.state.any(State::CLOSING) {
            return self.finish_closing(token);
        }
        if connection.is_peer() {
            return self.on_peer_sent(token);
        }
        if !connection.output.is_empty()
            || connection.state.any(State::CLOSE_AFTER_REPLY.and(State::END_OF_INPUT))
        {
            Self::mark_dirty(connection, &mut self.dirty);
        }
        if connection.can_execute() && (!connection.input.is_empty() || connection.stalled.is_some()) {
            Self::mark_ready(connection, &mut self.ready);
        }
    }

    /// Whether a connection's unread replies exceed its class's limit, or have exceeded the soft one for too long.
    fn is_past_output_limit(&mut self, token: Token) -> bool {
        let now_ns = self.clock.monotonic_ns;
        let limit = self.node.config.output_buffer_limits.normal;
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let unread = connection.output_bytes() as u64;
        let is_past_hard = limit.hard_bytes > 0 && unread > limit.hard_bytes;
        if limit.soft_bytes > 0 && unread > limit.soft_bytes {
            connection.soft_limit_since_ns.get_or_insert(now_ns);
        } else {
            connection.soft_limit_since_ns = None;
        }
        let soft_ns = limit.soft_seconds.saturating_mul(1_000_000_000);
        let is_soft_over =
            connection.soft_limit_since_ns.is_some_and(|since| now_ns.saturating_sub(since) >= soft_ns);
        if is_past_hard || is_soft_over {
            tracing::warn!(id = connection.id, unread, "closing a client past client-output-buffer-limit");
            self.node.stats.output_limit_closed += 1;
        }
        is_past_hard || is_soft_over
    }

    /// Unread replies up to which no limit needs to be looked at.
    pub(super) fn set_output_limit(&mut self) {
        let limit = self.node.config.output_buffer_limits.normal;
        let smallest = [limit.hard_bytes, limit.soft_bytes].into_iter().filter(|&bytes| bytes > 0).min();
        self.output_limit_bytes = smallest.unwrap_or(u64::MAX);
    }

    /// Ends a connection: nothing more is executed or sent, and it is freed after its last completion.
    pub(super) fn close(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !connection.state.any(State::CLOSING) {
            connection.state.insert(State::CLOSING);
            connection.input = Vec::new();
            connection.output = Vec::new();
            if connection.is_busy() {
                self.io.shutdown(connection.socket);
            }
            if connection.is_peer() {
                let is_outbound = connection.state.any(State::PEER_OUT);
                self.on_peer_closed(token, is_outbound);
            }
        }
        self.finish_closing(token);
    }

    /// Frees a closing connection once nothing of it is under way.
    pub(super) fn finish_closing(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.is_busy() {
            return;
        }
        self.io.close(connection.socket);
        self.unread_bytes -= connection.counted_bytes;
        if !connection.is_peer() {
            self.node.shared.forget_client(self.node.core);
        }
        self.connections.remove(token);
    }

    /// A reply that was waited for has arrived.
    pub(super) fn complete(&mut self, token: Token, sequence: Sequence, reply: &[u8], ends_fence: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if reply.first() == Some(&b'-') {
            self.node.stats.errors.count(reply);
        }
        Self::provide_output(connection, &mut self.spare_outputs);
        connection.replies.complete(sequence, reply, &mut connection.output);
        if ends_fence {
            connection.state.remove(State::FENCED.and(State::WAITING));
        }
        Self::mark_dirty(connection, &mut self.dirty);
        if !ends_fence {
            // Large replies of other cores are asked for a few at a time.
            let window = connection.remote_window;
            connection.remote_window = if reply.len() > LARGE_REPLY_BYTES {
                (window / 2).max(8)
            } else {
                (window + 1).min(REMOTE_WINDOW_MAX)
            };
        }
        let goes_on = ends_fence || connection.replies.len() <= connection.remote_window / 2;
        if goes_on
            && connection.can_execute()
            && (!connection.input.is_empty() || connection.stalled.is_some())
        {
            Self::mark_ready(connection, &mut self.ready);
        }
    }

    /// Hands finished replies to their connections.
    pub(super) fn take_deliveries(&mut self) {
        if self.node.deliveries.list.is_empty() {
            return;
        }
        let mut deliveries = std::mem::take(&mut self.node.deliveries);
        for (token, observed) in deliveries.observed.drain(..) {
            self.note_observed(token, observed);
        }
        for delivery in deliveries.list.drain(..) {
            let reply = &deliveries.bytes[delivery.bytes];
            self.complete(delivery.token, delivery.sequence, reply, delivery.ends_fence);
        }
        deliveries.bytes.clear();
        deliveries.bytes.shrink_to(1 << 20);
        self.node.deliveries = deliveries;
    }
}
