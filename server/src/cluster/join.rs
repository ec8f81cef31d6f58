//! How a node that starts asks to be let into a cluster.
//!
//! It asks a node over that one's port for clients, as a client: `CLUSTER JOIN <id> <host> <port> <peer-port> [<level>]`, with the id as
//! 32 hexadecimal digits, and its feature level unless that is the first. Whoever does not lead the meta group answers `-NOTMETALEADER host:port`, and that node is asked
//! next. The answer is a [`JoinAnswer`] in a bulk string. Asking twice is as good as once: a known id keeps its number.
//!
//! This blocks, and is for the time before a node serves anybody. What answers is not trusted: it costs bounded memory, and
//! each question bounded time. Who has something else to go back to gives up once nobody has answered for a while.

use std::{
    error::Error,
    fmt,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use duva_raft::{HardState, Membership, SnapshotMeta};

use super::{
    DecodeError,
    bytes::Reader,
    feature_level::FIRST,
    file::ClusterFile,
    meta::{MetaState, is_host},
};

/// How long one node may take to accept a connection, and then to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first wait after a failure, and the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// How often the log says that nobody has let this node in yet.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How many nodes in a row may name another one before it is a failure: elections take their time.
const HOPS_MAX: u32 = 4;

/// The longest line of a reply, and the longest answer: more than any state takes.
const LINE_BYTES_MAX: u64 = 4096;
const ANSWER_BYTES_MAX: u64 = 16 << 20;

const VERSION: u8 = 1;

/// Who asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The node's id.
    pub id: [u8; 16],
    /// Where others reach it; `None`: at the address that its connection to them comes from.
    pub host: Option<String>,
    /// Its port for clients.
    pub port: u16,
    /// Its port for other nodes.
    pub peer_port: u16,
    /// The feature level that it speaks.
    pub level: u16,
}

/// What a node is told that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// Its number.
    pub number: u32,
    /// The cluster, this node included.
    pub state: MetaState,
    /// Where in the meta group's log that is.
    pub snapshot: SnapshotMeta,
}

impl JoinAnswer {
    /// What the node that was let in begins with.
    pub fn into_file(self) -> ClusterFile {
        let Self { number, state, snapshot } = self;
        ClusterFile {
            number,
            is_recovering: false,
            cluster: state.cluster,
            hard_state: HardState::default(),
            snapshot,
            state,
            entries: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The answer as bytes, little-endian: version u8 (1), number u32, index u64, term u64, length of the membership u16 and the
    /// membership as Raft encodes it, the state as [`MetaState::encode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.snapshot.index.to_le_bytes());
        bytes.extend_from_slice(&self.snapshot.term.to_le_bytes());
        let membership = self.snapshot.membership.encode();
        let length = u16::try_from(membership.len()).expect("the meta group has a few members");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend(membership);
        bytes.extend(self.state.encode());
        bytes
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    ///
    /// # Errors
    ///
    /// The bytes end early or go on, are of another version, or the state is none or does not know the number.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(u16::from(version))),
        }
        let number = reader.u32()?;
        let (index, term, length) = (reader.u64()?, reader.u64()?, reader.u16()?);
        let membership = Membership::decode(reader.take(usize::from(length))?)
            .map_err(|_| DecodeError::Invalid("the membership of the meta group is none"))?;
        let snapshot = SnapshotMeta { index, term, membership };
        let state = MetaState::decode(reader.take(reader.remaining())?)?;
        if state.nodes.contains_key(&number) {
            Ok(Self { number, state, snapshot })
        } else {
            Err(DecodeError::Invalid("the state does not know the node that it lets in"))
        }
    }
}

/// Why a node was not let in.
#[derive(Debug)]
pub enum JoinError {
    /// The seed is not `host:port`.
    Seed {
        /// What it is.
        seed: String,
    },
    /// The cluster does not want it, or not like this.
    Refused {
        /// Who says so.
        node: String,
        /// The error that it answered.
        answer: String,
    },
    /// What answers there does not speak as a node of this version does.
    Answer {
        /// Who.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody has answered for as long as that was waited for.
    Silence {
        /// How long.
        silence: Duration,
        /// What happened last.
        last: String,
    },
}

impl fmt::Display for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed { seed } => write!(formatter, "'{seed}' is not the host and port of a node"),
            Self::Refused { node, answer } => write!(formatter, "{node} does not let this node in: {answer}"),
            Self::Answer { node, reason } => {
                write!(formatter, "{node} does not answer as a node of this version does: {reason}")
            }
            Self::Silence { silence, last } => {
                write!(formatter, "no node of that cluster has answered for {} s: {last}", silence.as_secs())
            }
        }
    }
}

impl Error for JoinError {}

/// Splits `host:port`, with an IPv6 address in brackets or not. `None` if it is not so, or the port is 0.
pub fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port: &u16| *port > 0)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    is_host(host).then_some((host, port))
}

/// Asks the cluster of `seed` (`host:port`, for clients) to let this node in, until it does.
///
/// With a password, it is given for the default user. Nodes that cannot be reached, or that say that it is not possible at
/// the moment, are asked again, with growing waits in between, until nobody has answered for `silence_max`; `None`: for ever.
///
/// # Errors
///
/// The seed is none, the cluster refuses, something else answers, or nobody does.
pub fn join(
    seed: &str,
    own: &JoinRequest,
    password: Option<&[u8]>,
    silence_max: Option<Duration>,
) -> Result<JoinAnswer, JoinError> {
    if split_address(seed).is_none() {
        return Err(JoinError::Seed { seed: seed.to_owned() });
    }
    let (mut target, mut hops, mut back_off) = (seed.to_owned(), 0, BACK_OFF_MIN);
    let mut logged_at: Option<Instant> = None;
    let mut heard_at = Instant::now();
    loop {
        let failure = match ask(&target, own, password) {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if !matches!(failure, Failure::Silent(_)) {
            heard_at = Instant::now();
        }
        let last = match failure {
            Failure::Elsewhere(leader) if hops < HOPS_MAX => {
                (target, hops) = (leader, hops + 1);
                continue;
            }
            Failure::Elsewhere(leader) => format!("{target} sends this node on to {leader}"),
            Failure::NotNow(reason) | Failure::Silent(reason) => format!("{target}: {reason}"),
            Failure::Final(error) => return Err(error),
        };
        if let Some(silence) = silence_max.filter(|max| heard_at.elapsed() + back_off >= *max) {
            return Err(JoinError::Silence { silence, last });
        }
        if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(reason = last, "still waiting to be let into the cluster of {seed}");
            logged_at = Some(Instant::now());
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "nothing but time says when another node can be asked again"
        )]
        thread::sleep(back_off);
        back_off = (back_off * 2).min(BACK_OFF_MAX);
        (target, hops) = (seed.to_owned(), 0);
    }
}

/// Why a node did not do what it was asked.
#[derive(Debug)]
pub enum OrderError {
    /// It says so, with this error.
    Answered(String),
    /// It could not be asked, or what is there is no node.
    Failed(String),
}

/// Asks a node once, as a client, for something that is answered with a status.
///
/// # Errors
///
/// It refuses, or does not answer in time, or not as a node.
pub fn order(target: &str, password: Option<&[u8]>, arguments: &[&[u8]]) -> Result<(), OrderError> {
    let told = |target: &str| -> Result<Answer, Failure> {
        let until = Instant::now() + PATIENCE;
        let mut reader = BufReader::new(Timed { stream: connect(target, until)?, until });
        if let Some(password) = password {
            send(&mut reader, &[b"AUTH", b"default", password])?;
            if let Answer::Error(answer) = read_reply(&mut reader, target)? {
                return Ok(Answer::Error(answer));
            }
        }
        send(&mut reader, arguments)?;
        read_reply(&mut reader, target)
    };
    match told(target) {
        Ok(Answer::Other) => Ok(()),
        Ok(Answer::Error(answer)) => Err(OrderError::Answered(answer)),
        Ok(Answer::Bulk(_)) => Err(OrderError::Failed("it does not answer as a node".to_owned())),
        Err(Failure::Elsewhere(_)) => Err(OrderError::Failed("it names another node".to_owned())),
        Err(Failure::NotNow(reason) | Failure::Silent(reason)) => Err(OrderError::Failed(reason)),
        Err(Failure::Final(error)) => Err(OrderError::Failed(error.to_string())),
    }
}

/// What came of asking one node.
enum Failure {
    /// Ask that one.
    Elsewhere(String),
    /// It has answered: ask again, later.
    NotNow(String),
    /// It has not: ask again, later.
    Silent(String),
    /// It is of no use.
    Final(JoinError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Self::Silent("it does not answer in time".to_owned())
            }
            _ => Self::Silent(error.to_string()),
        }
    }
}

fn ask(target: &str, own: &JoinRequest, password: Option<&[u8]>) -> Result<JoinAnswer, Failure> {
    let until = Instant::now() + PATIENCE;
    let stream = connect(target, until)?;
    let local = stream.local_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(Timed { stream, until });
    if let Some(password) = password {
        send(&mut reader, &[b"AUTH", b"default", password])?;
        match read_reply(&mut reader, target)? {
            Answer::Other => {}
            Answer::Error(answer) if answer.starts_with("LOADING") => return Err(Failure::NotNow(answer)),
            Answer::Error(answer) => {
                return Err(Failure::Final(JoinError::Refused { node: target.to_owned(), answer }));
            }
            Answer::Bulk(_) => return Err(strange(target, "AUTH gets a bulk string")),
        }
    }
    let id = format!("{:032x}", u128::from_be_bytes(own.id));
    let host = own.host.clone().unwrap_or_else(|| local.to_string());
    let (port, peer_port) = (own.port.to_string(), own.peer_port.to_string());
    let level = own.level.to_string();
    let words = ["CLUSTER", "JOIN", &id, &host, &port, &peer_port, &level].map(str::as_bytes);
    // Who knows nothing of levels lets those in that say nothing.
    send(&mut reader, if own.level == FIRST { &words[..6] } else { &words })?;
    match read_reply(&mut reader, target)? {
        Answer::Bulk(bytes) => {
            JoinAnswer::decode(&bytes).map_err(|error| strange(target, &error.to_string()))
        }
        Answer::Other => Err(strange(target, "it answers with something else than a bulk string")),
        Answer::Error(answer) => match answer.split_once(' ') {
            Some(("NOTMETALEADER", leader)) if split_address(leader).is_some() => {
                Err(Failure::Elsewhere(leader.to_owned()))
            }
            // Whoever it is, it does not know the leader at the moment.
            _ if ["NOTMETALEADER", "TRYAGAIN", "CLUSTERDOWN", "LOADING"]
                .iter()
                .any(|code| answer.split(' ').next() == Some(code)) =>
            {
                Err(Failure::NotNow(answer))
            }
            _ => Err(Failure::Final(JoinError::Refused { node: target.to_owned(), answer })),
        },
    }
}

fn strange(target: &str, reason: &str) -> Failure {
    Failure::Final(JoinError::Answer { node: target.to_owned(), reason: reason.to_owned() })
}

/// Connects to the first of the host's addresses that accepts.
fn connect(target: &str, until: Instant) -> Result<TcpStream, Failure> {
    let address = split_address(target).expect("checked where it came from");
    let addresses: Vec<SocketAddr> = match address.0.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, address.1)],
        Err(_) => address.to_socket_addrs()?.collect(),
    };
    let mut last = Failure::Silent("its name has no address".to_owned());
    for address in addresses {
        match TcpStream::connect_timeout(&address, time_left(until)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// A stream on which everything together has to happen before a certain moment.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

/// The time that is left, which is never zero: that would mean no limit.
fn time_left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(time_left(self.until)?))?;
        self.stream.read(buffer)
    }
}

fn send(reader: &mut BufReader<Timed>, arguments: &[&[u8]]) -> io::Result<()> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    let timed = reader.get_mut();
    timed.stream.set_write_timeout(Some(time_left(timed.until)?))?;
    timed.stream.write_all(&bytes)
}

/// A reply, as far as it matters.
enum Answer {
    Bulk(Vec<u8>),
    /// Without its leading `-`.
    Error(String),
    Other,
}

fn read_reply(reader: &mut BufReader<Timed>, target: &str) -> Result<Answer, Failure> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    let Some(text) = line.strip_suffix(b"\r\n") else {
        return Err(if line.len() as u64 == LINE_BYTES_MAX || line.ends_with(b"\n") {
            strange(target, "it does not speak RESP")
        } else {
            Failure::Silent("it closed the connection".to_owned())
        });
    };
    let text = String::from_utf8_lossy(text);
    if let Some(error) = text.strip_prefix('-') {
        return Ok(Answer::Error(error.to_owned()));
    }
    let Some(length) = text.strip_prefix('$') else {
        return if text.starts_with(['+', ':']) {
            Ok(Answer::Other)
        } else {
            Err(strange(target, "it does not speak RESP"))
        };
    };
    let length = length
        .parse()
        .ok()
        .filter(|length: &u64| *length <= ANSWER_BYTES_MAX)
        .ok_or_else(|| strange(target, "the length of its answer is impossible"))?;
    // Memory grows as bytes arrive.
    let mut bytes = Vec::new();
    reader.by_ref().take(length + 2).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length + 2 {
        return Err(Failure::Silent("it closed the connection".to_owned()));
    }
    bytes.truncate(length as usize);
    Ok(Answer::Bulk(bytes))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::mpsc, thread::JoinHandle};

    use super::{
        super::meta::{MetaCommand, NodeInfo},
        *,
    };

    /// A node that answers each connection with what the test says, and then is gone.
    struct Fake {
        address: String,
        requests: mpsc::Receiver<Vec<String>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Fake {
        /// Each element is for a connection: its answers, request by request. An empty answer closes the connection.
        fn new(connections: Vec<Vec<Vec<u8>>>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (sender, requests) = mpsc::channel();
            let thread = thread::spawn(move || {
                for answers in connections {
                    let mut reader = BufReader::new(listener.accept().unwrap().0);
                    for answer in answers {
                        sender.send(read_request(&mut reader)).unwrap();
                        reader.get_mut().write_all(&answer).unwrap();
                    }
                }
            });
            Self { address, requests, thread: Some(thread) }
        }

        fn finish(mut self) -> Vec<Vec<String>> {
            self.thread.take().unwrap().join().unwrap();
            self.requests.iter().collect()
        }
    }

    fn read_request(reader: &mut BufReader<TcpStream>) -> Vec<String> {
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let count: usize = line().strip_prefix('*').unwrap().parse().unwrap();
        (0..count)
            .map(|_| {
                assert!(line().starts_with('$'));
                line()
            })
            .collect()
    }

    fn own() -> JoinRequest {
        JoinRequest {
            id: [0xAB; 16],
            host: Some("n2.example".to_owned()),
            port: 7002,
            peer_port: 17002,
            level: 1,
        }
    }

    fn answer() -> JoinAnswer {
        let mut state = MetaState::genesis([9; 16], 4, 77, 3, NodeInfo::example(1));
        state.apply(&MetaCommand::AddNode(NodeInfo::example(0xAB)));
        let membership = crate::core::groups::genesis_membership();
        JoinAnswer { number: 2, state, snapshot: SnapshotMeta { index: 7, term: 2, membership } }
    }

    fn bulk(bytes: &[u8]) -> Vec<u8> {
        [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
    }

    fn welcome() -> Vec<u8> {
        bulk(&answer().encode())
    }

    /// Far beyond what any of these tests takes.
    fn patient() -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    #[test]
    fn a_node_says_who_it_is_and_is_let_in() {
        let fake = Fake::new(vec![vec![welcome()]]);
        assert_eq!(join(&fake.address, &own(), None, patient()).unwrap(), answer());
        let expected = ["CLUSTER", "JOIN", &"ab".repeat(16), "n2.example", "7002", "17002"];
        assert_eq!(fake.finish(), [expected]);
        let fake = Fake::new(vec![vec![welcome()]]);
        join(&fake.address, &JoinRequest { level: 2, ..own() }, None, patient()).unwrap();
        assert_eq!(fake.finish()[0][5..], ["17002", "2"]);
    }

    #[test]
    fn without_a_host_it_is_where_it_connects_from() {
        let fake = Fake::new(vec![vec![welcome()]]);
        join(&fake.address, &JoinRequest { host: None, ..own() }, None, patient()).unwrap();
        assert_eq!(fake.finish()[0][3], "127.0.0.1");
    }

    #[test]
    fn a_password_comes_first() {
        let fake = Fake::new(vec![vec![b"+OK\r\n".to_vec(), welcome()]]);
        join(&fake.address, &own(), Some(b"secret"), patient()).unwrap();
        assert_eq!(fake.finish()[0], ["AUTH", "default", "secret"]);
        let fake = Fake::new(vec![vec![b"-WRONGPASS invalid\r\n".to_vec()]]);
        let error = join(&fake.address, &own(), Some(b"wrong"), patient()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} does not let this node in: WRONGPASS invalid", fake.address)
        );
    }

    #[test]
    fn the_leader_is_asked_where_another_node_says_it_is() {
        let leader = Fake::new(vec![vec![welcome()]]);
        let to_leader = format!("-NOTMETALEADER {}\r\n", leader.address).into_bytes();
        let fake = Fake::new(vec![vec![to_leader]]);
        assert_eq!(join(&fake.address, &own(), None, patient()).unwrap(), answer());
        assert_eq!((fake.finish().len(), leader.finish().len()), (1, 1));
    }

    #[test]
    fn what_may_pass_is_waited_for() {
        let fake = Fake::new(vec![
            vec![b"-TRYAGAIN no leader yet\r\n".to_vec()],
            vec![Vec::new()],
            vec![b"$100\r\nhalf".to_vec()],
            vec![b"-NOTMETALEADER\r\n".to_vec()],
            vec![welcome()],
        ]);
        assert_eq!(join(&fake.address, &own(), None, patient()).unwrap(), answer());
        assert_eq!(fake.finish().len(), 5);
    }

    #[test]
    fn a_leader_that_is_gone_leads_back_to_the_seed() {
        let gone = Fake::new(vec![]).address;
        let to_gone = format!("-NOTMETALEADER {gone}\r\n").into_bytes();
        let fake = Fake::new(vec![vec![to_gone], vec![welcome()]]);
        assert_eq!(join(&fake.address, &own(), None, patient()).unwrap(), answer());
        assert_eq!(fake.finish().len(), 2);
    }

    #[test]
    fn a_node_that_always_names_another_leads_back_to_the_seed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let to_itself = format!("-NOTMETALEADER {address}\r\n").into_bytes();
        let fake = Fake::new(vec![vec![to_itself.clone()], vec![welcome()]]);
        let circle = thread::spawn(move || {
            for _ in 0..HOPS_MAX {
                let mut reader = BufReader::new(listener.accept().unwrap().0);
                read_request(&mut reader);
                reader.get_mut().write_all(&to_itself).unwrap();
            }
        });
        assert_eq!(join(&fake.address, &own(), None, patient()).unwrap(), answer());
        assert_eq!(fake.finish().len(), 2);
        circle.join().unwrap();
    }

    #[test]
    fn nobody_is_waited_for_only_so_long() {
        let gone = Fake::new(vec![]).address;
        let error = join(&gone, &own(), None, Some(Duration::ZERO)).unwrap_err();
        assert!(matches!(&error, JoinError::Silence { .. }), "{error}");
        assert!(error.to_string().contains(&gone), "{error}");
        // One that hangs up has not answered, one that says that it cannot now has: the wait begins anew.
        let fake = Fake::new(vec![vec![b"-TRYAGAIN no leader yet\r\n".to_vec()], vec![Vec::new()]]);
        let error = join(&fake.address, &own(), None, Some(BACK_OFF_MIN + BACK_OFF_MIN / 2)).unwrap_err();
        assert!(error.to_string().ends_with(": it closed the connection"), "{error}");
        assert_eq!(fake.finish().len(), 2);
    }

    #[test]
    fn a_refusal_ends_it() {
        let fake = Fake::new(vec![vec![b"-ERR the cluster is full\r\n".to_vec()]]);
        let error = join(&fake.address, &own(), None, patient()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} does not let this node in: ERR the cluster is full", fake.address)
        );
    }

    #[test]
    fn what_is_no_node_is_told_from_one() {
        for hostile in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"+OK\r\n",
            b"*1\r\n",
            b"$-1\r\n",
            b"$99999999999\r\n",
            b"$18446744073709551615\r\n",
            b"$3\r\nabc\r\n",
            b"$0\r\n\r\n",
            b"no line\n",
            &[b'x'; 5000],
            &bulk(&[1, 9, 0, 0, 0]),
            &bulk(&[&[1, 9, 0, 0, 0], &answer().state.encode()[..]].concat()),
        ] {
            let fake = Fake::new(vec![vec![hostile.to_vec()]]);
            let error = join(&fake.address, &own(), None, patient()).unwrap_err();
            assert!(matches!(error, JoinError::Answer { .. }), "{}: {error}", hostile.escape_ascii());
        }
    }

    #[test]
    fn answers_come_back_and_damaged_ones_do_not() {
        let bytes = answer().encode();
        assert_eq!(JoinAnswer::decode(&bytes), Ok(answer()));
        for end in 0..bytes.len() {
            assert!(JoinAnswer::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(JoinAnswer::decode(&other), Err(DecodeError::Version(2)));
    }

    #[test]
    fn addresses_are_split_at_their_last_colon() {
        for (text, expected) in [
            ("localhost:1", Some(("localhost", 1))),
            ("10.0.0.1:65535", Some(("10.0.0.1", 65535))),
            ("[::1]:6379", Some(("::1", 6379))),
            ("::1:6379", Some(("::1", 6379))),
            ("host:0", None),
            ("host:65536", None),
            ("host", None),
            (":6379", None),
            ("a b:1", None),
            ("", None),
        ] {
            assert_eq!(split_address(text), expected, "{text}");
        }
        let error = join("nowhere", &own(), None, None).unwrap_err();
        assert_eq!(error.to_string(), "'nowhere' is not the host and port of a node");
    }
}
