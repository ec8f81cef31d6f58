//! What a core does with the frames that other nodes send it.

use super::frame::FrameHeader;
use crate::core::node::Node;

impl Node {
    /// Takes a frame of the node numbered `from`, for a group of this core or for the core itself. Frames of one core of that node
    /// come in the order in which it sent them.
    pub(in crate::core) fn take_frame(&mut self, _from: u32, _header: FrameHeader, _payload: &[u8]) {
        self.peers.counts.frames_received += 1;
    }
}
