//! What a core does with the frames that other nodes send it.

use super::frame::{FrameHeader, Kind, LINK_GROUP, META_GROUP};
use crate::core::node::Node;

impl Node {
    /// Takes a frame of the node numbered `from`, for a group of this core or for the core itself. Frames of one core of that node
    /// come in the order in which it sent them.
    pub(in crate::core) fn take_frame(&mut self, from: u32, header: FrameHeader, payload: &[u8]) {
        self.peers.counts.frames_received += 1;
        match header.group {
            META_GROUP => self.take_meta_frame(from, header.kind, payload),
            LINK_GROUP if header.kind == Kind::Gossip => {
                let now_ns = self.groups.as_ref().map_or(0, |groups| groups.now_ns());
                self.take_gossip(from, payload, now_ns);
            }
            LINK_GROUP if header.kind == Kind::Clock => {
                let now_ns = self.groups.as_ref().map_or(0, |groups| groups.now_ns());
                self.take_clock(from, header.flags, payload, now_ns);
            }
            LINK_GROUP => {}
            _ => self.take_group_frame(from, header, payload),
        }
    }
}
