//! One core's door to the simulated machine.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use duva_net::io::{Clock, Event, File, FileTask, Io, Socket, Token, Wait};

use super::world::{Leased, Operation, World};

/// The machine, as core `core` sees it. A turn submits; the driver decides when the core goes on.
pub(crate) struct SimIo {
    /// The core's number.
    pub(crate) core: usize,
    /// The machine.
    pub(crate) world: Rc<RefCell<World>>,
}

impl SimIo {
    fn queue(&mut self, operation: Operation) {
        self.world.borrow_mut().kernels[self.core].queued.push(operation);
    }
}

impl Io for SimIo {
    type Buffer = Leased;

    fn clock(&mut self) -> Clock {
        let mut world = self.world.borrow_mut();
        world.disturb_clock();
        Clock { wall_ms: world.wall_ms() as u64, monotonic_ns: world.now_ns }
    }

    fn random(&mut self) -> u64 {
        self.world.borrow_mut().random.bits()
    }

    fn accept(&mut self, listener: u32) {
        assert!(listener == 0, "every core has one listener");
        self.queue(Operation::Accept(0));
    }

    fn connect(&mut self, ticket: u64, _address: SocketAddr) {
        self.queue(Operation::Connect(ticket, 0));
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

    fn recycle(&mut self, buffer: Leased) {
        self.world.borrow_mut().recycle(self.core, buffer);
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
        (format!("10.0.0.1:{}", socket.0), "10.0.0.2:6379".to_owned())
    }

    fn set_keepalive(&mut self, _seconds: u32) {}

    fn file_task(&mut self, ticket: u64, task: FileTask) {
        self.world.borrow_mut().give_task(self.core, ticket, task);
    }

    fn write_file(&mut self, file: File, bytes: &[u8], offset_bytes: u64) -> Result<(), i32> {
        self.world.borrow_mut().write_file(self.core, file, bytes, offset_bytes)
    }

    fn sync_file(&mut self, ticket: u64, file: File, _is_first: bool) {
        let mut world = self.world.borrow_mut();
        let (end_ns, fails) = world.sync_end();
        world.kernels[self.core].files.begin_sync(ticket, file, end_ns, fails);
    }

    fn wake(&mut self, core: usize) {
        self.queue(Operation::Wake(core));
    }

    fn turn(&mut self, _wait: Wait) {
        self.world.borrow_mut().enter(self.core);
    }

    fn next_event(&mut self) -> Option<Event<Leased>> {
        self.world.borrow_mut().kernels[self.core].taken.pop_front()
    }

    fn can_batch(&self) -> bool {
        self.world.borrow().can_batch
    }
}
