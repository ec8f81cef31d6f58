use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::IntoRawFd, unix::net::UnixStream},
    path::PathBuf,
    time::Duration,
};

use super::*;
use crate::{
    Listener,
    files::{Storage, tests::Directory},
};

/// How long a ring is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of which each is to receive its end.
const CONNECTIONS: u32 = 3000;

fn ring_with(submission_entries: u32, worker_cpus: Option<Vec<usize>>) -> Result<Ring, RingError> {
    ring_that_listens(submission_entries, worker_cpus, Vec::new())
}

fn ring_that_listens(
    submission_entries: u32,
    worker_cpus: Option<Vec<usize>>,
    listeners: Vec<Listener>,
) -> Result<Ring, RingError> {
    let wake = WakeHandle::new().unwrap();
    let storage = Storage::start(0, wake.clone()).unwrap();
    Ring::new(RingOptions {
        submission_entries,
        completion_entries: 64,
        buffer_count: 2,
        buffer_size_bytes: 4096,
        listeners,
        wake,
        storage,
        worker_cpus,
    })
}

fn ring() -> Ring {
    ring_with(4, None).unwrap()
}

impl Ring {
    /// Waits for `count` events of files.
    fn file_events(&mut self, count: usize) -> Vec<Event<ReceiveBuffer>> {
        let mut events = Vec::new();
        for _ in 0..1000 {
            self.turn(Wait::Block { events: 1, timeout: Some(Duration::from_secs(10)) });
            while let Some(event) = self.next_event() {
                if !matches!(event, Event::Woken) {
                    events.push(event);
                }
            }
            if events.len() >= count {
                break;
            }
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// What comes on a connection whose receive is armed, up to its end.
    fn receives_to_the_end(&mut self, connection: Token, socket: Socket) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            self.turn(Wait::Block { events: 1, timeout: Some(PATIENCE) });
            let mut is_armed = true;
            let mut has_come = false;
            while let Some(event) = self.next_event() {
                has_come = true;
                match event {
                    Event::Received { result: Ok(buffer), armed, .. } => {
                        received.extend_from_slice(&buffer);
                        self.recycle(buffer);
                        is_armed = armed;
                    }
                    Event::Received { result: Err(ReceiveEnd::Closed), .. } => return received,
                    other => panic!("{other:?}"),
                }
            }
            assert!(has_come, "no end came behind {received:?}");
            if !is_armed {
                self.receive(connection, socket);
            }
        }
    }

    /// Does a task, which must succeed.
    fn done(&mut self, task: FileTask) {
        self.file_task(1, task);
        let events = self.file_events(1);
        assert!(matches!(events[0], Event::FileDone { ticket: 1, result: Ok(()), .. }), "{events:?}");
    }

    fn prepare(&mut self, file: File, path: PathBuf, length_bytes: u64) {
        self.done(FileTask::Prepare { file, path, length_bytes, recycle: None, is_written: true });
    }
}

#[test]
fn a_write_is_there_at_once_and_a_sync_completes() {
    let (directory, mut ring) = (Directory::new(), ring());
    let path = directory.path("a");
    ring.prepare(File(5), path.clone(), 4096);
    assert_eq!(ring.write_file(File(5), b"hello", 100), Ok(()));
    assert_eq!(&fs::read(&path).unwrap()[98..107], b"\0\0hello\0\0");
    ring.sync_file(77, File(5), true);
    let events = ring.file_events(1);
    assert!(matches!(events[0], Event::Synced { ticket: 77, result: Ok(()) }), "{events:?}");
}

#[test]
fn more_syncs_than_the_queue_holds_all_complete() {
    let (directory, mut ring) = (Directory::new(), ring());
    ring.prepare(File(0), directory.path("a"), 4096);
    for ticket in 0..40 {
        ring.sync_file(ticket, File(0), true);
    }
    let mut tickets: Vec<u64> = ring
        .file_events(40)
        .into_iter()
        .map(|event| match event {
            Event::Synced { ticket, result: Ok(()) } => ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    tickets.sort_unstable();
    assert!(tickets.into_iter().eq(0..40));
}

#[test]
fn a_sync_that_fails_says_why() {
    let (directory, mut ring) = (Directory::new(), ring());
    ring.prepare(File(0), directory.path("a"), 100);
    // The entry is never submitted: the kernel's part is played here.
    ring.files.begin_sync(9, File(0), false);
    let event = ring.files.end_sync(0, -libc::EIO);
    assert!(matches!(event, Event::Synced { result: Err(libc::EIO), .. }), "{event:?}");
}

#[test]
fn writing_fails_with_its_errno() {
    let (directory, mut ring) = (Directory::new(), ring());
    ring.prepare(File(0), directory.path("a"), 100);
    assert_eq!(ring.write_file(File(0), b"bytes", 1 << 63), Err(libc::EINVAL));
}

#[test]
fn a_number_is_used_again_while_its_last_file_still_syncs() {
    let (directory, mut ring) = (Directory::new(), ring());
    let path = |number: u64| directory.path(&number.to_string());
    ring.prepare(File(0), path(0), 4096);
    for number in 1..50_u64 {
        assert_eq!(ring.write_file(File(0), &number.to_le_bytes(), 0), Ok(()));
        ring.sync_file(number, File(0), true);
        ring.file_task(number, FileTask::Close { file: File(0) });
        let (file, path) = (File(0), path(number));
        ring.file_task(
            number,
            FileTask::Prepare { file, path, length_bytes: 4096, recycle: None, is_written: false },
        );
        for event in ring.file_events(3) {
            match event {
                Event::Synced { ticket, result } | Event::FileDone { ticket, result, .. } => {
                    assert_eq!((ticket, result), (number, Ok(())));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    for number in 0..49 {
        assert_eq!(fs::read(path(number)).unwrap()[..8], (number + 1).to_le_bytes());
    }
}

#[test]
fn a_file_given_up_before_it_was_open_is_not_open() {
    let (directory, mut ring) = (Directory::new(), ring());
    let (file, path) = (File(0), directory.path("a"));
    let created = File(1);
    ring.file_task(1, FileTask::Create { file: created, path: path.clone(), digest: None });
    ring.file_task(2, FileTask::Discard { file: created, path: path.clone() });
    ring.file_events(2);
    assert!(directory.names().is_empty());
    let prepare =
        |path: PathBuf| FileTask::Prepare { file, path, length_bytes: 100, recycle: None, is_written: false };
    ring.file_task(3, prepare(directory.path("b")));
    ring.file_task(4, FileTask::Close { file });
    ring.file_events(2);
    ring.prepare(file, path, 100);
    assert_eq!(ring.write_file(file, b"bytes", 0), Ok(()));
}

#[test]
fn workers_are_placed_where_told() {
    let (directory, mut ring) = (Directory::new(), ring_with(4, Some(vec![allowed_cpu()])).unwrap());
    ring.prepare(File(0), directory.path("a"), 100);
    ring.sync_file(1, File(0), true);
    ring.file_events(1);
}

#[test]
fn workers_that_cannot_be_placed_are_refused() {
    for cpus in [vec![], vec![allowed_cpu(), libc::CPU_SETSIZE as usize]] {
        let Err(error) = ring_with(4, Some(cpus)) else { panic!("there are no such CPUs") };
        assert_eq!(error.step, "placing the ring's workers");
    }
}

/// A CPU that this thread may use.
fn allowed_cpu() -> usize {
    // SAFETY: the set is a local; every number asked for is within it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), 0);
        (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &set)).unwrap()
    }
}

/// Waits for the end of an attempt to connect.
fn connected(ring: &mut Ring, ticket: u64) -> Result<Socket, i32> {
    match ring.file_events(1).pop() {
        Some(Event::Connected { ticket: told, result }) => {
            assert_eq!(told, ticket);
            result
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_that_is_asked_for_carries_bytes() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            assert!(address.starts_with('['), "every machine has an IPv4 loopback");
            continue;
        };
        let mut ring = ring();
        ring.connect(5 << 40, listener.local_addr().unwrap());
        let socket = connected(&mut ring, 5 << 40).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        ring.send(Token::default(), socket, b"hello".to_vec(), 0);
        let events = ring.file_events(1);
        assert!(matches!(events[0], Event::Sent { result: Ok(5), .. }), "{events:?}");
        ring.shutdown(socket);
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        ring.close(socket);
        ring.turn(Wait::Poll);
    }
}

#[test]
fn a_connection_that_nobody_takes_fails_and_its_place_is_used_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut ring = ring();
    for ticket in 0..3 {
        ring.connect(ticket, free);
        assert_eq!(connected(&mut ring, ticket), Err(libc::ECONNREFUSED));
    }
    // The entry is never submitted: the kernel's part is played here.
    ring.connects.begin(9, free);
    let event = ring.connects.end(0, -libc::ETIMEDOUT);
    assert!(matches!(event, Event::Connected { ticket: 9, result: Err(libc::ETIMEDOUT) }), "{event:?}");
}

/// Syncs a file beside turns that never wait; returns how often the worker was let in.
fn worker_turns(is_first: bool) -> u32 {
    let (directory, mut ring) = (Directory::new(), ring());
    ring.prepare(File(0), directory.path("a"), 4096);
    for ticket in 0..10 {
        assert_eq!(ring.write_file(File(0), b"hello", ticket * 8), Ok(()));
        ring.sync_file(ticket, File(0), is_first);
        assert_eq!(ring.queued_to_sync > 0, is_first);
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let event = loop {
            ring.turn(Wait::Poll);
            assert_eq!(ring.queued_to_sync, 0);
            if let Some(event) = ring.next_event() {
                break event;
            }
            assert!(std::time::Instant::now() < end, "the sync does not complete");
        };
        assert!(matches!(event, Event::Synced { ticket: of, result: Ok(()) } if of == ticket), "{event:?}");
        assert_eq!(ring.files.first_syncs, 0);
    }
    ring.worker_turns
}

#[test]
fn the_worker_of_a_first_sync_is_let_in_and_that_of_another_is_not() {
    assert!(worker_turns(true) >= 10);
    assert_eq!(worker_turns(false), 0);
}

/// Again and again accepts a connection, arms its receive, and has another thread send bytes and finish while this one waits.
fn ends_are_received<C: Write + Send>(
    listener: Listener,
    connect: impl Fn() -> C,
    finish: impl Fn(&C) + Send + Sync,
) {
    let mut ring = ring_that_listens(16, None, vec![listener]).unwrap();
    ring.accept(0);
    let (clients, to_send) = std::sync::mpsc::sync_channel::<C>(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for mut client in to_send {
                client.write_all(b"bytes").unwrap();
                finish(&client);
            }
        });
        for generation in 0..CONNECTIONS {
            let client = connect();
            ring.turn(Wait::Block { events: 1, timeout: Some(PATIENCE) });
            let Some(Event::Accepted { result: Ok(socket), armed: true, .. }) = ring.next_event() else {
                panic!("no connection")
            };
            ring.receive(Token { index: 0, generation }, socket);
            ring.turn(Wait::Poll);
            assert!(ring.next_event().is_none(), "nothing was sent");
            clients.send(client).unwrap();
            assert_eq!(ring.receives_to_the_end(Token { index: 0, generation }, socket), b"bytes");
            ring.close(socket);
        }
        drop(clients);
    });
}

#[test]
fn the_end_behind_the_last_bytes_of_a_unix_socket_is_received() {
    let directory = Directory::new();
    let path = directory.path("socket");
    let listener = Listener::unix(&path).unwrap();
    let finish = |client: &UnixStream| client.shutdown(Shutdown::Write).unwrap();
    ends_are_received(listener, || UnixStream::connect(&path).unwrap(), finish);
}

#[test]
fn the_end_behind_the_last_bytes_of_a_tcp_connection_is_received() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), 0).unwrap();
    let address = listener.local_address().unwrap();
    let finish = |client: &TcpStream| client.shutdown(Shutdown::Write).unwrap();
    ends_are_received(listener, || TcpStream::connect(address).unwrap(), finish);
}

#[test]
fn connections_of_unix_sockets_are_known_whoever_accepted_them() {
    let mut ring = ring();
    let (unix, _other) = UnixStream::pair().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Socket(unix.into_raw_fd());
    for _ in 0..2 {
        assert!(ring.is_unix_connection(socket));
        assert!(!ring.is_unix_connection(Socket(tcp.as_raw_fd())));
    }
    ring.close(socket);
    assert!(!ring.unix_connections[socket.0 as usize], "the descriptor may be another's soon");
}
