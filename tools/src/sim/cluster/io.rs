//! One core's door to its machine, and through it to the others.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
};

use duva_net::io::{Clock, Event, File, FileTask, Io, Socket, Token, Wait};

use super::world::World;
use crate::sim::world::{Leased, Operation};

/// Where a node is reached.
pub(super) fn address_of(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1)
}

/// The machine of node `node`, as its core `core` sees it. A turn submits; the driver decides when the core goes on.
pub(super) struct SimIo {
    /// The node, from 0.
    pub(super) node: usize,
    /// The core's number.
    pub(super) core: usize,
    /// All machines.
    pub(super) world: Rc<RefCell<World>>,
}

impl SimIo {
    fn queue(&mut self, operation: Operation) {
        self.world.borrow_mut().machines[self.node].kernels[self.core].queued.push(operation);
    }
}

impl Io for SimIo {
    type Buffer = Leased;

    fn clock(&mut self) -> Clock {
        self.world.borrow().clock(self.node)
    }

    fn random(&mut self) -> u64 {
        self.world.borrow_mut().random.bits()
    }

    fn accept(&mut self, listener: u32) {
        self.queue(Operation::Accept(listener as usize));
    }

    fn connect(&mut self, ticket: u64, address: SocketAddr) {
        let IpAddr::V4(host) = address.ip() else { panic!("{address} is no node's") };
        let node = usize::from(host.octets()[3]) - 1;
        assert!(
            host == address_of(node) && address.port() == super::world::PEER_PORT,
            "{address} is no node's"
        );
        self.queue(Operation::Connect(ticket, node));
    }

    fn receive(&mut self, connection: Token, socket: Socket) {
        self.queue(Operation::Receive(connection, socket));
    }

    fn receive_into(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, length_max: usize) {
        self.queue(Operation::ReceiveInto(connection, socket, buffer, length_max));
    }

    fn cancel_receive(&mut self, connection: Token) {
        self.queue(Operation::Cancel(connection));
    }

    fn recycle(&mut self, _buffer: Leased) {
        self.world.borrow_mut().recycle(self.node, self.core);
    }

    fn send(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, offset: usize) {
        self.queue(Operation::Send(connection, socket, buffer, offset));
    }

    fn shutdown(&mut self, socket: Socket) {
        self.queue(Operation::Shutdown(socket));
    }

    fn close(&mut self, socket: Socket) {
        self.queue(Operation::Close(socket));
    }

    fn addresses(&mut self, socket: Socket) -> (String, String) {
        (format!("10.0.1.1:{}", socket.0), format!("{}:7000", address_of(self.node)))
    }

    fn set_keepalive(&mut self, _seconds: u32) {}

    fn file_task(&mut self, ticket: u64, task: FileTask) {
        self.world.borrow_mut().give_task(self.node, self.core, ticket, task);
    }

    fn write_file(&mut self, file: File, bytes: &[u8], offset_bytes: u64) -> Result<(), i32> {
        self.world.borrow_mut().write_file(self.node, self.core, file, bytes, offset_bytes)
    }

    fn sync_file(&mut self, ticket: u64, file: File, _is_first: bool) {
        self.world.borrow_mut().begin_sync(self.node, self.core, ticket, file);
    }

    fn wake(&mut self, core: usize) {
        self.queue(Operation::Wake(core));
    }

    fn turn(&mut self, _wait: Wait) {
        self.world.borrow_mut().enter(self.node, self.core);
    }

    fn next_event(&mut self) -> Option<Event<Leased>> {
        self.world.borrow_mut().machines[self.node].kernels[self.core].taken.pop_front()
    }

    fn can_batch(&self) -> bool {
        self.world.borrow().can_batch
    }
}
